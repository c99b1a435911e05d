"""Every store that carries the number of its format: opened with steps of ours, what these leave, and its mark."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import lmdb
import sqlalchemy as sa
import trio

from mdmfs.daemon.formats import MARK, Format
from mdmfs.hospital import tables
from mdmfs.hospital.kept.audit import Audit, records_of
from mdmfs.hospital.kept.headers import Headers
from mdmfs.hospital.kept.staging import Staging
from mdmfs.hospital.lmdb_store import LmdbStore
from mdmfs.hospital.signing import SigningKey
from mdmfs.keystore.row_shelf import shelf_layout
from mdmfs.metadata.store.database import open_database
from mdmfs.metadata.store.tables import ABOUT
from mdmfs.rows.embedded import Embedded
from mdmfs.rows.port import Rows
from mdmfs.worker.cache.store import CiphertextCache

TRACE: Final = "trace"


class Kept(NamedTuple):
    """One kind of store, always in ``store`` below a folder."""

    open: Callable[[pathlib.Path, Format[Any]], None]
    """Open what is there, or make it, and close it."""
    leave: Callable[[Any], None]
    """A step that leaves a trace; taking it twice leaves two, or fails, where steps are transactions."""
    traces: Callable[[pathlib.Path], int]
    """Count them."""
    mark: Callable[[pathlib.Path], int]
    write_mark: Callable[[pathlib.Path, int], None]
    oldest: int = 1


def _open_hospital(path: pathlib.Path, of: Format[Rows]) -> None:
    async def once() -> None:
        await LmdbStore.open(path, map_size=2**24, store_format=of).aclose()

    trio.run(once)


def _open_shelf(path: pathlib.Path, of: Format[Rows]) -> None:
    Embedded.open(path, shelf_layout(of), map_size=2**24).close()


def _leave_row(rows: Rows) -> None:
    key = b"!" + TRACE.encode()
    rows.put(key, (rows.get(key) or b"") + b"x")


@contextlib.contextmanager
def _lmdb(path: pathlib.Path) -> Iterator[tuple[Any, Any]]:
    with lmdb.open(str(path), max_dbs=64, map_size=2**24) as env, env.begin(write=True) as txn:
        yield env, txn


def _in_lmdb(about: bytes, key: bytes) -> tuple[Any, Any, Any]:
    def count(path: pathlib.Path) -> int:
        with _lmdb(path) as (env, txn):
            return len(txn.get(TRACE.encode(), b"", db=env.open_db(about, txn=txn)))

    def read(path: pathlib.Path) -> int:
        with _lmdb(path) as (env, txn):
            return int(txn.get(key, db=env.open_db(about, txn=txn)))

    def write(path: pathlib.Path, number: int) -> None:
        with _lmdb(path) as (env, txn):
            txn.put(key, b"%d" % number, db=env.open_db(about, txn=txn))

    return count, read, write


def _sqlite(path: pathlib.Path, statement: str, *values: object) -> Any:  # noqa: ANN401 whatever the statement gives
    with contextlib.closing(sqlite3.connect(path / "metadata.sqlite")) as database, database:
        return database.execute(statement, values).fetchone()


def _open_database(path: pathlib.Path, of: Format[sa.Connection]) -> None:
    path.mkdir(mode=0o700, exist_ok=True)
    open_database(str(path / "metadata.sqlite"), of).close()


def _leave_in_database(connection: sa.Connection) -> None:
    has_any = connection.execute(sa.select(ABOUT.c.key).where(ABOUT.c.key.like(f"{TRACE}%"))).all()
    connection.execute(ABOUT.insert().values(key=f"{TRACE}{len(has_any)}", value=b"x"))


def _open_cache(path: pathlib.Path, of: Format[pathlib.Path]) -> None:
    trio.run(CiphertextCache(path, 2**20, None, of).load)


def _open_headers(path: pathlib.Path, of: Format[pathlib.Path]) -> None:
    Headers(path, 2**20, of).close()


def _leave_file(folder: pathlib.Path) -> None:
    """Leave one for each mark: a step of a folder may be taken again."""
    mark = (folder / MARK).read_text().strip() if (folder / MARK).exists() else "none"
    (folder.parent / f"{TRACE}-{mark}").touch()


def _count_files(path: pathlib.Path) -> int:
    return len(list(path.parent.glob(f"{TRACE}-*")))


def _open_audit(path: pathlib.Path, of: Format[None]) -> None:
    path.mkdir(exist_ok=True)
    Audit(path / "audit.jsonl", SigningKey(path / "signing.key"), audit_format=of).close()


def _mark_of_audit(path: pathlib.Path) -> int:
    return [record.format for record in records_of(path / "audit.jsonl") if record.format][-1]


def _write_mark_of_audit(path: pathlib.Path, number: int) -> None:
    file = path / "audit.jsonl"
    file.write_bytes(re.sub(rb'"format":[0-9]+', b'"format":%d' % number, file.read_bytes()))


def _of_folder(opening: Callable[[pathlib.Path, Format[Any]], None]) -> Kept:
    return Kept(
        opening,
        _leave_file,
        _count_files,
        lambda path: int((path / MARK).read_text()),
        lambda path, number: (path / MARK).write_text(f"{number}\n") and None,
    )


KEPT: Final[Mapping[str, Kept]] = {
    "hospital": Kept(_open_hospital, _leave_row, *_in_lmdb(tables.FORMAT, b"store")),
    "shelf": Kept(_open_shelf, _leave_row, *_in_lmdb(b"about", b"format")),
    "metadata": Kept(
        _open_database,
        _leave_in_database,
        lambda path: _sqlite(path, "select count(*) from about where key like 'trace%'")[0],
        lambda path: int(_sqlite(path, "select value from about where key = 'format'")[0]),
        lambda path, number: _sqlite(path, "update about set value = ? where key = 'format'", b"%d" % number),
    ),
    "cache": _of_folder(_open_cache),
    "staging": _of_folder(lambda path, of: Staging(path, 2**20, staging_format=of) and None),
    "headers": _of_folder(_open_headers),
    "audit": Kept(_open_audit, lambda _: None, lambda _: 0, _mark_of_audit, _write_mark_of_audit, oldest=2),
}


def open_and_die(name: str, path: pathlib.Path) -> None:
    """Take one step, and be killed at the end of the next, before it is on disk."""
    kept = KEPT[name]

    def die(store: Any) -> None:  # noqa: ANN401 of any store
        kept.leave(store)
        os.kill(os.getpid(), signal.SIGKILL)

    kept.open(path, Format("store", kept.leave, die, oldest=kept.oldest))


def kill_all(folder: pathlib.Path, names: Iterable[str]) -> None:
    """Open and die with each, in a process of its own; it is no fault if the parent ends otherwise."""
    for name in names:
        child = os.fork()
        if not child:
            open_and_die(name, folder / name / "store")
        if os.WTERMSIG(os.waitpid(child, 0)[1]) != signal.SIGKILL:
            sys.exit(f"{name} lives")


if __name__ == "__main__":
    kill_all(pathlib.Path(sys.argv[1]), sys.argv[2:])
