"""What the store in LMDB promises beyond the port: its directory, its format, a full disk, dead readers."""

from __future__ import annotations

import functools
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import lmdb
import pytest
import trio
import trio.testing

from mdmfs.hospital import tables
from mdmfs.hospital.catalogue.times import time_within
from mdmfs.hospital.lmdb_store import LmdbStore
from mdmfs.hospital.store import STORE_FORMAT, Transaction
from mdmfs.model.errors import ConfigurationError, OutOfSpaceError, StoreError
from tests.twins.records import OWNER_ONLY, SERIES_LFN, guid_of, instance_of, new_file

SERIES = 50
FILES = 500
"""In CI; a hundred thousand take some seconds."""
COMMITS = 300
REPOSITORY = Path(__file__).parents[2]


def push(tx: Transaction, payload: bytes) -> int:
    """Write something."""
    return tx.outbox.push("key1", "shares", b"", payload)


def numbers(store: LmdbStore) -> list[int]:
    """Give the numbers of what was written."""
    return [item.number for item in store.read(lambda tx: tx.outbox.peek("key1", limit=10_000))]


async def test_a_store_is_for_its_owner_only(tmp_path: Path) -> None:
    """Directory 0700, files 0600; a directory that others may enter is refused."""
    store = LmdbStore.open(tmp_path / "deep" / "store", map_size=2**24)
    await store.aclose()
    assert (tmp_path / "deep" / "store").stat().st_mode & 0o777 == 0o700
    for file in (tmp_path / "deep" / "store").iterdir():
        assert file.stat().st_mode & 0o777 == 0o600
    (tmp_path / "open").mkdir(mode=0o750)
    with pytest.raises(ConfigurationError, match="chmod 700"):
        LmdbStore.open(tmp_path / "open", map_size=2**24)


async def test_a_store_is_the_same_after_it_was_closed(tmp_path: Path) -> None:
    """Numbers go on where they were."""
    for number in range(1, 4):
        store = LmdbStore.open(tmp_path / "store", map_size=2**24)
        assert await store.write(lambda tx: push(tx, b"x")) == number
        await store.aclose()


async def test_one_default_costs_one_acl_however_many_files_are_under_it(tmp_path: Path) -> None:
    """Of fifty directories with files, each with ids of its own, what the ACLs say is kept once."""
    series, files = [SERIES_LFN / f"{number:03}-MR" for number in range(SERIES)], FILES // SERIES

    def register(tx: Transaction, number: int) -> None:
        tx.catalogue.make_directories(series[number])
        for file in range(number * files, (number + 1) * files):
            tx.catalogue.add_file(series[number] / f"{file:06}.dcm", new_file(file))

    store = LmdbStore.open(tmp_path / "store", map_size=2**30)
    await store.write(lambda tx: tx.catalogue.make_directories(SERIES_LFN, acl=OWNER_ONLY))
    for number in range(SERIES):
        await store.write(functools.partial(register, number=number))
    await store.aclose()
    with lmdb.open(str(tmp_path / "store"), max_dbs=64, readonly=True) as env, env.begin() as txn:
        entries = {table: txn.stat(env.open_db(table, txn))["entries"] for table in (tables.ACL_VALUES, tables.FILES)}
    assert entries[tables.FILES] == FILES
    assert entries[tables.ACL_VALUES] <= 2  # the first directory's, and what its defaults make


def rewrite(path: Path, table: bytes, change: dict[bytes, bytes] | bytes) -> None:
    """Write rows past the store; octets alone become the version mark of each row."""
    with lmdb.open(str(path), max_dbs=32, map_size=2**24) as env:
        database = env.open_db(table)
        with env.begin(write=True, db=database) as txn:
            rows = change if isinstance(change, dict) else {k: change + v[1:] for k, v in txn.cursor()}
            for key, value in rows.items():
                txn.put(key, value)


