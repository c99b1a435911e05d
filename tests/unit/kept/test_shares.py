"""Shares that recalls collect: siblings come along from the second open on, are held for seconds and used once."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from mdmfs.hospital.catalogue.records import FileRecord
from mdmfs.hospital.kept.escrow import NewKey, key_check, make_key
from mdmfs.hospital.kept.shares import HOLD_SECONDS, MAX_HELD, Shares
from mdmfs.hospital.kept.strides import FEWEST, IDLE_SECONDS, LONGEST_STRIDE, MOST, Strides
from mdmfs.hospital.release.release import release
from mdmfs.hospital.store import Transaction
from mdmfs.model.errors import TooFewSharesError
from mdmfs.model.names import Guid
from mdmfs.wire.keystores.answers import Answers
from mdmfs.wire.keystores.keystores import Keystores
from mdmfs.wire.messages.key_tasks import KeyTask
from mdmfs.wire.messages.keystores import COLLECT_PATH, Collected, KeyEntry, Outcome
from tests.twins.clinic import READER, OpenClinic
from tests.twins.key_tasks import clinic_with, done
from tests.twins.keystores import HOSPITAL, TwinKeystore, principal, unreachable
from tests.twins.records import OWNER_ONLY, SERIES_LFN, guid_of, new_file
from tests.twins.store import MemoryStore

NAMES = ("k1", "k2", "k3")
THRESHOLD = 2
FILES = 200
Files = Sequence[FileRecord]


@dataclasses.dataclass
class Site:
    """A series of files in the order of its directory, their keys at three keystores, and who collects them."""

    store: MemoryStore
    twins: dict[str, TwinKeystore]
    keystores: Keystores
    shares: Shares

    @property
    def files(self) -> list[FileRecord]:
        """Give the files as they are registered now."""

        def read(tx: Transaction) -> list[FileRecord]:
            found = [tx.catalogue.file(guid_of(number)) for number in range(FILES)]
            return [file for file in found if file is not None]

        return self.store.read(read)

    @property
    def asked(self) -> int:
        """Count the questions that keystores got."""
        return sum(twin.paths.count(COLLECT_PATH) for twin in self.twins.values())

    async def open(self, *files: FileRecord, is_alone: bool = True) -> int:
        """Collect keys as a recall does, each proven by its check; give how many keystores were asked for it."""
        before = self.asked
        deadline = trio.current_time() + 10
        async with self.shares.collecting(files, deadline=deadline, is_alone=is_alone) as collection:
            for file in files:
                (await collection.key(file)).close()
        return self.asked - before

    def held(self, files: Files) -> list[int]:
        """Give the places of files of which shares are held."""
        return [place for place, file in enumerate(files) if self.shares.holds(file.guid)]

    async def deposit(self, *keys: NewKey) -> None:
        """Bring shares to their keystores."""
        for name in NAMES:
            entries = [KeyEntry(key.shares[name], []) for key in keys]
            outcomes = await self.keystores.register(name, entries, deadline=trio.current_time() + 10)
            assert set(outcomes) == {Outcome.DONE}

    async def rotate(self, file: FileRecord) -> FileRecord:
        """Give a file a new key, at the keystores and in the store."""
        key = make_key(file.guid, NAMES, THRESHOLD, file.generation + 1)
        await self.deposit(key)
        renewed = msgspec.structs.replace(file, generation=key.generation, key_check=key.check)
        await self.store.write(lambda tx: tx.catalogue.replace(renewed))
        return renewed


@pytest.fixture
async def site(nursery: trio.Nursery, autojump_clock: MockClock) -> Site:
    """Register a series whose files lie in the order of their numbers."""
    assert autojump_clock.current_time() >= 0
    store, twins = MemoryStore(), {name: TwinKeystore() for name in NAMES}
    clients = {name: twin.as_seen_by(principal(HOSPITAL)) for name, twin in twins.items()}
    keystores = Keystores(clients, nursery)
    shares = Shares(keystores, Strides(store))
    nursery.start_soon(shares.run)
    keys = [make_key(guid_of(number), NAMES, THRESHOLD) for number in range(FILES)]

    def register(tx: Transaction) -> None:
        tx.catalogue.make_directories(SERIES_LFN, acl=OWNER_ONLY)
        for number, key in enumerate(keys):
            file = msgspec.structs.replace(new_file(number), key_check=key.check, threshold=THRESHOLD)
            tx.catalogue.add_file(SERIES_LFN / f"{number:04}.dcm", file)
        tx.catalogue.show([key.guid for key in keys])

    await store.write(register)
    opened = Site(store, twins, keystores, shares)
    await opened.deposit(*keys)
    return opened


# Which come along


async def test_of_a_file_that_is_opened_by_itself_only_its_own_shares_are_asked_for(site: Site) -> None:
    """Nobody knows what comes next."""
    files = site.files
    assert await site.open(files[3]) == THRESHOLD
    assert site.held(files) == []


@pytest.mark.parametrize("stride", [1, 7])
async def test_from_the_second_open_on_those_that_come_next_are_asked_for_along(site: Site, stride: int) -> None:
    """In the reader's steps; they are used up without a question, and each question then brings more, to a bound."""
    walk = site.files[::stride]
    assert [await site.open(file) for file in walk[:2]] == [THRESHOLD, THRESHOLD]
    assert site.held(walk) == list(range(2, 2 + FEWEST))
    assert {await site.open(file) for file in walk[2 : 2 + FEWEST]} == {0}
    assert len(site.held(site.files)) == 0
    if stride == 1:
        asked = [await site.open(file) for file in walk[2 + FEWEST : 150]]
        questions = [place for place, count in enumerate(asked) if count]
        assert {count for count in asked if count} == {THRESHOLD}
        assert [after - before - 1 for before, after in itertools.pairwise(questions)][:3] == [
            15,
            MOST,
            MOST,
        ]


