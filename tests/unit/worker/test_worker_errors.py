"""The error boundary: whatever happens in a handler, pyfuse3 sees a ``FUSEError`` and the mount lives."""

from __future__ import annotations

import errno
import inspect
import os
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pyfuse3
import pytest
import structlog.testing
from prometheus_client import REGISTRY

from mdmfs.model import errors
from mdmfs.wire.messages.files import Node, NodeKind
from mdmfs.worker.cache.ciphertext import Ciphertext
from mdmfs.worker.callers.seat import OwnerOnly
from mdmfs.worker.filesystem import FileSystem
from mdmfs.worker.fuse.errnos import ERRNOS, errno_of, replying_errno
from mdmfs.worker.fuse.operations import MdmfsOperations
from mdmfs.worker.fuse.patience import SignalWatch
from mdmfs.worker.fuse.telling import MOST, PERIOD_SECONDS, Telling
from mdmfs.worker.lease import Lease
from mdmfs.worker.reading.open_file import OpenFile

ALL_ERRORS = [kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, errors.MdmfsError)]
WRITES = {"mknod", "create", "write", "setxattr", "removexattr"}
READS = {
    "lookup", "getattr", "access", "forget", "opendir", "readdir", "releasedir", "open", "read", "release", "getxattr",
    "listxattr", "statfs", "setattr", "mkdir", "unlink", "rmdir", "symlink", "rename",
}  # fmt: skip


class Caller:
    """The owner of the mount, as pyfuse3 describes him."""

    uid = os.getuid()
    gid = os.getgid()
    pid = os.getpid()
    umask = 0


class BrokenFileSystem:
    """A file system in which every call raises the same."""

    def __init__(self, failure: BaseException) -> None:
        self._failure = failure

    def __getattr__(self, name: str) -> Callable[..., object]:
        def fail(*_: object, **__: object) -> object:
            raise self._failure

        return fail


def operations(failure: BaseException) -> MdmfsOperations:
    """Give operations over a broken file system."""
    return MdmfsOperations(
        OwnerOnly(cast("FileSystem", BrokenFileSystem(failure)), os.getuid(), os.getgid()), SignalWatch()
    )


def call(over: MdmfsOperations, name: str) -> Awaitable[object]:
    """Call an operation with arguments of the right number."""
    handler: Any = getattr(over, name)
    given: dict[str, object] = {"ctx": Caller(), "name": b"user.guid", "inode_list": [(5, 1)], "flags": os.O_RDONLY}
    given |= dict.fromkeys(("name_old", "name_new", "target"), b"x")
    parameters = inspect.signature(handler).parameters
    return cast("Awaitable[object]", handler(**{word: given.get(word, 5) for word in parameters}))


def test_every_error_has_its_errno() -> None:
    """A new error class does not pass without a line in the table, and none stands there that is not one."""
    assert set(ERRNOS) == set(ALL_ERRORS)
    assert len(ALL_ERRORS) > 20
    assert all(number in errno.errorcode for number in ERRNOS.values())


def test_a_program_that_fails_all_day_does_not_fill_the_log() -> None:
    """A hundred lines of a kind in a minute; the next one says how many there were besides. Others have their own."""
    now = [0.0]
    telling = Telling(lambda: now[0])
    assert [telling.untold("busy") for _ in range(MOST + 5)] == [0] * MOST + [None] * 5
    assert telling.untold("access-denied") == 0
    now[0] = PERIOD_SECONDS
    assert [telling.untold("busy"), telling.untold("busy"), telling.untold("access-denied")] == [5, 0, 0]
    now[0] += PERIOD_SECONDS
    assert telling.untold("busy") == 0


class RepeatedError(errors.QuotaError):
    """One that no other test has told of."""

    code = "repeated"


def test_what_fails_all_day_is_counted_all_the_same() -> None:
    """The metrics miss nothing."""
    labels = {"operation": "statfs", "errno": "EDQUOT"}

    def counted() -> float:
        return REGISTRY.get_sample_value("mdmfs_failed_calls_total", labels) or 0.0

    before = counted()
    with structlog.testing.capture_logs() as lines:
        for _ in range(MOST + 5):
            with pytest.raises(pyfuse3.FUSEError), replying_errno("statfs"):
                raise RepeatedError
    assert len(lines) == MOST
    assert counted() == before + MOST + 5


def test_only_what_is_not_there_is_enoent() -> None:
    """An outage that looks like ENOENT would be believed by ``rsync --delete``."""
    absent = {kind for kind, number in ERRNOS.items() if number == errno.ENOENT}
    assert absent == {errors.NoSuchFileError, errors.MalformedNameError}


