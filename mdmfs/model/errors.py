"""What can go wrong, by name: each error has a code that travels between zones and one errno at the mount.

A message says what happened, and to which path or GUID; its class says what to do about it, unless whoever raises it
knows better. Neither holds a patient's data, a real DICOM UID or a key: both cross from the hospital to the worker.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from typing import ClassVar, Final, Self


class MdmfsError(Exception):
    """The root of every error that mdmfs raises on purpose."""

    code: ClassVar[str] = "internal"
    what_to_do: str = "report it, with what the log says about it"
    place: str = ""
    """Which file or directory of this machine failed. It is told here, in ``told_here``, and never to a peer."""

    def __init__(self, message: str = "", *, what_to_do: str = "") -> None:
        super().__init__(message)
        if what_to_do:
            self.what_to_do = what_to_do

    @property
    def told_here(self) -> str:
        """The message as this machine's own people read it."""
        return f"{self} (in {self.place})" if self.place else str(self)

    def about(self, subject: object) -> Self:
        """Give the same error once more, its message beginning with what it is about."""
        told = type(self)(f"{subject}: {self}", what_to_do=self.what_to_do)
        told.place = self.place
        return told


class MalformedNameError(MdmfsError, ValueError):
    """A text is not a GUID, LFN, SURL, DN or FQAN."""

    code = "malformed-name"
    what_to_do = "write the name in the form that is told; docs/glossary.md has all of them"


class MalformedQueryError(MdmfsError, ValueError):
    """A text is no query, or asks for what the schema does not have; the message begins with the column."""

    code = "malformed-query"
    what_to_do = "mend it at that column; mdmfs find --schema lists the attributes, docs/query.md the grammar"


class MalformedMessageError(MdmfsError):
    """A peer sent something that the protocol does not know."""

    code = "malformed-message"
    what_to_do = "mend what it names; if that is nothing of yours, see that both sides run versions that fit"


class ConfigurationError(MdmfsError):
    """A configuration file, certificate or policy cannot be used as it is."""

    code = "configuration"
    what_to_do = "mend what is named there; mdmfs doctor CONFIGURATION looks at everything that a file names"


class NoSuchFileError(MdmfsError):
    """There is no such name or GUID, or the caller may not know that there is."""

    code = "no-such-file"
    what_to_do = "look for the name with ls or mdmfs find; mdmfs why PATH tells whether it is hidden from you"


class StaleNumberError(MdmfsError):
    """An inode number is another principal's, or of one who has not asked for long: its name leads to the right one."""

    code = "stale-number"
    what_to_do = "open the path again"


class NotADirectoryFileError(MdmfsError):
    """A file stands where a directory was expected."""

    code = "not-a-directory"
    what_to_do = "name a directory"


class IsADirectoryFileError(MdmfsError):
    """A directory stands where a file was expected."""

    code = "is-a-directory"
    what_to_do = "name a file"


class NoSuchAttributeError(MdmfsError):
    """A file has no extended attribute of that name."""

    code = "no-such-attribute"
    what_to_do = "getfattr -d -m - PATH lists the attributes that there are"


class ReadOnlyError(MdmfsError):
    """The images, and the directories that registration made, are read-only, whoever asks."""

    code = "read-only"
    what_to_do = "write your results elsewhere; collections and aliases may be made where you have the right w"


class NameTakenError(MdmfsError):
    """Something has the name already."""

    code = "name-taken"
    what_to_do = "take another name, or remove what has this one"


class NotEmptyError(MdmfsError):
    """A collection still has entries."""

    code = "not-empty"
    what_to_do = "remove what is in it first"


class RefusedNameError(MdmfsError, ValueError):
    """A name, a target or a comment cannot be kept as it is."""

    code = "refused-name"
    what_to_do = "take another name"


class OtherHospitalError(MdmfsError):
    """A name cannot go from one hospital's catalogue to another's."""

    code = "other-hospital"
    what_to_do = "make it there and remove it here"


class QuotaError(MdmfsError):
    """A principal has made as many names as one may."""

    code = "quota"
    what_to_do = "remove what you no longer need"


class AccessDeniedError(MdmfsError):
    """A decision was received, and it was no."""

    code = "access-denied"
    what_to_do = "mdmfs why PATH tells who you are and what decides; who has the right a can change it"


class CredentialRefusedError(MdmfsError):
    """The peer did not accept the caller's certificate or proxy, or the caller has none."""

    code = "credential-refused"
    what_to_do = "make a proxy, of a CA and VO that the site trusts; mdmfs doctor looks at it"


class CredentialExpiredError(MdmfsError):
    """The caller's proxy or certificate is past its end."""

    code = "credential-expired"
    what_to_do = "make a new proxy, or renew the certificate; it is found by itself"


