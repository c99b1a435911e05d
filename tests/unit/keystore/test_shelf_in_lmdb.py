"""The shelf on disk: private, durable through kill -9, and honest about what it cannot read."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest
import trio
import trio.testing

from mdmfs.keystore.keystore import BRIEF_BATCH, Keystore
from mdmfs.keystore.row_shelf import open_lmdb_shelf
from mdmfs.keystore.shelf import KeyRecord
from mdmfs.model.errors import ConfigurationError, StoreError
from mdmfs.model.names import Guid
from mdmfs.wire.messages.keystores import Collect, Outcome
from tests.twins.keystores import HOSPITAL, principal

REPOSITORY = Path(__file__).parents[3]
OWNER = "/DC=org/CN=hospital"
GUID = Guid(bytes(16))
RECORD = KeyRecord(owner=OWNER, share=b"a share", aliases=())

REGISTER_FOR_EVER = """
import sys, trio
from pathlib import Path
from mdmfs.keystore.row_shelf import open_lmdb_shelf
from mdmfs.keystore.shelf import KeyRecord
from mdmfs.model.names import Guid

async def write(shelf, start):
    number = start
    while True:
        octets = number.to_bytes(16, "big")
        record = KeyRecord(owner="/CN=h", share=octets, aliases=())
        await shelf.write(lambda draft: draft.put_key(Guid(octets), record))
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()
        number += 1

async def main():
    async with open_lmdb_shelf(Path(sys.argv[1])) as shelf, trio.open_nursery() as nursery:
        for writer in range(4):
            nursery.start_soon(write, shelf, writer * 10**6)

trio.run(main)
"""

HOLD_A_PAGE = """
import sys, time, trio
from pathlib import Path
from mdmfs.keystore.row_shelf import open_lmdb_shelf

def hold(page):
    print("holding", flush=True)
    time.sleep(60)

async def main():
    async with open_lmdb_shelf(Path(sys.argv[1])) as shelf:
        await shelf.read(hold)