async def test_a_store_of_a_newer_format_is_not_opened(tmp_path: Path) -> None:
    """And not touched; with its own format it opens again."""
    await LmdbStore.open(tmp_path / "store", map_size=2**24).aclose()
    rewrite(tmp_path / "store", b"!", {b"store": b"99"})
    with pytest.raises(StoreError, match=r"store is .* format 99"):
        LmdbStore.open(tmp_path / "store", map_size=2**24)
    rewrite(tmp_path / "store", b"!", {b"store": STORE_FORMAT.mark})
    await LmdbStore.open(tmp_path / "store", map_size=2**24).aclose()


async def test_a_store_whose_files_told_when_they_were_registered_is_brought_up_when_it_is_opened(
    tmp_path: Path,
) -> None:
    """In transactions of its own, one after the other; then it goes on as any other."""
    store = LmdbStore.open(tmp_path / "store")
    await store.write(lambda tx: tx.catalogue.make_directories(SERIES_LFN, acl=OWNER_ONLY))
    await store.write(lambda tx: tx.catalogue.add_file(SERIES_LFN / "1", new_file(1)))
    await store.write(lambda tx: tx.catalogue.show([guid_of(1)]))
    await store.aclose()
    rewrite(tmp_path / "store", b"!", {b"store": b"5"})
    for _ in range(2):
        store = LmdbStore.open(tmp_path / "store")
        nodes = [store.read(lambda tx, lfn=lfn: tx.catalogue.look_up(lfn)) for lfn in (SERIES_LFN / "1", SERIES_LFN)]
        assert [node and node.modified for node in nodes] == [time_within(SERIES_LFN)] * 2
        await store.aclose()


async def test_a_record_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """The store opens, the record does not."""
    store = LmdbStore.open(tmp_path / "store", map_size=2**24)
    await store.write(lambda tx: tx.uidmap.tie(guid_of(1), instance_of(1)))
    await store.aclose()
    rewrite(tmp_path / "store", b"n", b"\x02")
    store = LmdbStore.open(tmp_path / "store", map_size=2**24)
    with pytest.raises(StoreError, match="version 2"):
        store.read(lambda tx: tx.uidmap.resolve(guid_of(1)))
    await store.aclose()


