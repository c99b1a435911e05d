"""FUSE, spoken here only: parse the kernel's request, call the file system, reply."""