class PeerUnreachableError(MdmfsError):
    """A hospital or keystore does not answer, or is not who it should be."""

    code = "peer-unreachable"
    what_to_do = "see whether it runs and can be reached from here: mdmfs doctor CONFIGURATION"


class PeerTimedOutError(MdmfsError):
    """A hospital or keystore did not answer within the deadline."""

    code = "peer-timed-out"
    what_to_do = "try again; if it stays so: mdmfs doctor CONFIGURATION"


class PacsUnreachableError(MdmfsError):
    """The hospital cannot reach the PACS, or the PACS refused the association."""

    code = "pacs-unreachable"
    what_to_do = "the hospital has to see to its PACS: mdmfs doctor hospital.toml; staged files go on opening"


class RecallTimedOutError(MdmfsError):
    """The PACS did not deliver within the deadline."""

    code = "recall-timed-out"
    what_to_do = "try again: the recall goes on"


class RecallFailedError(MdmfsError):
    """The PACS answered a recall with a failure, or with something that is not the instance asked for."""

    code = "recall-failed"
    what_to_do = "the hospital looks into its log and its PACS; mdmfs doctor hospital.toml tries it"


class InstanceRefusedError(MdmfsError):
    """An instance was refused by the de-identification, the residue search or the digests and is quarantined."""

    code = "instance-refused"
    what_to_do = "the hospital asks mdmfs quarantine list why"


class InstanceChangedError(MdmfsError):
    """The PACS holds something else under this UID than what was registered."""

    code = "instance-changed"
    what_to_do = "list the directory again; the hospital's mdmfs reconcile tells what has changed in the PACS"


class InstanceLostError(MdmfsError):
    """The PACS no longer holds the instance."""

    code = "instance-lost"
    what_to_do = "the hospital looks for it in its PACS: mdmfs reconcile tells what is gone"


class IntegrityError(MdmfsError):
    """Ciphertext, or what came out of it, is not what was sealed."""

    code = "integrity"
    what_to_do = "fetch it anew; if that does not help, tell the hospital which file it is"


class WrongKeyError(IntegrityError):
    """A file key does not match the commitment of a sealed object: a share was wrong, or the object is another's."""

    code = "wrong-key"
    what_to_do = "tell the hospital which file it is: mdmfs keys verify --guid GUID finds the fault"


class TooFewSharesError(MdmfsError):
    """Fewer keystores than the threshold gave a usable share."""

    code = "too-few-shares"
    what_to_do = "see which keystores answer: mdmfs why PATH"


class OutOfSpaceError(MdmfsError):
    """A cache or store is full and nothing can be evicted."""

    code = "out-of-space"
    what_to_do = "make room there, or allow it more in the configuration"


class BusyError(MdmfsError):
    """A limit is reached; the same request may succeed later."""

    code = "busy"
    what_to_do = "try again later"


class InterruptedCallError(MdmfsError):
    """The caller received a fatal signal while it waited."""

    code = "interrupted"
    what_to_do = "start it again: what daemons were told to do goes on"


class UnknownNameError(MdmfsError):
    """A project, subject, handle or task that somebody named is not known to this hospital."""

    code = "unknown-name"
    what_to_do = "see that it is written as it was given, and that it is this hospital's"


class UnusableFileError(MdmfsError):
    """A file or directory that somebody named cannot be read, written or made."""

    code = "unusable-file"
    what_to_do = "see to that path: that it is there, that you may use it, and that it is of the right kind"


class StoreError(MdmfsError):
    """A store of the hospital or keystore is damaged, full, or of a newer format than this program."""

    code = "store"
    what_to_do = "restore it from its backup: mdmfs restore; use a program of the version that wrote it, or a newer one"


def _all_errors(root: type[MdmfsError]) -> list[type[MdmfsError]]:
    return [root, *(error for child in root.__subclasses__() for error in _all_errors(child))]


ERRORS_BY_CODE: Final = {error.code: error for error in _all_errors(MdmfsError)}
"""How an error that crossed the wire finds its class again; an unknown code becomes ``MdmfsError``."""


def again(error: MdmfsError) -> MdmfsError:
    """Give the same error once more, for another who waits for the same thing: one exception is raised in one task."""
    once_more = ERRORS_BY_CODE[error.code](str(error), what_to_do=error.what_to_do)
    once_more.place = error.place
    return once_more


def unusable(path: object, error: OSError) -> NameTakenError | OutOfSpaceError | UnusableFileError:
    """Name what the system says about a path."""
    if isinstance(error, FileExistsError):
        return NameTakenError(f"{path} is there already")
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return OutOfSpaceError(f"there is no room left for {path}")
    return UnusableFileError(f"{path} cannot be used: {error.strerror}")


@contextlib.contextmanager
def using(path: object) -> Iterator[None]:
    """Tell what the system says in the block with the path that it is about, as ``unusable`` does."""
    try:
        yield
    except OSError as error:
        raise unusable(path, error) from error