@pytest.mark.parametrize("second", [49, 50, 50 + LONGEST_STRIDE + 1])
async def test_who_goes_back_or_far_ahead_or_stays_follows_no_order(site: Site, second: int) -> None:
    """Each open asks for its own shares."""
    files = site.files
    assert [await site.open(files[place]) for place in (50, second)] == [THRESHOLD, THRESHOLD]
    assert site.held(files) == []


async def test_who_pauses_begins_anew(site: Site, autojump_clock: MockClock) -> None:
    """The second open is a first one."""
    files = site.files
    await site.open(files[0])
    autojump_clock.jump(IDLE_SECONDS)
    await site.open(files[1])
    assert site.held(files) == []


async def test_the_end_of_a_directory_is_the_end(site: Site) -> None:
    """Fewer are left than would be asked for."""
    files = site.files
    for file in files[-4:-2]:
        await site.open(file)
    assert site.held(files) == [FILES - 2, FILES - 1]


async def test_many_directories_are_gone_through_at_once_and_those_left_first_are_forgotten(site: Site) -> None:
    """The last hundred of them are not all remembered, and the newest is."""
    files = [
        msgspec.structs.replace(file, places=(msgspec.structs.replace(file.places[0], parent=1000 + number),))
        for number, file in enumerate(site.files[:100])
    ]
    await site.open(site.files[100])
    for file in files:
        await site.open(file)
    await site.open(site.files[101])
    assert site.held(site.files) == []
    await site.open(site.files[102])
    assert site.held(site.files) == list(range(103, 103 + FEWEST))


async def test_a_directory_that_was_hidden_meanwhile_and_a_file_without_a_name_have_nothing_next(site: Site) -> None:
    """And what was asked for is collected."""
    files = site.files
    await site.store.write(lambda tx: tx.catalogue.quarantine([file.guid for file in files]))
    nameless = msgspec.structs.replace(files[2], places=())
    assert [await site.open(file) for file in (files[0], files[1], nameless)] == [THRESHOLD] * 3
    assert site.held(files) == []


async def test_a_batch_asks_for_nothing_along_and_uses_what_is_held(site: Site) -> None:
    """Siblings that wait together need no guess."""
    files = site.files
    for file in files[:2]:
        await site.open(file)
    assert await site.open(*files[2 : 2 + FEWEST], is_alone=False) == 0
    assert await site.open(*files[10:20], is_alone=False) == THRESHOLD
    assert site.held(files) == []


# How long


