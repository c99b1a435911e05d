"""A transfer that is cut: asking once more tells why, and what can go on goes on without a wrong byte."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import structlog.testing
import trio
import trio.testing

from mdmfs.model.errors import (
    AccessDeniedError,
    InstanceChangedError,
    IntegrityError,
    MdmfsError,
    PeerUnreachableError,
)
from mdmfs.sealing.layout import CHUNK_SIZE, HEADER_SIZE, SEALED_CHUNK_SIZE, sealed_size
from mdmfs.wire.messages.files import Node, NodeKind
from mdmfs.worker.cache.store import CiphertextCache
from mdmfs.worker.keys.ring import KeyRing
from mdmfs.worker.memory import PUSHED
from mdmfs.worker.opening import Opener
from mdmfs.worker.reading.fetching import MAX_FRUITLESS
from mdmfs.worker.reading.parts import Parts
from tests.twins.hospital import REGISTERED, TwinFile, TwinHospital, unreachable
from tests.twins.octets import octets
from tests.twins.pages import NoPages

BIG = PUSHED + 5 * CHUNK_SIZE + 17
DEADLINE = 30.0
THREAD_SECONDS = 0.03
CUTS = [0, 30, HEADER_SIZE, HEADER_SIZE + 1, HEADER_SIZE + 7 * SEALED_CHUNK_SIZE, 3_000_000, -1]


class Cuts:
    """Cuts the first streams, each where it is told, and lets the others be."""

    def __init__(self, *places: int) -> None:
        self._places = list(places)
        self.on_cut: Callable[[], None] = lambda: None

    def __call__(self, sealed: bytes) -> bytes:
        """Cut one stream."""
        if not self._places:
            return sealed
        self.on_cut()
        return sealed[: self._places.pop(0)]


class Site:
    """A worker that reads one big file."""

    def __init__(self, folder: Path) -> None:
        self.hospital = TwinHospital()
        self.file = self.hospital.add_file("/grid/medical/a/big.dcm", octets(BIG, "big"))
        self.cache = CiphertextCache(folder, 2**30)
        self.opener: Opener

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[Callable[[int, int], Awaitable[bytes]]]:
        """Open for a block, and give what reads."""
        file: TwinFile = self.file
        node = Node("x.dcm", file.inode, NodeKind.FILE, len(file.plaintext), REGISTERED, file.guid.octets)
        opened = await self.opener.open(node)

        async def read(offset: int, length: int) -> bytes:
            return await self.opener.read(opened, offset, length)

        try:
            yield read
        finally:
            self.opener.close(opened)

    async def read_all(self) -> bytes:
        """Open, read everything, close."""
        async with self.reading() as read:
            found = b""
            while piece := await read(len(found), 2**20):
                found += piece
            return found


@pytest.fixture
async def site(tmp_path: Path, nursery: trio.Nursery) -> Site:
    """Make a hospital with one big file, and a worker."""
    site = Site(tmp_path)
    keystores = await site.hospital.open_keystores(nursery)
    await site.cache.load()
    ring = KeyRing(lambda: keystores, deadline=DEADLINE)
    site.opener = Opener(Parts.around(site.hospital, site.cache, ring, NoPages(), nursery), deadline=DEADLINE)
    return site


@pytest.mark.parametrize("cut", CUTS)
async def test_a_stream_that_was_cut_goes_on_where_it_ended(site: Site, cut: int) -> None:
    """With the rest of the same sealing: nothing comes twice."""
    site.hospital.staged = {}
    site.hospital.damage = Cuts(cut)
    assert await site.read_all() == site.file.plaintext
    first, second = site.hospital.beginnings
    assert first is None
    assert (0 if second is None else second.length) == (cut if cut >= 0 else sealed_size(BIG) + cut)


@pytest.mark.parametrize("cut", CUTS)
async def test_a_stream_that_was_cut_begins_anew_where_the_hospital_has_sealed_anew(site: Site, cut: int) -> None:
    """As after its restart: another salt is another object, and no chunk of the first is mixed in."""
    site.hospital.damage = Cuts(cut, cut // 2)
    assert await site.read_all() == site.file.plaintext
    await trio.testing.wait_all_tasks_blocked()
    assert site.cache.used == sealed_size(BIG)


async def test_a_reader_who_waits_for_the_end_gets_it_from_the_second_object(
    site: Site, autojump_clock: trio.testing.MockClock
) -> None:
    """And who reads the beginning again does, too."""
    autojump_clock.autojump_threshold = THREAD_SECONDS
    site.hospital.piece, site.hospital.pause = 2**20, 1.0
    site.hospital.damage = Cuts(3_000_000)
    async with site.reading() as read:
        assert await read(BIG - 9, 100) == site.file.plaintext[-9:]
        assert await read(5, 9) == site.file.plaintext[5:14]


async def test_what_has_come_whole_is_kept_although_its_reader_leaves_while_padding_comes(site: Site) -> None:
    """It would be fetched again for nothing."""
    site.hospital.padding_seconds = float("inf")
    assert await site.read_all() == site.file.plaintext
    await trio.testing.wait_all_tasks_blocked()
    assert site.file.guid in site.cache
    assert await site.read_all() == site.file.plaintext
    assert site.hospital.fetches == 1


@pytest.mark.parametrize("error", [InstanceChangedError, AccessDeniedError, IntegrityError])
async def test_the_second_answer_says_why_a_stream_was_cut(site: Site, error: type[MdmfsError]) -> None:
    """The hospital cuts when it finds that the PACS holds something else; a cut alone would look like an outage."""
    cuts = site.hospital.damage = Cuts(3_000_000)
    cuts.on_cut = lambda: setattr(site.hospital, "refusal", lambda: error("that is why"))
    with pytest.raises(error, match="that is why"):
        await site.read_all()
    assert site.hospital.fetches == 2
    assert site.cache.used == 0


async def test_a_file_taken_away_in_the_middle_is_no_missing_name_to_who_reads_it(site: Site) -> None:
    """A quarantined file has no name any more; its reader gets EIO, since his descriptor is open."""
    cuts = site.hospital.damage = Cuts(3_000_000)
    cuts.on_cut = site.hospital.files.clear
    with pytest.raises(InstanceChangedError):
        await site.read_all()
    assert site.cache.used == 0


async def test_a_hospital_that_restarts_costs_a_reader_some_seconds(
    site: Site, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """It is asked again until it answers."""
    autojump_clock.autojump_threshold = THREAD_SECONDS
    begun = trio.current_time()
    cuts = site.hospital.damage = Cuts(3_000_000)
    cuts.on_cut = lambda: setattr(site.hospital, "failure", unreachable)

    async def start_again() -> None:
        await trio.sleep(10)
        site.hospital.failure = None

    nursery.start_soon(start_again)
    assert await site.read_all() == site.file.plaintext
    assert begun + 10 <= trio.current_time() <= begun + 13


async def test_a_hospital_that_stays_away_is_an_outage_after_the_deadline(
    site: Site, autojump_clock: trio.testing.MockClock
) -> None:
    """Not before, and nothing stays in the cache."""
    autojump_clock.autojump_threshold = THREAD_SECONDS
    begun = trio.current_time()
    cuts = site.hospital.damage = Cuts(3_000_000)
    cuts.on_cut = lambda: setattr(site.hospital, "failure", unreachable)
    with pytest.raises(PeerUnreachableError):
        await site.read_all()
    assert begun + DEADLINE <= trio.current_time() <= begun + DEADLINE + 3
    assert site.cache.used == 0


async def test_a_hospital_that_cuts_every_stream_is_not_asked_for_ever(site: Site) -> None:
    """Answers that bring nothing new are counted."""
    site.hospital.staged = {}
    site.hospital.damage = lambda sealed: sealed[:3_000_000]
    with pytest.raises(PeerUnreachableError):
        await site.read_all()
    assert site.hospital.fetches == 2 + MAX_FRUITLESS - 1


async def test_many_cuts_that_each_bring_something_are_no_failure(site: Site) -> None:
    """A bad network is slow, not dead."""
    site.hospital.staged = {}
    site.hospital.damage = Cuts(*range(500_000, BIG, 500_000))
    assert await site.read_all() == site.file.plaintext


async def test_a_rest_that_is_not_of_the_same_object_is_found_out(site: Site) -> None:
    """A hospital that lies about it, or a cache in between, gives no wrong byte."""
    site.hospital.staged = {}
    cuts = site.hospital.damage = Cuts(3_000_000)

    def swap() -> None:
        assert site.hospital.staged is not None
        sealed = site.hospital.staged[site.file.guid]
        site.hospital.staged[site.file.guid] = sealed[:24] + secrets.token_bytes(len(sealed) - 24)

    cuts.on_cut = swap
    with structlog.testing.capture_logs(), pytest.raises(IntegrityError):
        await site.read_all()


AWAY = DEADLINE + 5
PATIENCE = 2 * DEADLINE


@pytest.fixture
async def patient(site: Site, nursery: trio.Nursery) -> Site:
    """Make the worker one that outlasts a hospital that is away."""
    keystores = await site.hospital.open_keystores(nursery)
    ring = KeyRing(lambda: keystores, deadline=DEADLINE)
    site.opener = Opener(
        Parts.around(site.hospital, site.cache, ring, NoPages(), nursery), deadline=DEADLINE, patience=PATIENCE
    )
    return site


async def test_who_opens_and_who_reads_while_the_hospital_is_away_has_the_whole_deadline_afterwards(
    patient: Site, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """The handle of before is good: nothing has to be opened anew."""
    autojump_clock.autojump_threshold = THREAD_SECONDS
    hospital = patient.hospital
    hospital.has_headers, hospital.recall_seconds = True, DEADLINE - 5
    begun = trio.current_time()

    async def start_again() -> None:
        await trio.sleep(AWAY)
        hospital.failure = None

    async with patient.reading() as read:
        hospital.failure = unreachable
        nursery.start_soon(start_again)
        assert await read(BIG - 9, 100) == patient.file.plaintext[-9:]
        assert await read(BIG // 2, 9) == patient.file.plaintext[BIG // 2 : BIG // 2 + 9]
    assert trio.current_time() >= begun + AWAY + DEADLINE - 5


async def test_a_hospital_that_stays_away_is_an_outage_when_there_is_no_patience_left(
    patient: Site, autojump_clock: trio.testing.MockClock
) -> None:
    """Told as it is, and not as a recall that takes long."""
    autojump_clock.autojump_threshold = THREAD_SECONDS
    patient.hospital.failure = unreachable
    begun = trio.current_time()
    with pytest.raises(PeerUnreachableError):
        await patient.read_all()
    assert begun + PATIENCE <= trio.current_time() <= begun + PATIENCE + 3


async def test_a_hospital_that_is_away_when_a_header_is_asked_for_has_no_file_recalled(
    patient: Site, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Each restart would cost the PACS whole series."""
    autojump_clock.autojump_threshold = THREAD_SECONDS
    patient.hospital.has_headers, patient.hospital.failure = True, unreachable

    async def start_again() -> None:
        await trio.sleep(10)
        patient.hospital.failure = None

    nursery.start_soon(start_again)
    async with patient.reading() as read:
        assert await read(0, 100) == patient.file.plaintext[:100]
    assert patient.hospital.fetches == 0


