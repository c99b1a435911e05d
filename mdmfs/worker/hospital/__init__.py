"""The hospital as its workers know it: the port, and what answers there on the wire and for storage elements."""