async def test_what_came_along_is_dropped_after_some_seconds_and_asked_for_anew(
    site: Site, autojump_clock: MockClock
) -> None:
    """It is gone from memory although nobody comes, and what comes along later is held as long."""
    files = site.files
    for _ in range(2):
        for file in files[:2]:
            await site.open(file)
        assert site.held(files)
        await trio.sleep(HOLD_SECONDS + 0.001)
        assert site.held(files) == []
        assert await site.open(files[2]) == THRESHOLD
        autojump_clock.jump(IDLE_SECONDS)


async def test_what_was_held_too_long_is_not_used_though_nobody_has_dropped_it_yet(
    site: Site, autojump_clock: MockClock
) -> None:
    """The clock decides, not who comes first."""
    files = site.files
    for file in files[:2]:
        await site.open(file)
    autojump_clock.jump(HOLD_SECONDS)
    assert await site.open(files[2]) == THRESHOLD


async def test_what_is_held_is_not_asked_for_again_and_not_held_longer_for_it(
    site: Site, autojump_clock: MockClock
) -> None:
    """Two who go the same way one after the other."""
    files = site.files
    for file in files[:2]:
        await site.open(file)
    autojump_clock.jump(HOLD_SECONDS / 2)
    for file in files[:2]:
        await site.open(file)
    await trio.sleep(HOLD_SECONDS / 2 + 0.001)
    assert site.held(files) == []


async def test_what_is_held_serves_once(site: Site) -> None:
    """A second recall of the same file asks."""
    files = site.files
    for file in files[:2]:
        await site.open(file)
    assert [await site.open(files[2]) for _ in range(2)] == [0, THRESHOLD]


async def test_so_many_are_held_and_no_more(site: Site) -> None:
    """Those asked for first make room."""
    files, few = site.files, Shares(site.keystores, Strides(site.store), most=10)
    for file in [*files[:2], *files[100:102]]:
        async with few.collecting([file], deadline=trio.current_time() + 10, is_alone=True) as collection:
            (await collection.key(file)).close()
    assert sum(few.holds(file.guid) for file in files) == 10 < MAX_HELD


# What changes meanwhile


@contextlib.asynccontextmanager
async def opening_second(site: Site) -> AsyncIterator[None]:
    """Open a first file, and be in the midst of the second: its shares and those along with it are on their way."""
    await site.open(site.files[0])
    for twin in site.twins.values():
        twin.delay = 0.01
    async with trio.open_nursery() as nursery:
        nursery.start_soon(site.open, site.files[1])
        await wait_all_tasks_blocked()
        yield


async def test_what_is_dropped_is_not_held_even_where_it_is_still_on_its_way(site: Site) -> None:
    """As for a file that is taken away while the keystores are asked."""
    files = site.files
    async with opening_second(site):
        site.shares.drop(files[3].guid)
    assert site.held(files) == [place for place in range(2, 2 + FEWEST) if place != 3]
    site.shares.drop(files[4].guid)
    assert await site.open(files[4]) == THRESHOLD


async def test_what_has_not_come_yet_does_not_hold_up_who_needs_it(site: Site) -> None:
    """He asks for himself."""
    files = site.files
    async with opening_second(site):
        assert await site.open(files[2]) == THRESHOLD


async def test_a_key_that_was_renewed_between_collecting_and_use_is_collected_anew(site: Site) -> None:
    """The shares held make the old one; nobody has lied."""
    files = site.files
    for file in files[:2]:
        await site.open(file)
    renewed = await site.rotate(files[2])
    async with site.shares.collecting([renewed], deadline=trio.current_time() + 10, is_alone=True) as collection:
        with await collection.key(renewed) as key:
            assert key_check(key.octets, renewed.guid, renewed.generation) == renewed.key_check
    assert not site.keystores.lies


# Keystores that fail


@pytest.mark.parametrize("dead", NAMES)
async def test_a_dead_keystore_costs_no_open(site: Site, dead: str) -> None:
    """What did not come along is asked for when it is needed, and not of the others before."""
    files = site.files
    await site.open(files[0])
    site.twins[dead].failure = unreachable
    for file in files[1:40]:
        await site.open(file)


async def test_for_what_nobody_has_opened_no_other_keystore_is_asked(site: Site) -> None:
    """One that lacks the shares of siblings, and has that of the file."""
    files = site.files
    await site.open(files[0])
    for twin in site.twins.values():
        for file in files[2:]:
            del twin.shelf.page.keys[file.guid]
    assert await site.open(files[1]) == THRESHOLD
    with pytest.raises(TooFewSharesError):
        await site.open(files[2])


