"""The messages between zones: frozen values in MessagePack; the protocol's version is in every path (``/v1/``).

Identifiers travel as bytes: a GUID and an ACL id have 16. Times are seconds since the epoch, sizes are bytes. No
message to a worker or keystore has room for a patient's identifier or a real DICOM UID.
"""
