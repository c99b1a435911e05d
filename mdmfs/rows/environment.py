"""LMDB environments in directories: opened, locked, copied and packed, and what LMDB says, by our names."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import lmdb

from mdmfs.journal.durable import make_directory
from mdmfs.model.errors import ConfigurationError, OutOfSpaceError, StoreError, using
from mdmfs.rows.port import Layout

MAP_SIZE: Final = 2**38
"""256 GiB of address space, not of disk: some 500 million files. Resizing a live map is where LMDB can go wrong."""
MAX_TABLES: Final = 64
STORE_FILE: Final = "data.mdb"
LOCK_FILE: Final = "lock.mdb"
_READERS_BYTES: Final = 2**13
"""Of 126 readers, as LMDB has them by default, with its head."""
_PACKED_AT_ONCE: Final = 100_000
"""Rows of one transaction, whose changed pages are in memory: some 30 MiB."""
_TO_DO: Final = "see to its disk, or restore it from its backup: mdmfs restore"


def open_environment(
    path: Path, map_size: int = MAP_SIZE, *, is_read_only: bool = False, is_copy: bool = False
) -> lmdb.Environment:
    """Open LMDB in a directory; raises ``lmdb.Error``, and as ``make_table_of_readers``.

    A copy's last commit may be undone by a power cut: it is made again.
    """
    if not is_read_only:
        make_table_of_readers(path)
    return lmdb.open(
        str(path),
        map_size=map_size,
        max_dbs=MAX_TABLES,
        mode=0o600,
        readonly=is_read_only,
        create=not is_read_only,
        metasync=not is_copy,
    )


def make_table_of_readers(path: Path) -> None:
    """Give LMDB's table its room on disk: a hole that cannot be filled would end the process by SIGBUS.

    Raises ``OutOfSpaceError`` and ``UnusableFileError``.
    """
    file = path / LOCK_FILE
    with using(file):
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, _READERS_BYTES)
        finally:
            os.close(descriptor)


def copied_of(path: Path, layout: Layout) -> bytes | None:
    """Tell up to where the store in a directory is a copy; empty where it is none, None where there is no store."""
    if not (path / STORE_FILE).exists():
        return None
    with opening(path, layout), open_environment(path, is_read_only=True) as env:
        return value_of(env, layout, layout.copied)


def set_copied(path: Path, layout: Layout, copied: bytes) -> None:
    """Make a store that nobody has open the copy of a database."""
    with opening(path, layout), open_environment(path) as env:
        table = env.open_db(layout.tables[layout.copied[0]])
        with env.begin(write=True, db=table) as txn:
            txn.put(layout.copied[1:], copied)


def forget_copied(path: Path, layout: Layout) -> None:
    """Make what was the copy of a database, and nobody has open, a store of its own."""
    with opening(path, layout), open_environment(path) as env:
        table = env.open_db(layout.tables[layout.copied[0]])
        with env.begin(write=True, db=table) as txn:
            txn.delete(layout.copied[1:])


@contextlib.contextmanager
def locked(path: Path, *, is_alone: bool) -> Iterator[bool]:
    """Hold a directory as one of many, or alone, until the end or the process's; tells whether that could be."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if is_alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


def pack(source: Path, target: Path, layout: Layout) -> None:
    """Write a store that nobody has open anew, each page full, into a directory that is not there yet.

    LMDB's own compact copy leaves free pages out, but not what is free within pages: a third of every table whose keys
    come in random order. Raises ``StoreError`` and ``OutOfSpaceError``; the target is of no use then.
    """
    target.mkdir(mode=0o700)
    with naming_errors(layout, source), contextlib.ExitStack() as stack:
        old = stack.enter_context(open_environment(source, is_read_only=True))
        make_table_of_readers(target)
        new = stack.enter_context(lmdb.open(str(target), map_size=MAP_SIZE, max_dbs=MAX_TABLES, mode=0o600, sync=False))
        with old.begin() as txn:
            for name in txn.cursor().iternext(keys=True, values=False):
                rows = iter(txn.cursor(old.open_db(name, txn=txn, create=False)))
                table = new.open_db(name)
                while batch := list(itertools.islice(rows, _PACKED_AT_ONCE)):
                    with new.begin(write=True) as writing:
                        writing.cursor(table).putmulti(batch, append=True)
        new.sync(True)  # noqa: FBT003 the name of LMDB's own argument is "force"


def value_of(env: lmdb.Environment, layout: Layout, key: bytes) -> bytes:
    """Read what a store says of itself before anything else is opened, or made; empty where it says nothing."""
    try:
        table = env.open_db(layout.tables[key[0]], create=False)
    except (lmdb.NotFoundError, lmdb.ReadonlyError):
        return b""
    with env.begin(db=table) as txn:
        return bytes(txn.get(key[1:]) or b"")


@contextlib.contextmanager
def opening(path: Path, layout: Layout) -> Iterator[None]:
    """Tell of LMDB's errors to who starts a program: where, and what to do."""
    try:
        yield
    except lmdb.Error as error:
        message = f"{path} cannot be opened: the {layout.what} failed ({type(error).__name__})"
        raise StoreError(message, what_to_do=_TO_DO) from error


@contextlib.contextmanager
def naming_errors(layout: Layout, path: Path | None = None) -> Iterator[None]:
    """Name what LMDB says, without the path, as it may travel to a peer; who works here is told where it was."""
    try:
        yield
    except lmdb.Error as error:
        named = named_error(error, layout)
        named.place = str(path or "")
        raise named from error
    except (StoreError, OutOfSpaceError) as error:
        error.place = error.place or str(path or "")
        raise


def named_error(error: lmdb.Error, layout: Layout) -> StoreError | OutOfSpaceError:
    """Give our name for what LMDB says."""
    if isinstance(error, lmdb.MapFullError | lmdb.DiskError):
        return OutOfSpaceError(told_full(layout))
    message = f"the {layout.what} failed ({type(error).__name__}); nothing of this write was kept"
    return StoreError(message, what_to_do=_TO_DO)


def told_full(layout: Layout) -> str:
    """Say that a disk or a map is full."""
    return f"the {layout.what} is full: nothing of this write was kept"


def make_private(path: Path, layout: Layout) -> None:
    """Make the directory where there is none; raises ``ConfigurationError`` where others may enter it."""
    try:
        make_directory(path)
        found = path.stat()
    except OSError as error:
        message = f"the directory {path} cannot be used for the {layout.what}: {error.strerror}"
        raise ConfigurationError(message) from error
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO) or found.st_uid != os.geteuid():
        message = f"the directory {path} holds {layout.holds}: it must belong to this user, mode 0700 (chmod 700)"
        raise ConfigurationError(message)
