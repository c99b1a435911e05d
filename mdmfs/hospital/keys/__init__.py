"""The keys of registered files: keeping keystores current, verifying, repairing, renewing, destroying."""
