"""Speaks DICOM with PACSs, as SCU and as SCP (PS3.4, PS3.7, PS3.8), and never logs an identifier."""

from pynetdicom import _config

# pynetdicom writes whole identifiers to its log unless told otherwise. It is told here, because no module of this
# package can be imported without this line having run.
_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False
