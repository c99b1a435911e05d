"""Pseudonymous attributes of images and records of subjects, found by whom their ACLs allow; no image, no patient."""
