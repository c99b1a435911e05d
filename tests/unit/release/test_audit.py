"""The audit log: on disk before anything leaves, whole lines only, many records in one sync."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import trio
import trio.lowlevel

from mdmfs.hospital.release.audit import Audit, AuditRecord, Event
from mdmfs.model.errors import StoreError
from tests.twins.clinic import until


def record(count: int = 1, outcome: str = "") -> AuditRecord:
    """Make a record."""
    return AuditRecord(time=1.5, event=Event.RELEASE, dn="/CN=reader", guid="g", outcome=outcome, count=count)


def lines(path: Path) -> list[AuditRecord]:
    """Read all records."""
    return [msgspec.json.decode(line, type=AuditRecord) for line in path.read_bytes().splitlines()]


async def test_a_record_is_on_disk_when_it_is_said_to_be(tmp_path: Path) -> None:
    """Nobody else may read the file; a second start appends."""
    path = tmp_path / "audit.jsonl"
    for count in (1, 2):
        audit = Audit(path)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(audit.run)
            await audit.record(record(count))
            assert lines(path)[-1] == record(count)
            nursery.cancel_scope.cancel()
        audit.close()
    assert lines(path) == [record(1), record(2)]
    assert path.stat().st_mode & 0o777 == 0o600


async def test_nothing_is_said_before_it_is_written(tmp_path: Path) -> None:
    """While nobody writes, recorders wait; then all of them are served by few writes, in their order."""
    audit = Audit(tmp_path / "audit.jsonl")
    done: list[int] = []

    async def note(count: int) -> None:
        await audit.record(record(count))
        done.append(count)

    async with trio.open_nursery() as nursery:
        for count in range(500):
            nursery.start_soon(note, count)
        await trio.testing.wait_all_tasks_blocked()
        assert not done
        begun = trio.current_time()
        nursery.start_soon(audit.run)
        await until(lambda: len(done) == 500)
        assert trio.current_time() - begun < 0.5
        nursery.cancel_scope.cancel()
    audit.close()
    assert sorted(one.count for one in lines(tmp_path / "audit.jsonl")) == list(range(500))


async def test_a_torn_line_stays_alone(tmp_path: Path) -> None:
    """What a crash has cut off is not joined with the next record."""
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b'{"time":1.0,"event":"rel')
    audit = Audit(path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(audit.run)
        await audit.record(record(7))
        nursery.cancel_scope.cancel()
    audit.close()
    torn, whole = path.read_bytes().splitlines()
    assert torn == b'{"time":1.0,"event":"rel'
    assert msgspec.json.decode(whole, type=AuditRecord) == record(7)


def test_a_log_that_cannot_be_opened_is_an_error_at_the_start(tmp_path: Path) -> None:
    """The daemon does not start without it."""
    with pytest.raises(StoreError, match="nothing is released"):
        Audit(tmp_path / "missing" / "audit.jsonl")
    with pytest.raises(StoreError):
        Audit(tmp_path)


_FULL = """
import pathlib, resource, sys, trio
from mdmfs.hospital.release.audit import Audit, AuditRecord, Event
from mdmfs.model.errors import StoreError
from tests.twins.clinic import until
async def main():
    path = pathlib.Path(sys.argv[1])
    audit = Audit(path)
    told = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(audit.run)
        for outcome in ("a" * 500, "b" * 900, "c" * 300, "d" * 900):
            try:
                await audit.record(AuditRecord(time=1.0, event=Event.RELEASE, outcome=outcome))
                told.append(outcome[0])
            except StoreError:
                told.append("-")
        nursery.cancel_scope.cancel()
    print("".join(told), file=sys.stdout)
    print("".join(line[line.index('outcome":"') + 10] for line in path.read_text().splitlines()))
    print(path.read_bytes().endswith(b"\\n"))
resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
trio.run(main)
"""


def test_a_full_disk_stops_releases_and_tears_no_line(tmp_path: Path) -> None:
    """A record that does not fit is refused and leaves no half behind; a shorter one still fits."""
    done = subprocess.run(
        [sys.executable, "-c", _FULL, str(tmp_path / "audit.jsonl")],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert [line for line in done.stdout.splitlines() if "audit log" not in line] == ["a-c-", "ac", "True"], done.stderr


async def test_a_device_without_room_is_a_failure_each_time() -> None:
    """ENOSPC reaches every recorder of the batch."""
    audit = Audit(Path("/dev/full"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(audit.run)
        for _ in range(2):
            with pytest.raises(StoreError, match="No space left"):
                await audit.record(record())
        nursery.cancel_scope.cancel()
    audit.close()


def test_a_record_says_nothing_that_it_was_not_given() -> None:
    """Empty fields are left out; the format's number stays."""
    encoded = msgspec.json.decode(msgspec.json.encode(AuditRecord(time=1.0, event=Event.REFUSAL, format=2)))
    assert encoded == {"time": 1.0, "event": "refusal", "format": 2}
