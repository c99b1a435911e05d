"""The names that a mount shows: a versioned copy of the hospital's directories in use, kept right by its feed."""
