"""Names, subjects, principals, localities and errors: what every zone speaks of, on the standard library only."""
