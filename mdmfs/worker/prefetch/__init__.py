"""Fetch ahead of programs that read a directory file by file."""
