"""Find the proxy of whoever made a request: his process tells which file, and the open file tells whether it is his.

A request names a thread (``/proc/TID`` is there for threads too) and the uid it acts as. The folder ``/proc/TID`` is
opened first and everything else is read through it: a number that is given to another process meanwhile leads nowhere
(a pidfd does the same, but not for threads before Linux 6.9). The environment is what the program was started with and
says whatever its user likes; it only names a file. That is looked up below the process's own root, and what counts is
the file that was opened: a plain one, of this uid, readable by nobody else. Nobody is exempt, root neither.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, NoReturn

from mdmfs.model.errors import ConfigurationError, CredentialRefusedError

VARIABLE: Final = b"X509_USER_PROXY"
MAX_ENVIRONMENT: Final = 8 * 2**20
"""Linux gives a program 6 MiB for arguments and environment together."""
MAX_PROXY: Final = 2**18
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_OPENAT2: Final = 437
"""The same number on every architecture (Linux 5.6)."""
_NO_MAGIC_LINKS: Final = 0x02
_IN_ROOT: Final = 0x10
"""openat2(2): ``/`` and links stay below the folder, and links of /proc lead nowhere."""
_KERNEL_THREAD: Final = 0x00200000
"""PF_KTHREAD in the flags of /proc/PID/stat (proc(5))."""
_FLAGS: Final = 6

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


@dataclasses.dataclass(frozen=True, slots=True)
class ProxyFile:
    """One state of one file: another one is looked at anew."""

    uid: int
    path: str
    """As the process calls it."""
    device: int
    inode: int
    modified: int
    changed: int
    """Both in ns; nobody can set the second one."""
    size: int


class UnfinishedProxyError(CredentialRefusedError):
    """A file that may just be being written, as where a proxy is renewed in its place."""

    def __init__(self, message: str, file: ProxyFile | None = None) -> None:
        """``file`` is the state in which it was no proxy; None where it changed meanwhile."""
        super().__init__(message)
        self.file = file


class Found(NamedTuple):
    """A caller's proxy."""

    file: ProxyFile
    octets: bytes | None
    """What is in it; None where its state is known already."""


def find_proxy(uid: int, tid: int, is_known: Callable[[ProxyFile], bool]) -> Found:
    """Find the proxy that a thread's process would use; for a worker thread, since a foreign root may be slow.

    ``uid`` is whom the kernel says the request is made as. Raises ``CredentialRefusedError``, which says why, and
    ``UnfinishedProxyError`` where a moment later there may be one.
    """
    if tid == 0:
        _refuse("the caller is in another PID namespace, so nobody knows who it is: mount inside the container")
    with _task(tid) as task:
        if _acts_as(task) != uid:
            _refuse(f"the process that asked as uid {uid} is gone")
        path = _named(task, uid)
        with _opened_below_root(task, path) as there:
            status = os.fstat(there)
            _refuse_foreign(status, uid, path)
            file = _state(status, uid, path)
            if not file.size:
                message = f"{path!r} is empty: make a proxy"
                raise UnfinishedProxyError(message, file)
            if is_known(file):
                return Found(file, None)
            return Found(file, _read_unchanged(there, file))


def refuse_old_kernel() -> None:
    """Raise ``ConfigurationError`` where files cannot be looked up as they must be."""
    try:
        os.close(_openat2(-100, b"/", os.O_PATH | os.O_CLOEXEC))
    except OSError as error:
        message = f"a mount for many users needs openat2(2), Linux 5.6 or newer: {error.strerror}"
        raise ConfigurationError(message) from error


