"""The ``mdmfs`` command."""
