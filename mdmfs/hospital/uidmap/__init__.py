"""The way from pseudonymous to real and back: subjects and their patients, GUIDs and their instances."""