@contextlib.contextmanager
def _task(tid: int) -> Iterator[int]:
    try:
        task = os.open(f"/proc/{tid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        _refuse(f"the caller's process cannot be looked at: {error.strerror}", error)
    try:
        yield task
    finally:
        os.close(task)


def _acts_as(task: int) -> int:
    """Read as whom a thread reaches for files (proc(5), the fourth of ``Uid``)."""
    for line in _read(task, "status", 2**16).splitlines():
        if line.startswith(b"Uid:"):
            return int(line.split()[4])
    return -1


def _named(task: int, uid: int) -> str:
    """Find the path that grid programs would use in this process: the first variable of the name counts (getenv(3))."""
    environment = _read(task, "environ", MAX_ENVIRONMENT)
    if not environment and _is_of_the_kernel(task):
        _refuse("a thread of the kernel has no user, and is served nothing: this mount cannot be exported")
    for variable in environment.split(b"\0"):
        name, equals, value = variable.partition(b"=")
        if name == VARIABLE and equals and value:
            path = os.fsdecode(value)
            if not path.startswith("/"):
                _refuse(f"X509_USER_PROXY is no absolute path: {path!r}")
            return path
    return f"/tmp/x509up_u{uid}"  # noqa: S108 where grid programs keep it


def _is_of_the_kernel(task: int) -> bool:
    _, _, behind_name = _read(task, "stat", 2**12).rpartition(b")")
    return bool(int(behind_name.split()[_FLAGS]) & _KERNEL_THREAD)


@contextlib.contextmanager
def _opened_below_root(task: int, path: str) -> Iterator[int]:
    """Open a file as a process would find it, without touching what stands there: it may be a pipe or a device."""
    try:
        root = os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=task)
        try:
            there = _openat2(root, os.fsencode(path), os.O_PATH | os.O_CLOEXEC)
        finally:
            os.close(root)
    except OSError as error:
        _refuse(f"there is no usable proxy at {path!r} ({error.strerror}): make one, or set X509_USER_PROXY", error)
    try:
        yield there
    finally:
        os.close(there)


def _openat2(folder: int, path: bytes, flags: int) -> int:
    how = _OpenHow(flags, 0, _IN_ROOT | _NO_MAGIC_LINKS)
    opened: int = _libc.syscall(_OPENAT2, folder, path, ctypes.byref(how), ctypes.sizeof(how))
    if opened < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return opened


def _refuse_foreign(status: os.stat_result, uid: int, path: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        _refuse(f"{path!r} is no plain file")
    if status.st_uid != uid:
        _refuse(f"{path!r} is not a file of uid {uid}, who asks")
    if status.st_mode & _OTHERS:
        _refuse(f"{path!r} can be read by others: chmod 600 it")
    if status.st_size > MAX_PROXY:
        _refuse(f"{path!r} is too large for a proxy")


def _state(status: os.stat_result, uid: int, path: str) -> ProxyFile:
    return ProxyFile(uid, path, status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)


def _read_unchanged(there: int, file: ProxyFile) -> bytes:
    """Read the very file that was looked at; what is written meanwhile is not a whole proxy."""
    try:
        opened = os.open(f"/proc/self/fd/{there}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        _refuse(f"the proxy {file.path!r} cannot be read: {error.strerror}", error)
    with os.fdopen(opened, "rb") as proxy:
        octets = proxy.read(MAX_PROXY + 1)
        status = os.fstat(opened)
    if _state(status, file.uid, file.path) != file or len(octets) != file.size:
        message = f"the proxy {file.path!r} is being written: try again"
        raise UnfinishedProxyError(message)
    return octets


def _read(task: int, name: str, limit: int) -> bytes:
    """Read a file of a process; raises ``CredentialRefusedError`` where it has gone, or may not be looked at."""
    try:
        with os.fdopen(os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=task), "rb", buffering=0) as told:
            octets = b""
            while len(octets) < limit and (more := told.read(limit - len(octets))):
                octets += more
            return octets
    except OSError as error:
        gone = error.errno in {errno.ESRCH, errno.ENOENT}
        reason = "it is gone" if gone else str(error.strerror)
        _refuse(f"the caller's process cannot be looked at: {reason}", error)


def _refuse(message: str, error: Exception | None = None) -> NoReturn:
    raise CredentialRefusedError(message) from error
