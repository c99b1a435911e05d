"""Names, subjects, principals, localities and errors: values that every zone speaks of, on the standard library only."""