async def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    """With our error."""
    (tmp_path / "store").mkdir(mode=0o700)
    (tmp_path / "store" / "data.mdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError):
        LmdbStore.open(tmp_path / "store", map_size=2**24)


async def test_a_full_map_keeps_nothing_of_the_write_and_all_before_it(tmp_path: Path) -> None:
    """Alone, beside others in one commit, and where the act swallows the refusal; room made is room again."""
    store = LmdbStore.open(tmp_path / "store", map_size=2**21)
    await store.write(lambda tx: push(tx, b"small"))
    refused: list[str] = []

    def swallow(tx: Transaction) -> None:
        push(tx, b"before it")
        try:
            push(tx, bytes(2**22))
        except OutOfSpaceError:
            refused.append("swallowed")

    async def too_large() -> None:
        with pytest.raises(OutOfSpaceError, match="full"):
            await store.write(lambda tx: (push(tx, b"first"), push(tx, bytes(2**22))))
        refused.append("refused")

    await too_large()
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(too_large)
            nursery.start_soon(store.write, lambda tx: push(tx, b"small"))
    assert refused == ["refused"] * 5
    with pytest.raises(StoreError):
        await store.write(swallow)
    assert len(numbers(store)) == 5
    await store.write(lambda tx: push(tx, bytes(2**18)))
    await store.aclose()


FILL = textwrap.dedent("""
    import resource, sys, pathlib, trio
    from mdmfs.hospital.lmdb_store import LmdbStore
    from mdmfs.model.errors import OutOfSpaceError, StoreError

    async def main():
        store = LmdbStore.open(pathlib.Path(sys.argv[1]), map_size=2**30)
        if sys.argv[2] == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, resource.RLIM_INFINITY))
        kept = 0
        try:
            while kept < 1000:
                await store.write(lambda tx: [tx.outbox.push("key1", "x", b"", bytes(20_000)) for _ in range(3)])
                kept += 3
        except StoreError if sys.argv[2] == "limit" else OutOfSpaceError:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            assert store.read(lambda tx: tx.outbox.size().items) == kept
            assert await store.write(lambda tx: tx.outbox.drop("key1", [1, 2])) == 2
            await store.write(lambda tx: tx.outbox.push("key1", "x", b"", b"room again"))
            await store.aclose()
            store = LmdbStore.open(pathlib.Path(sys.argv[1]), map_size=2**30)
            assert store.read(lambda tx: tx.outbox.size().items) == kept - 1
            await store.aclose()
            print(kept)

    trio.run(main)
""")


def test_a_full_disk_keeps_nothing_of_the_write_and_all_before_it(tmp_path: Path) -> None:
    """On a disk of 1 MiB, in its own mount namespace: the refusal says that it is full; room made is room again."""
    unshare = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*unshare, "mount", "-t", "tmpfs", "t", tmp_path], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody make a mount namespace")
    mounting = f"mount -t tmpfs -o size=1m t {tmp_path} && exec " + '"$@"'
    command = [*unshare, "sh", "-c", mounting, "sh", sys.executable, "-c", FILL, str(tmp_path / "store"), "disk"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 3


FULL = """
import pathlib, sys, trio
from mdmfs.hospital.lmdb_store import LmdbStore
from mdmfs.model.errors import OutOfSpaceError
folder = pathlib.Path(sys.argv[1])
for filled in (True, False):
    try:
        trio.run(LmdbStore.open(folder / "store").aclose)
        print("opened")
    except OutOfSpaceError:
        print("full")
        (folder / "filled").unlink()
"""


def test_a_store_that_is_begun_on_a_full_disk_is_refused(tmp_path: Path) -> None:
    """LMDB maps a table of readers with holes, and who writes into one without room is ended by SIGBUS."""
    unshare = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*unshare, "mount", "-t", "tmpfs", "t", tmp_path], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody make a mount namespace")
    filled = f"mount -t tmpfs -o size=1m t {tmp_path} && ! head -c 2M /dev/zero 2>/dev/null >{tmp_path}/filled && exec "
    command = [*unshare, "sh", "-c", filled + '"$@"', "sh", sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["full", "opened"]), done.stderr


def test_a_file_that_may_not_grow_keeps_nothing_of_the_write_and_all_before_it(tmp_path: Path) -> None:
    """The operating system refuses, as a quota does; with room again the store goes on."""
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(tmp_path / "store"), "limit"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 3


READER = """
import sys, lmdb, time
env = lmdb.open(sys.argv[1], max_dbs=32, map_size=2**24)
with env.begin() as txn:
    print(txn.id(), flush=True)
    time.sleep(60)
"""


