"""The one place where errors become errnos; nothing but ``FUSEError`` and cancellation passes it."""

from __future__ import annotations

import errno
import secrets
from collections.abc import Mapping
from types import TracebackType
from typing import Final

import pyfuse3
import structlog
from prometheus_client import Counter

from mdmfs.model import errors
from mdmfs.worker.fuse.telling import Telling

log = structlog.get_logger(__name__)

ERRNOS: Final[Mapping[type[errors.MdmfsError], int]] = {
    errors.MdmfsError: errno.EIO,
    errors.MalformedNameError: errno.ENOENT,
    errors.MalformedQueryError: errno.EINVAL,
    errors.MalformedMessageError: errno.EIO,
    errors.ConfigurationError: errno.EIO,
    errors.NoSuchFileError: errno.ENOENT,
    # The kernel looks the name up again, and comes back with the number of whoever asks.
    errors.StaleNumberError: errno.ESTALE,
    errors.NotADirectoryFileError: errno.ENOTDIR,
    errors.IsADirectoryFileError: errno.EISDIR,
    errors.NoSuchAttributeError: errno.ENODATA,
    errors.ReadOnlyError: errno.EROFS,
    errors.NameTakenError: errno.EEXIST,
    errors.NotEmptyError: errno.ENOTEMPTY,
    errors.RefusedNameError: errno.EINVAL,
    errors.OtherHospitalError: errno.EXDEV,
    errors.QuotaError: errno.EDQUOT,
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
    errors.UnknownNameError: errno.EINVAL,
    errors.UnusableFileError: errno.EIO,
    errors.StoreError: errno.EIO,
}
"""What a program sees of each error. The table is complete: a new error does not pass the tests without its line."""

FAILURES: Final = Counter("mdmfs_failed_calls", "Calls of programs that got an error.", ["operation", "errno"])
_EXPECTED: Final = (
    errors.NoSuchFileError,
    errors.NoSuchAttributeError,
    errors.ReadOnlyError,
    errors.NameTakenError,
    errors.NotEmptyError,
    errors.RefusedNameError,
    errors.OtherHospitalError,
    errors.MalformedNameError,
    errors.MalformedQueryError,
    errors.NotADirectoryFileError,
    errors.IsADirectoryFileError,
    errors.StaleNumberError,
    errors.InterruptedCallError,
)
"""What programs do all day; not worth a line in the log."""
_telling: Final = Telling()


def errno_of(error: errors.MdmfsError) -> int:
    """Find the errno of an error by its class, or the nearest class above it in the table."""
    return next(ERRNOS[kind] for kind in type(error).__mro__ if kind in ERRNOS)


class replying_errno:  # noqa: N801 it reads like a function
    """Let only ``FUSEError`` and cancellation reach pyfuse3 out of this block: anything else would unmount us.

    A class, since a generator takes thrice as long, and this is around every request.
    """

    __slots__ = ("_operation",)

    def __init__(self, operation: str) -> None:
        self._operation = operation

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, pyfuse3.FUSEError) or not isinstance(error, Exception):
            return
        if isinstance(error, errors.MdmfsError):
            number = errno_of(error)
            FAILURES.labels(self._operation, errno.errorcode[number]).inc()
            untold = None if isinstance(error, _EXPECTED) else _telling.untold(error.code)
            if untold is not None:
                log.warning(
                    "failed",
                    operation=self._operation,
                    errno=errno.errorcode[number],
                    code=error.code,
                    reason=error.told_here,
                    **({"untold": untold} if untold else {}),
                )
            raise pyfuse3.FUSEError(number) from error
        incident = secrets.token_hex(4)
        FAILURES.labels(self._operation, "EIO").inc()
        log.error("failed unexpectedly", operation=self._operation, incident=incident, exc_info=error)
        raise pyfuse3.FUSEError(errno.EIO) from error