async def test_a_keystore_that_lied_about_what_it_gave_along_is_found_out_at_use(site: Site) -> None:
    """The key is the right one, by its check, and the liar is named."""
    files = site.files
    await site.open(files[0])
    liar = site.twins["k2"]
    liar.lie = lambda told: Collected(told.outcomes, [share[:-1] + bytes([share[-1] ^ 1]) for share in told.shares])
    await site.open(files[1])
    liar.lie = None
    assert site.held(files)
    for file in files[2 : 2 + FEWEST]:
        await site.open(file)
    assert site.keystores.lies.keys() <= {"k2"}


# In a hospital


async def cold(hospital: OpenClinic, guid: Guid) -> int:
    """Let a file out that is not staged, check that its reader can read it; give how many keystores recalling asked."""
    hospital.hospital.staging.discard(guid)
    twins = hospital.clinic.keystores.values()
    before = sum(twin.paths.count(COLLECT_PATH) for twin in twins)
    await release(READER, guid, hospital.hospital, hospital.recalls, address="192.0.2.7")
    asked = sum(twin.paths.count(COLLECT_PATH) for twin in twins) - before
    assert await hospital.read(guid)
    return asked


async def test_single_recalls_in_order_seldom_ask_keystores_and_are_sealed_under_the_right_keys(tmp_path: Path) -> None:
    """Each is in the audit log all the same."""
    async with clinic_with(tmp_path, 12) as opened:
        guids = list(opened.files().values())
        assert [await cold(opened, guid) for guid in guids[::2]] == [THRESHOLD, THRESHOLD, 0, 0, 0, 0]
        released = [record["guid"] for record in opened.audited() if record["event"] == "release"]
        assert list(dict.fromkeys(released)) == [str(guid) for guid in guids[::2]]


@pytest.mark.parametrize("task", [KeyTask.ROTATE, KeyTask.DESTROY])
async def test_nothing_is_held_of_a_file_whose_key_is_renewed_or_destroyed(tmp_path: Path, task: KeyTask) -> None:
    """Not even for the seconds that it would be; a renewed one is collected anew."""
    async with clinic_with(tmp_path, 6) as opened:
        guids = list(opened.files().values())
        for guid in guids[:2]:
            await cold(opened, guid)
        assert opened.hospital.shares.holds(guids[2])
        await done(opened, task, guids[2:3])
        assert not opened.hospital.shares.holds(guids[2])
        assert opened.hospital.shares.holds(guids[3])
        if task is KeyTask.ROTATE:
            assert await cold(opened, guids[2]) >= THRESHOLD


async def test_what_was_used_or_did_not_suffice_does_not_outlive_that_where_it_was_asked_for(site: Site) -> None:
    """Though that recall goes on; who lacked some asks for his own file alone, and gets its key."""
    files = site.files
    await site.open(files[0])
    del site.twins["k2"].shelf.page.keys[files[2].guid]
    async with site.shares.collecting([files[1]], deadline=trio.current_time() + 600, is_alone=True) as asking:
        (await asking.key(files[1])).close()
        await wait_all_tasks_blocked()
        gathering = asking._gathering  # noqa: SLF001 what is in memory, and nobody gives out
        assert gathering is not None
        answers = [gathering.answers[files[place].guid] for place in (2, 3, 4)]
        assert [len(it.shares) for it in answers] == [1, THRESHOLD, THRESHOLD]
        assert await site.open(files[2]) == THRESHOLD
        assert await site.open(files[3]) == 0
        assert [bool(it.shares) for it in answers] == [False, False, True]
        site.shares.drop(files[4].guid)
        assert await site.open(files[4]) == THRESHOLD
        assert not answers[2].shares


async def test_what_is_held_no_longer_is_forgotten_by_whoever_has_asked_for_it_too(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recall from tape asks for shares, and then lasts for minutes."""
    forgotten: list[Guid] = []
    monkeypatch.setattr(Answers, "forget", lambda answers: forgotten.append(answers.guid))
    files = site.files
    await site.open(files[0])
    await site.open(files[1])
    site.shares.drop(files[2].guid)
    assert forgotten == [files[2].guid]
    await trio.sleep(HOLD_SECONDS + 1)
    assert sorted(forgotten) == sorted(file.guid for file in files[2 : 2 + FEWEST])
