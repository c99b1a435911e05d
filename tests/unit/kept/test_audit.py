"""The audit log: on disk before anything leaves, whole lines only, many records in one sync, chained."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import trio
import trio.lowlevel

from mdmfs.hospital.kept.audit import AUDIT_FORMAT, Audit, AuditRecord, Event, records_of
from mdmfs.hospital.signing import SigningKey
from mdmfs.journal.chain import Fault, Verifier
from mdmfs.journal.files import files_of, first_line, lines_of
from mdmfs.model.errors import StoreError
from tests.twins.clinic import until
from tests.twins.disk import no_room_behind


def record(count: int = 1, outcome: str = "") -> AuditRecord:
    """Make a record."""
    return AuditRecord(time=1.5, event=Event.RELEASE, dn="/CN=reader", guid="g", outcome=outcome, count=count)


def lines(path: Path) -> list[AuditRecord]:
    """Read all records after the first, as they were before they had numbers."""
    first, *others = records_of(path)
    assert (first.event, first.n, first.format) == (Event.BEGIN, 1, AUDIT_FORMAT.number)
    assert [one.n for one in others] == list(range(2, len(others) + 2))
    return [msgspec.structs.replace(one, n=0) for one in others]


def faults(path: Path) -> list[Fault]:
    """Verify the chain."""
    verifier = Verifier()
    return [fault for line in lines_of(path) for fault in verifier.follow(line)]


@contextlib.asynccontextmanager
async def writing(path: Path, **options: int) -> AsyncIterator[Audit]:
    """Open the log, and let it be written."""
    audit = Audit(path, SigningKey(path.with_name("signing.key")), **options)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(audit.run)
        yield audit
        nursery.cancel_scope.cancel()
    audit.close()


async def test_a_record_is_on_disk_when_it_is_said_to_be(tmp_path: Path) -> None:
    """Nobody else may read the file; a second start appends."""
    path = tmp_path / "audit.jsonl"
    for count in (1, 2):
        async with writing(path) as audit:
            await audit.record(record(count))
            assert lines(path)[-1] == record(count)
    assert lines(path) == [record(1), record(2)]
    assert not faults(path)
    assert path.stat().st_mode & 0o777 == 0o600


async def test_nothing_is_said_before_it_is_written(tmp_path: Path) -> None:
    """While nobody writes, recorders wait; then all of them are served by few writes, in their order."""
    audit = Audit(tmp_path / "audit.jsonl", SigningKey(tmp_path / "signing.key"))
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


@pytest.mark.parametrize("has_begun", [False, True])
async def test_what_waits_when_the_daemon_ends_is_written(tmp_path: Path, *, has_begun: bool) -> None:
    """What nobody waited for is on record all the same, also where the end comes before the writer has begun."""
    path = tmp_path / "audit.jsonl"
    async with writing(path) as audit:
        if has_begun:
            await audit.record(record(0))
        for count in range(1, 50):
            audit.note(record(count))
    assert lines(path) == [record(count) for count in range(0 if has_begun else 1, 50)]


async def test_a_writer_that_fails_as_nobody_foresaw_ends_the_daemon(tmp_path: Path) -> None:
    """Nobody waits for ever for a thread that is gone."""
    with pytest.RaisesGroup(TypeError, flatten_subgroups=True):
        async with writing(tmp_path / "audit.jsonl") as audit:
            audit._journal.write("no bytes")  # type: ignore[arg-type] # noqa: SLF001 a fault of ours
            await trio.sleep_forever()


@pytest.mark.parametrize("before", [0, 1, 2])
async def test_a_torn_line_was_never_durable_and_goes(before: int, tmp_path: Path) -> None:
    """What a crash has cut off let nothing out; the next record follows the last whole one."""
    path = tmp_path / "audit.jsonl"
    if before:
        async with writing(path) as audit:
            for count in range(1, before):
                await audit.record(record(count))
    with path.open("ab") as file:
        file.write(b'{"n":9,"time":1.0,"event":"rel')
    async with writing(path) as audit:
        await audit.record(record(7))
    assert lines(path) == [*(record(count) for count in range(1, before)), record(7)]
    assert not faults(path)


async def test_a_full_file_is_put_away_and_the_chain_goes_on(tmp_path: Path) -> None:
    """Under the number of its first record; also over a restart at that very moment."""
    path = tmp_path / "audit.jsonl"
    for start in (0, 10, 20):
        async with writing(path, file_bytes=1500) as audit:
            for count in range(start, start + 10):
                await audit.record(record(count))
    assert len(files_of(path)) > 3
    for file in files_of(path)[:-1]:
        (number,) = [int(part) for part in file.name.split(".") if part.isdecimal()]
        first = first_line(file)
        assert first is not None
        assert first.number == number
    assert lines(path) == [record(count) for count in range(30)]
    assert not faults(path)
    path.unlink()
    async with writing(path) as audit:
        await audit.record(record(30))
    assert not faults(path)


def test_what_is_no_journal_is_not_written_to(tmp_path: Path) -> None:
    """An older log, or somebody's other file, stays as it is."""
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b'{"time":1.0,"event":"release"}\n')
    with pytest.raises(StoreError, match="does not end with a record"):
        Audit(path, SigningKey(tmp_path / "signing.key"))
    assert path.read_bytes() == b'{"time":1.0,"event":"release"}\n'


def test_a_log_that_cannot_be_opened_is_an_error_at_the_start(tmp_path: Path) -> None:
    """The daemon does not start without it."""
    with pytest.raises(StoreError, match="nothing is released"):
        Audit(tmp_path / "missing" / "audit.jsonl", SigningKey(tmp_path / "signing.key"))
    with pytest.raises(StoreError):
        Audit(tmp_path, SigningKey(tmp_path / "signing.key"))


_FULL = """
import pathlib, resource, sys, trio
from mdmfs.hospital.kept.audit import Audit, AuditRecord, Event, records_of
from mdmfs.hospital.signing import SigningKey
from mdmfs.model.errors import StoreError
from tests.twins.clinic import until
async def main():
    path = pathlib.Path(sys.argv[1])
    audit = Audit(path, SigningKey(path.with_name("signing.key")))
    told = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(audit.run)
        for outcome in ("a" * 400, "b" * 900, "c" * 100, "d" * 900):
            try:
                await audit.record(AuditRecord(time=1.0, event=Event.RELEASE, outcome=outcome))
                told.append(outcome[0])
            except StoreError:
                told.append("-")
        nursery.cancel_scope.cancel()
    print("".join(told), file=sys.stdout)
    print("".join(record.outcome[0] for record in list(records_of(path))[1:]))
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
    assert [line for line in done.stdout.splitlines() if "journal" not in line] == ["a-c-", "ac", "True"], done.stderr


async def test_without_room_every_recorder_hears_of_it_and_later_ones_are_written(tmp_path: Path) -> None:
    """The chain goes on from the last record that is there."""
    path = tmp_path / "audit.jsonl"
    async with writing(path) as audit:
        await audit.record(record(1))
        with no_room_behind(path):
            for _ in range(2):
                with pytest.raises(StoreError, match="nothing is released"):
                    await audit.record(record(2))
        await audit.record(record(3))
    assert lines(path) == [record(1), record(3)]
    assert not faults(path)


def test_a_record_says_nothing_that_it_was_not_given() -> None:
    """Empty fields are left out."""
    encoded = msgspec.json.decode(msgspec.json.encode(AuditRecord(time=1.0, event=Event.REFUSAL)))
    assert encoded == {"time": 1.0, "event": "refusal"}
