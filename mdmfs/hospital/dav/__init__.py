"""WebDAV and HTTP as programs of the grid speak them: sealed objects to read, nothing to write, never a key."""