async def test_a_lapse_does_not_use_up_the_deadline_of_who_waits(
    patient: Site, autojump_clock: trio.testing.MockClock
) -> None:
    """He waits at the lease's pleasure, and then for the PACS."""
    autojump_clock.autojump_threshold = THREAD_SECONDS
    patient.hospital.recall_seconds = DEADLINE / 2
    async with trio.open_nursery() as readers:
        readers.start_soon(patient.read_all)
        await trio.sleep(1)
        patient.opener.suspend()
        await trio.sleep(AWAY)
        patient.opener.resume()


async def test_a_small_object_has_its_place_before_it_is_here_and_leaves_none_if_it_does_not_come(
    site: Site, tmp_path: Path, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """The file is made while the hospital looks for it; who leaves before takes back file and room."""
    autojump_clock.autojump_threshold = THREAD_SECONDS
    site.file = site.hospital.add_file("/grid/medical/a/small.dcm", octets(1000, "small"))
    site.hospital.recall_seconds = 1.0

    async def leave() -> None:
        with trio.move_on_after(0.5):
            await site.read_all()

    nursery.start_soon(leave)
    await trio.sleep(0.25)
    assert len(list((tmp_path / "arriving").iterdir())) == 1
    await trio.sleep(1)
    assert not list((tmp_path / "arriving").iterdir())
    assert site.cache.used == 0
