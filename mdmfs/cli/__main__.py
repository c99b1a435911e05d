"""``python -m mdmfs.cli`` is the ``mdmfs`` command."""

from mdmfs.cli.main import main

main()
