"""Random sequences of operations have the same answers, refusals included, from the twin and from LMDB."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import trio

from mdmfs.hospital.catalogue.records import FileState
from mdmfs.hospital.ledger.records import SeriesState
from mdmfs.hospital.store import Store, Transaction
from mdmfs.model.errors import MdmfsError
from mdmfs.model.names import Lfn
from tests.twins.records import (
    NOBODY,
    OWNER_ONLY,
    guid_of,
    instance_of,
    new_file,
    quarantined,
    series_record,
    subject_of,
    subject_row,
)
from tests.twins.stores import lmdb_store, memory_store

Act = Callable[[Transaction], Any]
FEED_LENGTH = 5
DIRECTORIES = [Lfn(()), Lfn(("a",)), Lfn(("a", "b")), Lfn(("a", "c")), Lfn(("a", "b", "d"))]

numbers = st.integers(0, 7)
directories = st.sampled_from(DIRECTORIES)
files = st.builds(lambda directory, number: directory / f"{number}", directories, numbers)
guids = st.lists(numbers.map(guid_of), max_size=4)
destinations = st.sampled_from(["k", "k1"])


def act_of(name: str, *parts: st.SearchStrategy[Any], run: Callable[..., Act]) -> st.SearchStrategy[tuple[str, Act]]:
    """Name an operation, so that a failure can be read."""
    return st.tuples(*parts).map(lambda values: (f"{name}{values}", run(*values)))


OPERATIONS = st.one_of(
    act_of("mkdir", directories, run=lambda lfn: lambda tx: tx.catalogue.make_directories(lfn, acl=OWNER_ONLY)),
    act_of("mkdir-inherit", directories, run=lambda lfn: lambda tx: tx.catalogue.make_directories(lfn)),
    act_of("add", files, numbers, run=lambda lfn, n: lambda tx: tx.catalogue.add_file(lfn, new_file(n))),
    act_of(
        "take-over",
        files,
        numbers,
        numbers,
        run=lambda lfn, n, old: lambda tx: tx.catalogue.add_file(lfn, new_file(n), takes_over=guid_of(old)),
    ),
    act_of("show", guids, run=lambda chosen: lambda tx: tx.catalogue.show(chosen)),
    act_of("show-pending", run=lambda: show_pending),
    act_of("show-all", directories, run=lambda lfn: lambda tx: tx.catalogue.show_all(lfn)),
    act_of("quarantine", guids, run=lambda chosen: lambda tx: tx.catalogue.quarantine(chosen)),
    act_of("withdraw", guids, run=lambda chosen: lambda tx: tx.catalogue.withdraw(chosen)),
    act_of(
        "set-acl",
        directories,
        st.booleans(),
        run=lambda lfn, of_files: lambda tx: tx.acls.set(lfn, NOBODY, files=of_files),
    ),
    act_of("set-file-acl", numbers, run=lambda n: lambda tx: tx.acls.set_of_file(guid_of(n), NOBODY)),
    act_of(
        "tie", numbers, numbers, run=lambda n, i: lambda tx: tx.uidmap.tie(guid_of(n), instance_of(i, series=i % 2))
    ),
    act_of("untie", numbers, run=lambda n: lambda tx: tx.uidmap.untie(guid_of(n))),
    act_of(
        "admit",
        numbers,
        numbers,
        run=lambda n, p: lambda tx: tx.subjects.admit("neuro", "AMC", f"{p}", lambda: subject_row(n, f"{p}")),
    ),
    act_of("forget", numbers, run=lambda n: lambda tx: tx.subjects.delete(subject_of(n))),
    act_of(
        "series",
        numbers,
        st.sampled_from(SeriesState),
        run=lambda n, state: lambda tx: tx.series.put(series_record(n, state)),
    ),
    act_of(
        "push", destinations, numbers, run=lambda name, n: lambda tx: tx.outbox.push(name, "x", b"%d" % n, b"p" * n)
    ),
    act_of("drop", destinations, st.lists(st.integers(1, 9)), run=lambda d, n: lambda tx: tx.outbox.drop(d, n)),
    act_of("refuse", numbers, run=lambda n: lambda tx: tx.quarantine.put(quarantined(n, series=n % 2))),
)


def show_pending(tx: Transaction) -> int:
    """Show whatever is pending."""
    pending = [file.guid for file in tx.catalogue.files() if file.state is FileState.PENDING]
    return tx.catalogue.show(pending)


def everything(tx: Transaction) -> list[object]:
    """Give all that can be asked."""
    catalogue = tx.catalogue
    inodes = [inode for inode in range(1, 40) if catalogue.directory(inode)]
    return [
        [catalogue.look_up(lfn) for lfn in DIRECTORIES],
        [catalogue.directory(inode) for inode in inodes],
        [tx.acls.files_apart(lfn) for lfn in DIRECTORIES],
        [tx.acls.find(acl_id) for inode in inodes for acl_id in tx.acls.ids_above(inode)],
        [catalogue.list_page(inode) for inode in inodes if inode == 1 or catalogue.directory(inode).visible],
        catalogue.files(),
        [tx.acls.chains_of(file.guid) for file in catalogue.files()],
        catalogue.totals(),
        [tx.feed.since(since) for since in range(tx.feed.version() + 2)],
        [tx.uidmap.resolve(guid_of(n)) for n in range(8)],
        [tx.uidmap.guids_of("neuro", instance_of(n).instance_uid) for n in range(8)],
        [list(tx.uidmap.of_series(instance_of(0, series=n).series)) for n in range(2)],
        [tx.subjects.by_id(subject_of(n)) for n in range(8)],
        [tx.subjects.find("neuro", "AMC", f"{n}") for n in range(8)],
        [tx.series.all(state) for state in (None, *SeriesState)],
        [(name, tx.outbox.peek(name, limit=100)) for name in tx.outbox.destinations()],
        [tx.outbox.remaining(b"%d" % n, "k") for n in range(8)],
        tx.outbox.size(),
        tx.quarantine.all("neuro"),
    ]


def refuse_contradictions(tx: Transaction) -> None:
    """Check what must hold after any sequence: counters count, and only directories with visible files are seen."""
    visible = [file for file in tx.catalogue.files() if file.state is FileState.VISIBLE]
    assert tx.catalogue.totals() == (len(visible), sum(file.rendition.size for file in visible))
    listed: dict[int, bytes] = {}
    waiting = [1]
    while waiting:
        inode = waiting.pop()
        page = tx.catalogue.list_page(inode)
        directory = tx.catalogue.directory(inode)
        assert directory is not None
        assert directory.visible == len(page.nodes)
        assert page.nodes or inode == 1
        waiting += page.directory_acls
        listed |= {node.inode: node.guid for node in page.nodes if node.guid}
    assert listed == {file.inode: file.guid.octets for file in visible}


async def answer(store: Store, act: Act) -> object:
    """Give the answer, or the refusal's class and message."""
    try:
        return await store.write(act)
    except MdmfsError as error:
        return type(error), str(error)


async def compare(operations: list[tuple[str, Act]], path: Path) -> None:
    """Run the operations on both."""
    twin, real = memory_store(path, feed_length=FEED_LENGTH), lmdb_store(path, feed_length=FEED_LENGTH)
    for name, act in operations:
        assert await answer(twin, act) == await answer(real, act), name
    assert real.read(everything) == twin.read(everything)
    twin.read(refuse_contradictions)
    await twin.aclose()
    await real.aclose()


@hypothesis.settings(max_examples=60, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
@hypothesis.given(operations=st.lists(OPERATIONS, max_size=40))
def test_the_twin_and_lmdb_agree(operations: list[tuple[str, Act]]) -> None:
    """After each step the same answer, at the end the same content, and no counter that contradicts it."""
    with tempfile.TemporaryDirectory() as path:
        trio.run(compare, [("first", first_directories), *operations], Path(path))


def first_directories(tx: Transaction) -> list[int]:
    """Begin with directories, so that files find a place."""
    return [tx.catalogue.make_directories(lfn, acl=OWNER_ONLY) for lfn in DIRECTORIES]
