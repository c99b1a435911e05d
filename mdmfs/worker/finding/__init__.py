"""Asking the metadata services of all hospitals at once, and putting together what they find."""