trio.run(main)
"""

HOLD_OPEN = """
import sys, time, lmdb
environment = lmdb.open(sys.argv[1], max_dbs=4)
print("holding", flush=True)
time.sleep(60)
"""


async def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    """Closing and opening again changes nothing."""
    async with open_lmdb_shelf(tmp_path / "new" / "shelf") as shelf:
        await shelf.write(lambda draft: draft.put_key(GUID, RECORD))
    async with open_lmdb_shelf(tmp_path / "new" / "shelf") as shelf:
        assert await shelf.read(lambda page: page.key(GUID)) == RECORD


@pytest.mark.parametrize("lines", [40, 400, 1500])
async def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path, lines: int) -> None:
    """Every write that returned before the kill is there afterwards, whole."""
    with subprocess.Popen(  # noqa: ASYNC220 nothing else runs meanwhile
        [sys.executable, "-c", REGISTER_FOR_EVER, str(tmp_path / "shelf")],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout is not None
        acknowledged = [int(writer.stdout.readline()) for _ in range(lines)]
        writer.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in writer.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    async with open_lmdb_shelf(tmp_path / "shelf") as shelf:
        for number in acknowledged:
            octets = number.to_bytes(16, "big")
            record = await shelf.read(lambda page, octets=octets: page.key(Guid(octets)))
            assert record is not None
            assert record.share == octets


async def test_the_slot_of_a_killed_reader_is_freed_at_the_next_start(tmp_path: Path) -> None:
    """Else its page would keep the file growing for as long as anybody, a backup perhaps, has the shelf open."""
    directory = tmp_path / "shelf"
    with _holding(HOLD_A_PAGE, directory) as reader, _holding(HOLD_OPEN, directory):
        reader.kill()
        reader.wait()
        async with open_lmdb_shelf(directory):
            pass
        with lmdb.open(str(directory), max_dbs=4) as environment:
            assert environment.reader_check() == 0


async def test_writes_that_wait_together_share_a_commit(tmp_path: Path) -> None:
    """A hundred writers at once need a handful of syncs, not a hundred."""
    async with open_lmdb_shelf(tmp_path) as shelf, trio.open_nursery() as nursery:
        before = _commits_of(tmp_path)
        for number in range(100):
            guid = Guid(number.to_bytes(16, "big"))
            nursery.start_soon(shelf.write, lambda draft, guid=guid: draft.put_key(guid, RECORD))
    assert _commits_of(tmp_path) - before <= 10


async def test_only_the_owner_can_enter(tmp_path: Path) -> None:
    """Directory and files are his alone, whatever the umask."""
    async with open_lmdb_shelf(tmp_path / "shelf"):
        modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "shelf").iterdir()}
        assert modes == {"data.mdb": 0o600, "lock.mdb": 0o600}
        assert (tmp_path / "shelf").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o701])
async def test_a_directory_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    """The operator is told what to do, and nothing is written."""
    directory = tmp_path / "shelf"
    directory.mkdir()
    directory.chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 700"):
        async with open_lmdb_shelf(directory):
            pass
    assert list(directory.iterdir()) == []


async def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    """It is named."""
    (tmp_path / "shelf").write_text("")
    with pytest.raises(ConfigurationError, match="shelf"):
        async with open_lmdb_shelf(tmp_path / "shelf"):
            pass


async def test_a_shelf_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    """An old program does not guess at what a newer one wrote."""
    async with open_lmdb_shelf(tmp_path):
        pass
    _overwrite(tmp_path, b"about", b"format", b"2")
    with pytest.raises(StoreError, match="is a shelf of format 2, this program knows none after 1"):
        async with open_lmdb_shelf(tmp_path):
            pass
    _overwrite(tmp_path, b"about", b"format", b"1")
    async with open_lmdb_shelf(tmp_path):
        pass


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\xc1",
        b"\x94\x02\xa1x\xc4\x01y\x90",
        b"\x94\x01\xa1x\xc4\x01y",
        b"\x91\x01",
        pytest.param(b"\x94\x01\xa1\xff\xc4\x01y\x90", id="no UTF-8"),
        pytest.param(b"\x94\x01\xa1x\xc4\x01y" + b"\x91" * 10_000, id="very deep"),
    ],
)
async def test_a_damaged_or_newer_record_is_an_error_and_never_a_guess(tmp_path: Path, octets: bytes) -> None:
    """Neither bytes that are cut nor a record of format 2 pass for a share."""
    async with open_lmdb_shelf(tmp_path):
        pass
    _overwrite(tmp_path, b"keys", GUID.octets, octets)
    async with open_lmdb_shelf(tmp_path) as shelf:
        with pytest.raises(StoreError, match=r"restore|format"):
            await shelf.read(lambda page: page.key(GUID))
        with pytest.raises(StoreError):
            await shelf.write(lambda draft: draft.key(GUID))
        await shelf.write(lambda draft: draft.put_key(GUID, RECORD))
        assert await shelf.read(lambda page: page.key(GUID)) == RECORD


async def test_a_file_that_is_no_shelf_is_an_error(tmp_path: Path) -> None:
    """Damage is told with the directory's name, at the start."""
    directory = tmp_path / "shelf"
    directory.mkdir(mode=0o700)
    (directory / "data.mdb").write_bytes(b"x" * 8192)
    with pytest.raises(StoreError, match="shelf"):
        async with open_lmdb_shelf(directory):
            pass


def test_no_repr_shows_a_share() -> None:
    """Records end up in logs and tracebacks sooner or later."""
    assert "a share" not in repr(RECORD)
    assert "a share" not in str(RECORD)


@contextlib.contextmanager
def _holding(program: str, directory: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", program, str(directory)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "holding\n"
            yield process
        finally:
            process.kill()


def _overwrite(directory: Path, database: bytes, key: bytes, value: bytes) -> None:
    with lmdb.open(str(directory), max_dbs=4) as environment:
        opened = environment.open_db(database)
        with environment.begin(write=True, db=opened) as transaction:
            transaction.put(key, value)


def _commits_of(directory: Path) -> int:
    code = "import lmdb, sys; print(lmdb.open(sys.argv[1], readonly=True).info()['last_txnid'])"
    return int(subprocess.run([sys.executable, "-c", code, str(directory)], check=True, capture_output=True).stdout)


async def test_a_few_shares_are_collected_in_one_turn_of_the_loop(tmp_path: Path) -> None:
    """Each turn costs as much as the reading, and a thread more; more shares than a few hold up nobody."""
    few, many = ([GUID.octets] * count for count in (BRIEF_BATCH, BRIEF_BATCH + 1))
    async with open_lmdb_shelf(tmp_path / "shelf") as shelf:
        keystore = Keystore(shelf, [HOSPITAL])
        with trio.testing.assert_no_checkpoints():
            collected = await keystore.collect(principal(HOSPITAL), Collect(few))
        assert collected.outcomes == [Outcome.UNKNOWN] * BRIEF_BATCH
        with trio.testing.assert_checkpoints():
            await keystore.collect(principal(HOSPITAL), Collect(many))
