"""Ordered rows of bytes in transactions: the floor below a zone's store, whichever engine keeps them."""