async def test_what_went_wrong_tells_all_who_wait_what_to_do_and_where() -> None:
    """Each gets an exception of his own, with all that the first one knew."""
    error = errors.OutOfSpaceError("it is full", what_to_do="ask for a larger one")
    error.place = "/var/cache/x"
    lease, file = Lease(), OpenFile(Node("x", 2, NodeKind.FILE, 1, 0.0, bytes(16)))
    ciphertext = Ciphertext(file.guid, "x", -1, length=1, arrived=0)
    lease.refuse(error)
    file.fail(error)
    ciphertext.fail(error)
    for wait in (lease.wait, file.wait_until_taken, lambda: ciphertext.wait_for(1)):
        with pytest.raises(errors.OutOfSpaceError) as told:
            await wait()
        assert told.value is not error
        assert (told.value.told_here, told.value.what_to_do) == (error.told_here, error.what_to_do)


def test_no_errno_is_taken_for_an_end_of_file() -> None:
    """EAGAIN breaks tar, 0 is no error."""
    assert not {0, errno.EAGAIN} & set(ERRNOS.values())


def test_an_error_of_a_class_that_the_table_does_not_know_is_that_of_the_class_above() -> None:
    """A subclass made elsewhere is still an answer."""

    class StrangeDeniedError(errors.AccessDeniedError):
        code = "access-denied"

    assert errno_of(StrangeDeniedError("no")) == errno.EACCES


@pytest.mark.parametrize("name", sorted(READS))
@pytest.mark.parametrize("kind", ALL_ERRORS)
async def test_each_operation_replies_each_error_as_its_errno(name: str, kind: type[errors.MdmfsError]) -> None:
    """All operations times all errors."""
    with structlog.testing.capture_logs():
        if name == "lookup" and kind is errors.NoSuchFileError:
            entry = await call(operations(kind("gone")), name)
            assert cast("pyfuse3.EntryAttributes", entry).st_ino == 0
            return
        with pytest.raises(pyfuse3.FUSEError) as reply:
            await call(operations(kind("it happened")), name)
    assert reply.value.errno == ERRNOS[kind]


@pytest.mark.parametrize("name", sorted(READS))
@pytest.mark.parametrize("failure", [ZeroDivisionError("x"), KeyError(7), OSError(errno.ENOENT, "x"), RecursionError()])
async def test_what_nobody_foresaw_is_eio_with_an_incident(name: str, failure: Exception) -> None:
    """Not even an ``OSError`` of ours that says ENOENT reaches the caller as that."""
    with structlog.testing.capture_logs() as logs, pytest.raises(pyfuse3.FUSEError) as reply:
        await call(operations(failure), name)
    assert reply.value.errno == errno.EIO
    assert len(logs[0]["incident"]) == 8


@pytest.mark.parametrize("name", sorted(WRITES))
async def test_each_write_is_erofs(name: str) -> None:
    """Whoever asks."""
    with pytest.raises(pyfuse3.FUSEError) as reply:
        await call(operations(ZeroDivisionError()), name)
    assert reply.value.errno == errno.EROFS


async def test_a_hard_link_is_eperm() -> None:
    """An alias is the second name that an image can have."""
    with pytest.raises(pyfuse3.FUSEError) as reply:
        await call(operations(ZeroDivisionError()), "link")
    assert reply.value.errno == errno.EPERM


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_TRUNC, os.O_RDWR | os.O_APPEND])
async def test_an_open_for_writing_is_erofs(flags: int) -> None:
    """Also where only O_TRUNC gives it away."""
    with pytest.raises(pyfuse3.FUSEError) as reply:
        await operations(ZeroDivisionError()).open(pyfuse3.InodeT(5), pyfuse3.FlagT(flags), cast("Any", Caller()))
    assert reply.value.errno == errno.EROFS


@pytest.mark.parametrize(
    "name", sorted(READS - {"getattr", "forget", "readdir", "releasedir", "read", "release", "statfs"})
)
async def test_another_user_is_refused(name: str) -> None:
    """The mount speaks with its owner's credential, so it serves nobody else."""

    class Stranger(Caller):
        uid = os.getuid() + 1

    handler: Any = getattr(operations(ZeroDivisionError()), name)
    given: dict[str, object] = {"ctx": Stranger(), "name": b"user.guid", "flags": 0}
    with structlog.testing.capture_logs(), pytest.raises(pyfuse3.FUSEError) as reply:
        await handler(**{word: given.get(word, 5) for word in inspect.signature(handler).parameters})
    assert reply.value.errno == errno.EACCES


def test_every_operation_of_pyfuse3_is_answered_on_purpose() -> None:
    """What is left to pyfuse3's ENOSYS is listed here: the kernel then asks no more."""
    ours = {name for name in vars(MdmfsOperations) if not name.startswith("_")}
    theirs = {name for name, one in vars(pyfuse3.Operations).items() if inspect.iscoroutinefunction(one)}
    assert theirs - ours == {"flush", "fsync", "fsyncdir", "ioctl", "poll"} & theirs
    assert ours >= READS | WRITES


def test_a_cancellation_is_not_an_error() -> None:
    """It passes the boundary: trio needs it."""

    class Cancelled(BaseException):
        pass

    with pytest.raises(Cancelled), replying_errno("open"):
        raise Cancelled
