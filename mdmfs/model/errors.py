"""What can go wrong, by name: each error has a code that travels between zones and one errno at the mount.

A message says what happened, to which path or GUID, and what to do. It never holds a patient's data, a real DICOM UID
or a key: messages cross from the hospital to the worker.
"""

from __future__ import annotations

from typing import ClassVar, Final


class MdmfsError(Exception):
    """The root of every error that mdmfs raises on purpose."""

    code: ClassVar[str] = "internal"


class MalformedNameError(MdmfsError, ValueError):
    """A text is not a GUID, LFN, SURL, DN or FQAN."""

    code = "malformed-name"


class MalformedQueryError(MdmfsError, ValueError):
    """A text is no query, or asks for what the schema does not have; the message begins with the column."""

    code = "malformed-query"


class MalformedMessageError(MdmfsError):
    """A peer sent something that the protocol does not know."""

    code = "malformed-message"


class ConfigurationError(MdmfsError):
    """A configuration file, certificate or policy cannot be used as it is."""

    code = "configuration"


class NoSuchFileError(MdmfsError):
    """There is no such name or GUID, or the caller may not know that there is."""

    code = "no-such-file"


class StaleNumberError(MdmfsError):
    """An inode number is another principal's, or of one who has not asked for long: its name leads to the right one."""

    code = "stale-number"


class NotADirectoryFileError(MdmfsError):
    """A file stands where a directory was expected."""

    code = "not-a-directory"


class IsADirectoryFileError(MdmfsError):
    """A directory stands where a file was expected."""

    code = "is-a-directory"


class NoSuchAttributeError(MdmfsError):
    """A file has no extended attribute of that name."""

    code = "no-such-attribute"


class ReadOnlyError(MdmfsError):
    """The images, and the directories that registration made, are read-only, whoever asks."""

    code = "read-only"


class NameTakenError(MdmfsError):
    """Something has the name already."""

    code = "name-taken"


class NotEmptyError(MdmfsError):
    """A collection still has entries."""

    code = "not-empty"


class RefusedNameError(MdmfsError, ValueError):
    """A name, a target or a comment cannot be kept as it is."""

    code = "refused-name"


class OtherHospitalError(MdmfsError):
    """A name cannot go from one hospital's catalogue to another's."""

    code = "other-hospital"


class QuotaError(MdmfsError):
    """A principal has made as many names as one may."""

    code = "quota"


class AccessDeniedError(MdmfsError):
    """A decision was received, and it was no."""

    code = "access-denied"


class CredentialRefusedError(MdmfsError):
    """The peer did not accept the caller's certificate or proxy, or the caller has none."""

    code = "credential-refused"


class CredentialExpiredError(MdmfsError):
    """The caller's proxy or certificate is past its end."""

    code = "credential-expired"


class PeerUnreachableError(MdmfsError):
    """A hospital or keystore does not answer, or is not who it should be."""

    code = "peer-unreachable"


class PeerTimedOutError(MdmfsError):
    """A hospital or keystore did not answer within the deadline."""

    code = "peer-timed-out"


class PacsUnreachableError(MdmfsError):
    """The hospital cannot reach the PACS, or the PACS refused the association."""

    code = "pacs-unreachable"


class RecallTimedOutError(MdmfsError):
    """The PACS did not deliver within the deadline."""

    code = "recall-timed-out"


class RecallFailedError(MdmfsError):
    """The PACS answered a recall with a failure, or with something that is not the instance asked for."""

    code = "recall-failed"


class InstanceRefusedError(MdmfsError):
    """An instance was refused by the de-identification, the residue search or the digests and is quarantined."""

    code = "instance-refused"


class InstanceChangedError(MdmfsError):
    """The PACS holds something else under this UID than what was registered."""

    code = "instance-changed"


class InstanceLostError(MdmfsError):
    """The PACS no longer holds the instance."""

    code = "instance-lost"


class IntegrityError(MdmfsError):
    """Ciphertext, or what came out of it, is not what was sealed."""

    code = "integrity"


class WrongKeyError(IntegrityError):
    """A file key does not match the commitment of a sealed object: a share was wrong, or the object is another's."""

    code = "wrong-key"


class TooFewSharesError(MdmfsError):
    """Fewer keystores than the threshold gave a usable share."""

    code = "too-few-shares"


class OutOfSpaceError(MdmfsError):
    """A cache or store is full and nothing can be evicted."""

    code = "out-of-space"


class BusyError(MdmfsError):
    """A limit is reached; the same request may succeed later."""

    code = "busy"


class InterruptedCallError(MdmfsError):
    """The caller received a fatal signal while it waited."""

    code = "interrupted"


class StoreError(MdmfsError):
    """A store of the hospital or keystore is damaged, full, or of a newer format than this program."""

    code = "store"


def _all_errors(root: type[MdmfsError]) -> list[type[MdmfsError]]:
    return [root, *(error for child in root.__subclasses__() for error in _all_errors(child))]


ERRORS_BY_CODE: Final = {error.code: error for error in _all_errors(MdmfsError)}
"""How an error that crossed the wire finds its class again; an unknown code becomes ``MdmfsError``."""


def again(error: MdmfsError) -> MdmfsError:
    """Give the same error once more, for another who waits for the same thing: one exception is raised in one task."""
    return ERRORS_BY_CODE[error.code](str(error))
