"""The one place where errors become errnos; nothing but ``FUSEError`` and cancellation passes it."""

from __future__ import annotations

import contextlib
import errno
import secrets
from collections.abc import Iterator, Mapping
from typing import Final

import pyfuse3
import structlog

from mdmfs.model import errors

log = structlog.get_logger(__name__)

ERRNOS: Final[Mapping[type[errors.MdmfsError], int]] = {
    errors.MdmfsError: errno.EIO,
    errors.MalformedNameError: errno.ENOENT,
    errors.MalformedQueryError: errno.EINVAL,
    errors.MalformedMessageError: errno.EIO,
    errors.ConfigurationError: errno.EIO,
    errors.NoSuchFileError: errno.ENOENT,
    errors.NotADirectoryFileError: errno.ENOTDIR,
    errors.IsADirectoryFileError: errno.EISDIR,
    errors.NoSuchAttributeError: errno.ENODATA,
    errors.ReadOnlyError: errno.EROFS,
    errors.AccessDeniedError: errno.EACCES,
    errors.CredentialRefusedError: errno.EACCES,
    errors.CredentialExpiredError: errno.EKEYEXPIRED,
    errors.PeerUnreachableError: errno.EHOSTUNREACH,
    errors.PeerTimedOutError: errno.ETIMEDOUT,
    errors.PacsUnreachableError: errno.EHOSTUNREACH,
    errors.RecallTimedOutError: errno.ETIMEDOUT,
    errors.RecallFailedError: errno.EIO,
    errors.InstanceRefusedError: errno.EIO,
    errors.InstanceChangedError: errno.EIO,
    # Not ENOENT: the name is there, and somebody's `rsync --delete` would believe it.
    errors.InstanceLostError: errno.ENODATA,
    errors.IntegrityError: errno.EIO,
    errors.WrongKeyError: errno.EIO,
    errors.TooFewSharesError: errno.EHOSTUNREACH,
    errors.OutOfSpaceError: errno.ENOSPC,
    # Not EAGAIN: tar and grep open with O_NONBLOCK and take it for an end.
    errors.BusyError: errno.EBUSY,
    errors.InterruptedCallError: errno.EINTR,
    errors.StoreError: errno.EIO,
}
"""What a program sees of each error. The table is complete: a new error does not pass the tests without its line."""

_EXPECTED: Final = (
    errors.NoSuchFileError,
    errors.NoSuchAttributeError,
    errors.ReadOnlyError,
    errors.MalformedNameError,
    errors.MalformedQueryError,
    errors.NotADirectoryFileError,
    errors.IsADirectoryFileError,
    errors.InterruptedCallError,
)
"""What programs do all day; not worth a line in the log."""


def errno_of(error: errors.MdmfsError) -> int:
    """Find the errno of an error by its class, or the nearest class above it in the table."""
    return next(ERRNOS[kind] for kind in type(error).__mro__ if kind in ERRNOS)


@contextlib.contextmanager
def replying_errno(operation: str) -> Iterator[None]:
    """Let only ``FUSEError`` and cancellation reach pyfuse3: anything else would unmount us."""
    try:
        yield
    except pyfuse3.FUSEError:
        raise
    except errors.MdmfsError as error:
        number = errno_of(error)
        if not isinstance(error, _EXPECTED):
            log.warning(
                "failed", operation=operation, errno=errno.errorcode[number], code=error.code, reason=str(error)
            )
        raise pyfuse3.FUSEError(number) from error
    except Exception as error:
        incident = secrets.token_hex(4)
        log.exception("failed unexpectedly", operation=operation, incident=incident)
        raise pyfuse3.FUSEError(errno.EIO) from error
