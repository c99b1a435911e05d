"""What the hospital keeps beside its store: the audit log, staged objects, headers, keys in escrow and their shares."""
