"""Arrivals: what one request waits for, how often it is brought again, and when waiting ends."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
import trio
from trio.testing import MockClock

from mdmfs.hospital.kept.staging import Staging
from mdmfs.hospital.projects import Project
from mdmfs.hospital.release.arrivals import ATTEMPTS, LOOK_SECONDS, Arrivals, Released
from mdmfs.hospital.release.decision import Denial, Standing
from mdmfs.hospital.release.queue import PendingRecall, Source
from mdmfs.model.errors import BusyError, MdmfsError, NoSuchFileError, OutOfSpaceError, StoreError
from mdmfs.sealing.layout import HEADER_SIZE
from tests.twins.octets import octets
from tests.twins.records import file_record, guid_of, instance_of

GUID = guid_of(1)
SIZE = HEADER_SIZE + 100


async def admit(_: object) -> object:
    """Admit nobody: nothing is rendered here."""
    await trio.lowlevel.checkpoint()
    raise AssertionError


SOURCE = Source(file_record(1), instance_of(1), admit, lambda: True)  # type: ignore[arg-type] # nobody calls it
STANDING = Standing(None, SOURCE, cast("Project", None), 1, is_lost=False, until=float("inf"))


class Bringing:
    """Recalls that end when a test says so."""

    deadline = 60.0

    def __init__(self) -> None:
        self.begun: list[PendingRecall] = []
        self.left: list[PendingRecall] = []

    def begin(self, source: Source, *, is_ahead: bool = False) -> PendingRecall:
        """See ``Bringing``."""
        self.begun.append(PendingRecall(source, is_ahead=is_ahead))
        return self.begun[-1]

    def leave(self, recall: PendingRecall) -> None:
        """See ``Bringing``."""
        self.left.append(recall)


async def soon(arrivals: Arrivals) -> int | None:
    """Wait for the next place."""
    return await arrivals.next(trio.current_time() + 5, lambda: False)


async def test_what_is_renewed_again_and_again_is_not_brought_for_ever(tmp_path: Path) -> None:
    """A few times: then who waits is told to open it again, and nothing is held for him."""
    bringing, staging = Bringing(), Staging(tmp_path / "staging", 10**6)
    arrivals = Arrivals(bringing, staging, are_ahead=False)
    arrivals.expect_all([STANDING])
    for number in range(ATTEMPTS):
        bringing.begun[number].begin()  # it comes, and is gone again before it is looked at
        assert await soon(arrivals) == 0
        assert arrivals.failure(0) is None
        outcome = arrivals.outcome(0, STANDING)
        assert (outcome is None) == (number + 1 < ATTEMPTS)
    assert isinstance(outcome, BusyError)
    assert len(bringing.begun) == ATTEMPTS
    assert bringing.left == bringing.begun
    assert not arrivals.expected


@pytest.mark.parametrize("error", [OutOfSpaceError("full"), StoreError("no disk")])
async def test_a_disk_that_takes_nothing_is_told_at_once(tmp_path: Path, error: MdmfsError) -> None:
    """The PACS is not asked again for what would not fit either."""
    bringing = Bringing()
    arrivals = Arrivals(bringing, Staging(tmp_path / "staging", 10**6), are_ahead=False)
    arrivals.expect_all([STANDING])
    bringing.begun[0].begin()
    bringing.begun[0].fail(error)
    assert await soon(arrivals) == 0
    assert isinstance(arrivals.outcome(0, STANDING), type(error))
    assert len(bringing.begun) == 1


async def test_what_was_decided_against_meanwhile_is_not_let_out(tmp_path: Path) -> None:
    """Although it is staged: the last decision counts."""
    staging = Staging(tmp_path / "staging", 10**6)
    async with staging.writing(GUID, SOURCE.file.generation, SIZE) as writer:
        await writer.write(lambda: octets(SIZE, "sealed"))
    arrivals = Arrivals(Bringing(), staging, are_ahead=False)
    arrivals.expect_all([STANDING, Denial("", NoSuchFileError("gone"))])
    assert [await soon(arrivals) for _ in range(2)] == [0, 1]
    assert arrivals.failure(0) is None
    assert isinstance(arrivals.failure(1), NoSuchFileError)
    assert isinstance(arrivals.outcome(0, Denial("no", NoSuchFileError("gone"))), NoSuchFileError)
    arrivals.expect(0, SOURCE)
    assert isinstance(arrivals.outcome(0, STANDING), Released)


async def test_waiting_ends_at_its_deadline_and_when_nobody_waits(tmp_path: Path, autojump_clock: MockClock) -> None:
    """With the second nothing is brought any more, and it is noticed within a second."""
    bringing = Bringing()
    arrivals = Arrivals(bringing, Staging(tmp_path / "staging", 10**6), are_ahead=True)
    arrivals.expect_all([STANDING])
    assert bringing.begun[0].is_ahead
    begun = autojump_clock.current_time()
    assert await arrivals.next(begun + 7, lambda: False) is None
    assert autojump_clock.current_time() == begun + 7
    assert (list(arrivals.expected), bringing.left) == ([0], [])
    is_over = iter([False, True])
    assert await arrivals.next(begun + 100, lambda: next(is_over)) is None
    assert autojump_clock.current_time() == begun + 7 + LOOK_SECONDS
    assert (list(arrivals.expected), bringing.left) == ([], bringing.begun)
    assert await arrivals.next(begun + 100, lambda: False) is None
    assert autojump_clock.current_time() == begun + 7 + LOOK_SECONDS


async def test_who_waits_is_woken_by_what_arrives(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """And not by the next look whether he waits yet."""
    bringing = Bringing()
    arrivals = Arrivals(bringing, Staging(tmp_path / "staging", 10**6), are_ahead=False)
    arrivals.expect_all([STANDING])

    async def arrive() -> None:
        await trio.sleep(LOOK_SECONDS / 4)
        bringing.begun[0].begin()

    begun = autojump_clock.current_time()
    nursery.start_soon(arrive)
    assert await soon(arrivals) == 0
    assert autojump_clock.current_time() == begun + LOOK_SECONDS / 4
