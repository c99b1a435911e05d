"""A throw-away house to look at: synthetic patients, a small PACS, a PKI; nothing here is used in earnest."""