def test_a_killed_reader_does_not_hold_old_pages_for_ever(tmp_path: Path) -> None:
    """Its slot is freed when the store is opened."""
    path = tmp_path / "store"
    open_in_another_process(path)
    with subprocess.Popen([sys.executable, "-c", READER, str(path)], stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        with lmdb.open(str(path), max_dbs=32, map_size=2**24) as env:
            reader.send_signal(signal.SIGKILL)
            reader.wait()
            assert str(reader.pid) in env.readers()
            open_in_another_process(path)
            assert str(reader.pid) not in env.readers()


def open_in_another_process(path: Path) -> None:
    """Open and close the store; a process opens one map only once, and this one has it."""
    code = (
        "import pathlib, sys, trio; from mdmfs.hospital.lmdb_store import LmdbStore;"
        "trio.run(LmdbStore.open(pathlib.Path(sys.argv[1]), map_size=2**24).aclose)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=REPOSITORY, check=True)


async def test_writes_do_not_run_on_the_event_loop(tmp_path: Path) -> None:
    """While one waits, other tasks go on; reads run where they are called."""
    store = LmdbStore.open(tmp_path / "store", map_size=2**24)
    loop = threading.get_ident()
    may_end = threading.Event()

    def act(_: Transaction) -> int:
        assert may_end.wait(10)
        return threading.get_ident()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_set_soon, may_end)
        assert await store.write(act) != loop
    assert store.read(lambda _: threading.get_ident()) == loop
    await store.aclose()


async def test_a_write_that_waits_for_its_turn_is_done_though_its_caller_is_cancelled(tmp_path: Path) -> None:
    """It is on disk when the cancelled call ends, not some time later with another's write."""
    store = LmdbStore.open(tmp_path / "store", map_size=2**24)
    may_end = threading.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.write, lambda _: may_end.wait(10))
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(5):
            nursery.start_soon(store.write, lambda tx: push(tx, b"x"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        may_end.set()
    assert numbers(store) == [1, 2, 3, 4, 5]
    await store.aclose()


async def _set_soon(event: threading.Event) -> None:
    await trio.lowlevel.checkpoint()
    event.set()


async def test_closing_waits_for_writes_that_were_called(tmp_path: Path) -> None:
    """None of them is lost or half done."""
    store = LmdbStore.open(tmp_path / "store", map_size=2**24)
    done: list[int] = []

    async def call() -> None:
        done.append(await store.write(lambda tx: push(tx, b"x")))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        await store.aclose()
    store = LmdbStore.open(tmp_path / "store", map_size=2**24)
    assert numbers(store) == sorted(done) == list(range(1, 11))
    await store.aclose()


async def test_a_store_is_looked_at_from_beside_and_never_made(tmp_path: Path) -> None:
    """As commands do while the daemon works on it."""
    with pytest.raises(StoreError), LmdbStore.looking(tmp_path / "store"):
        pass
    assert not (tmp_path / "store").exists()
    store = LmdbStore.open(tmp_path / "store")
    await store.aclose()
    with LmdbStore.looking(tmp_path / "store") as seen:
        assert seen.read(lambda tx: tx.catalogue.totals()).files == 0
        with pytest.raises(StoreError):
            await seen.write(lambda tx: push(tx, b"x"))


async def test_what_goes_on_holding_a_view_that_has_ended_keeps_no_place_of_a_reader(tmp_path: Path) -> None:
    """LMDB has 126 of them, and whoever comes when all are taken is refused."""
    store = LmdbStore.open(tmp_path / "store", map_size=2**24)
    held = [store.read(lambda tx: tx) for _ in range(200)]
    with pytest.raises(StoreError):
        held[0].feed.version()
    await store.aclose()


async def test_an_error_that_is_kept_keeps_no_place_of_a_reader(tmp_path: Path) -> None:
    """It keeps all that it came through, and that is the reading itself."""
    store, held = LmdbStore.open(tmp_path / "store", map_size=2**24), list[KeyError]()
    for _ in range(200):
        try:
            store.read(lambda tx: {}[tx.version])
        except KeyError as error:
            held.append(error)
    assert len(held) == 200
    await store.aclose()


async def test_a_version_is_that_of_what_is_seen_while_others_commit(tmp_path: Path) -> None:
    """LMDB counts a commit before anybody can see it: what was read then would bear a number too high."""

    async def push_all() -> None:
        for _ in range(COMMITS):
            await store.write(lambda tx: push(tx, b"x"))
        writing.cancel()

    shown: set[int] = set()
    store = LmdbStore.open(tmp_path / "store", map_size=2**24)
    async with trio.open_nursery() as nursery:
        writing = trio.CancelScope()
        nursery.start_soon(push_all)
        with writing:
            while True:
                version = store.version()
                shown.add(store.read(lambda tx: tx.version))
                assert max(shown) >= version
                await trio.lowlevel.checkpoint()
    assert len(shown) > 1
    await store.aclose()
