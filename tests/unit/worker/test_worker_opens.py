"""Opens that the hospital does not see: which are counted, and how they come to be on record there."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
import structlog
import trio
import trio.testing

from mdmfs.model.errors import (
    CredentialExpiredError,
    CredentialRefusedError,
    MdmfsError,
    PeerUnreachableError,
    StoreError,
)
from mdmfs.wire.messages.files import MAX_REPORTED, Changes, Node, NodeKind, OpensReport
from mdmfs.worker.cache.store import CiphertextCache
from mdmfs.worker.keys.ring import KeyRing
from mdmfs.worker.lease import Lease
from mdmfs.worker.namespace.feed import GONE_SECONDS, LOOK_SECONDS, Feed
from mdmfs.worker.namespace.leavers import REST_SECONDS, TRIES
from mdmfs.worker.namespace.names import Namespace
from mdmfs.worker.opening import Opener
from mdmfs.worker.reading.opens import Opens
from mdmfs.worker.reading.parts import Parts
from mdmfs.worker.serving import LAST_WORD_SECONDS
from tests.twins.hospital import REGISTERED, ROOT, TwinFile, TwinHospital, unreachable
from tests.twins.keystores import random_guid
from tests.twins.pages import NoPages


class NoWitness:
    """Remembers nothing."""

    async def forget_names(self, directory: int, names: list[bytes]) -> None:
        """See ``Witness``."""

    def bar(self, inode: int) -> None:
        """See ``Witness``."""

    async def revoke(self, inode: int) -> None:
        """See ``Witness``."""

    def forget_shares(self) -> None:
        """See ``Witness``."""

    async def revoke_all(self) -> None:
        """See ``Witness``."""


async def opener(hospital: TwinHospital, folder: Path, nursery: trio.Nursery) -> Opener:
    """Make a worker without FUSE."""
    keystores = await hospital.open_keystores(nursery)
    cache = CiphertextCache(folder, 2**30)
    await cache.load()
    return Opener(Parts.around(hospital, cache, KeyRing(lambda: keystores, deadline=5), NoPages(), nursery), deadline=5)


def node(file: TwinFile) -> Node:
    """Give a file as a directory lists it."""
    return Node("x.dcm", file.inode, NodeKind.FILE, len(file.plaintext), REGISTERED, file.guid.octets)


def counted(opens: Opens) -> dict[bytes, int]:
    """Take the report."""
    report = opens.report()
    opens.heard(report)
    return {} if report is None else {one.guid: one.count for one in report.opens}


async def test_an_open_counts_unless_the_hospital_was_asked_for_it(tmp_path: Path, nursery: trio.Nursery) -> None:
    """The one that fetched is on record there already; those from the cache, and beside another handle, are not."""
    hospital = TwinHospital()
    [small, large] = [hospital.add_file(f"/grid/medical/a/{size}", bytes(size)) for size in (1000, 5_000_000)]
    worker = await opener(hospital, tmp_path, nursery)
    for file in (small, large):
        first = await worker.open(node(file))
        assert counted(worker.opens) == {}
        await worker.read(first, len(file.plaintext) - 10, 10)
        second = await worker.open(node(file))
        worker.close(first)
        worker.close(second)
        assert counted(worker.opens) == {file.guid.octets: 1}
        for _ in range(3):
            worker.close(await worker.open(node(file)))
        assert counted(worker.opens) == {file.guid.octets: 3}
    assert hospital.fetches == 2


async def test_what_was_fetched_ahead_counts_when_somebody_opens_it(tmp_path: Path, nursery: trio.Nursery) -> None:
    """Ahead of a program is not by one."""
    hospital = TwinHospital()
    file = hospital.add_file("/grid/medical/a/1", bytes(1000))
    worker = await opener(hospital, tmp_path, nursery)
    await worker.prefetch([node(file)])
    assert counted(worker.opens) == {}
    worker.close(await worker.open(node(file)))
    assert counted(worker.opens) == {file.guid.octets: 1}


async def test_a_header_counts_where_it_came_along_with_another(tmp_path: Path, nursery: trio.Nursery) -> None:
    """And the body that is fetched later for the same open is no open of its own."""
    hospital = TwinHospital()
    hospital.has_headers = True
    first, second = (hospital.add_file(f"/grid/medical/a/{number}", bytes(100_000)) for number in (1, 2))
    worker = await opener(hospital, tmp_path, nursery)
    opened = await worker.open(node(first), [node(second)])
    assert counted(worker.opens) == {}
    worker.close(await worker.open(node(second)))
    assert counted(worker.opens) == {second.guid.octets: 1}
    await worker.read(opened, 50_000, 10)
    assert counted(worker.opens) == {}
    worker.close(opened)
    worker.close(await worker.open(node(first)))
    assert counted(worker.opens) == {first.guid.octets: 1}


async def test_a_refused_open_does_not_count(tmp_path: Path, nursery: trio.Nursery) -> None:
    """Nothing was opened."""
    hospital = TwinHospital()
    file = hospital.add_file("/grid/medical/a/1", bytes(1000))
    worker = await opener(hospital, tmp_path, nursery)
    hospital.refusal = unreachable
    with pytest.raises(PeerUnreachableError):
        await worker.open(node(file))
    assert counted(worker.opens) == {}


def test_a_report_is_the_same_until_it_was_heard_and_bounded() -> None:
    """So a lost answer counts nothing twice; what comes meanwhile goes into the next one."""
    opens, guids = Opens(), [random_guid() for _ in range(MAX_REPORTED + 1)]
    assert opens.report() is None
    for guid in guids:
        opens.note(guid)
    report = opens.report()
    assert report is not None
    assert len(report.opens) == MAX_REPORTED
    opens.note(guids[0])
    assert opens.report() is report
    opens.heard(report)
    following = opens.report()
    assert following is not None
    assert following.number > report.number
    assert {one.guid for one in following.opens} == {guids[-1].octets, guids[0].octets}


class Leaver:
    """The hospital as somebody knows it who has left."""

    def __init__(self, hospital: TwinHospital) -> None:
        self.hospital = hospital
        self.refusal: MdmfsError | None = None
        self.asked = 0
        self.reports: list[OpensReport] = []
        self.is_closed = False

    async def changes(
        self, since: int, wait: float, report: OpensReport | None = None, groups: Sequence[str] = ()
    ) -> Changes:
        """See ``Told``."""
        self.asked += 1
        if self.refusal is not None:
            raise self.refusal
        told = await self.hospital.changes(since, wait, None, groups)
        self.reports += [] if report is None else [report]
        return told

    async def aclose(self) -> None:
        """See ``Leaver``."""
        self.is_closed = True


class Silent(Leaver):
    """A hospital that answers him no more."""

    async def changes(self, *told: object) -> Changes:
        """Wait."""
        del told
        await trio.sleep_forever()
        raise AssertionError

    async def give_back(self) -> None:
        """Wait."""
        await trio.sleep_forever()


@pytest.mark.parametrize("is_refused", [False, True])
async def test_each_report_goes_under_who_opened(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, *, is_refused: bool
) -> None:
    """What one has opened is nobody else's, though the hospital was away as he left; and no number is told twice."""
    hospital, opens, guids = TwinHospital(), Opens(), [random_guid() for _ in range(MAX_REPORTED + 1)]
    hospital.lease = 30.0
    feed = Feed(hospital, Namespace(hospital, ROOT), NoWitness(), Lease(trio.current_time), opens)
    nursery.start_soon(feed.follow)
    await trio.sleep(1)
    hospital.failure = unreachable
    for guid in guids:
        opens.note(guid)
    await trio.sleep(20)
    leaver = Leaver(hospital)
    feed.note_leaving(leaver)
    opens.note(guids[0])
    await trio.sleep(20)
    assert not leaver.is_closed
    hospital.failure = None
    leaver.refusal = CredentialExpiredError("he is nobody any more") if is_refused else None
    await trio.sleep(60)
    assert leaver.is_closed
    assert [len(report.opens) for report in leaver.reports] == ([] if is_refused else [MAX_REPORTED, 1])
    assert [len(report.opens) for report in hospital.reports] == [1]
    numbers = [report.number for report in (*leaver.reports, *hospital.reports)]
    assert numbers == sorted(set(numbers))


async def test_a_leaver_whom_nothing_answers_is_given_up_while_the_hospital_answers_others(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """It has moved, and only those heard of it who came later: what they open is reported meanwhile."""
    hospital, opens, leaver = TwinHospital(), Opens(), Leaver(TwinHospital())
    hospital.lease, leaver.refusal = 30.0, unreachable()
    feed = Feed(hospital, Namespace(hospital, ROOT), NoWitness(), Lease(trio.current_time), opens)
    nursery.start_soon(feed.follow)

    async def have_news(seconds: float) -> None:
        end = trio.current_time() + seconds
        while trio.current_time() < end:
            hospital.note([], [])
            await trio.sleep(2)

    for _ in range(2):
        opens.note(random_guid())
    feed.note_leaving(leaver)
    opens.note(random_guid())
    patience = TRIES * REST_SECONDS
    await have_news(patience / 2)
    hospital.failure = unreachable
    await trio.sleep(patience)
    hospital.failure = None
    await have_news(patience / 4)
    assert not leaver.is_closed
    assert [len(report.opens) for report in hospital.reports] == [1]
    with structlog.testing.capture_logs() as logs:
        await have_news(patience / 2)
    assert leaver.is_closed
    assert [one["files"] for one in logs] == [2]
    assert leaver.asked <= 3 * TRIES


async def test_what_a_hospital_has_no_room_for_is_reported_once_it_has(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """On a full disk it answers others, who report nothing, for as long as nobody makes room; a leaver, too."""
    hospital, opens, leaver = TwinHospital(), Opens(), Leaver(TwinHospital())
    hospital.lease, leaver.refusal = 5.0, StoreError("the audit log cannot be written")
    feed = Feed(hospital, Namespace(hospital, ROOT), NoWitness(), Lease(trio.current_time), opens)
    nursery.start_soon(feed.follow)
    opens.note(random_guid())
    feed.note_leaving(leaver)
    await trio.sleep(2 * TRIES * REST_SECONDS)
    assert leaver.asked > TRIES
    leaver.refusal = None
    await trio.sleep(REST_SECONDS)
    assert [len(report.opens) for report in leaver.reports] == [1]
    assert leaver.is_closed


async def test_a_leaver_whom_nothing_answers_keeps_up_nobody(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, faults: list[str]
) -> None:
    """Neither news nor the lease, nor those who left after him, nor the last word; nor does a fault end the mount."""

    class Faulty(Leaver):
        async def changes(self, *told: object) -> Changes:
            del told
            message = "a fault of the program"
            raise ZeroDivisionError(message)

    hospital, opens, lease = TwinHospital(), Opens(), Lease(trio.current_time)
    hospital.lease = 30.0
    feed = Feed(hospital, Namespace(hospital, ROOT), NoWitness(), lease, opens)
    nursery.start_soon(feed.follow)
    silent, faulty, last = Silent(hospital), Faulty(hospital), Leaver(hospital)
    for leaver in (silent, faulty):
        opens.note(random_guid())
        feed.note_leaving(leaver)
    await trio.sleep(5 * hospital.lease)
    assert lease.is_held
    assert faulty.is_closed
    opens.note(random_guid())
    feed.note_leaving(last)
    await trio.sleep(1)
    assert last.is_closed
    opens.note(random_guid())
    with trio.move_on_after(1):
        await feed.tell_last(None)
    assert [len(report.opens) for report in hospital.reports] == [1]
    assert not silent.is_closed
    faults.clear()


@pytest.mark.parametrize("has_follower", [False, True])
async def test_the_last_word_is_his_whose_credential_goes_just_before_it(
    autojump_clock: trio.testing.MockClock, *, has_follower: bool
) -> None:
    """A job ends with its proxy and then its mount, or somebody else's is there: nobody has looked at it in between.

    Nor does he have to wait for one who left before him, and whom nothing answers.
    """
    leaver = Leaver(TwinHospital())

    class Leaving(TwinHospital):
        async def changes(
            self, since: int, wait: float, report: OpensReport | None = None, groups: Sequence[str] = ()
        ) -> Changes:
            del report  # is no longer told, whoever asks now
            await trio.sleep(0.1)
            feed.note_leaving(leaver)
            if has_follower:
                return await super().changes(since, wait, None, groups)
            message = "there is no proxy any more"
            raise CredentialRefusedError(message)

    hospital, opens = Leaving(), Opens()
    feed = Feed(hospital, Namespace(hospital, ROOT), NoWitness(), Lease(trio.current_time), opens)
    opens.note(random_guid())
    feed.note_leaving(Silent(hospital))
    opens.note(random_guid())
    with trio.move_on_after(LAST_WORD_SECONDS):
        await feed.tell_last(None)
    assert [len(report.opens) for report in leaver.reports] == [1]
    assert leaver.is_closed


@dataclasses.dataclass
class Ending:
    """A mount that has a lease, and has opened something since its last question."""

    hospital: TwinHospital
    opens: Opens
    lease: Lease
    feed: Feed
    is_gone: bool = True
    """Whether the kernel has nothing of the mount any more."""

    async def tell_last(self) -> None:
        """End as a mount does."""
        with trio.move_on_after(LAST_WORD_SECONDS):
            await self.feed.tell_last(lambda: self.is_gone)


def mount_about_to_end(clock: trio.testing.MockClock) -> Ending:
    """Make it."""
    clock.autojump_threshold = 0
    hospital, opens, lease = TwinHospital(), Opens(), Lease(trio.current_time)
    lease.grant(trio.current_time(), 60.0)
    opens.note(random_guid())
    return Ending(hospital, opens, lease, Feed(hospital, Namespace(hospital, ROOT), NoWitness(), lease, opens))


async def test_a_mount_that_has_ended_gives_its_lease_back_after_its_last_report(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """And serves nothing under it, nor under one that comes late."""
    ending = mount_about_to_end(autojump_clock)
    await ending.tell_last()
    assert ending.hospital.given_back == [1]
    assert not ending.lease.is_held
    ending.lease.grant(trio.current_time(), 60.0)
    assert not ending.lease.is_held
    await ending.tell_last()
    assert ending.hospital.given_back == [1]


@pytest.mark.parametrize("forgets_after", [0.5, 30.0])
async def test_the_lease_stays_while_the_kernel_has_anything_of_the_mount(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, forgets_after: float
) -> None:
    """Whoever has a file open reads on; where pages only need a moment to go, that is waited for."""
    ending = mount_about_to_end(autojump_clock)
    ending.is_gone = False

    async def forget() -> None:
        await trio.sleep(forgets_after)
        assert ending.hospital.given_back == []
        ending.is_gone = True

    nursery.start_soon(forget)
    begun = trio.current_time()
    await ending.tell_last()
    assert len(ending.hospital.reports) == 1
    assert ending.hospital.given_back == ([1] if forgets_after < GONE_SECONDS else [])
    assert trio.current_time() - begun <= LAST_WORD_SECONDS


async def test_without_its_last_report_on_record_a_mount_keeps_its_lease(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The hospital has no room for it: who waits for that mount is to know that something is missing."""
    ending = mount_about_to_end(autojump_clock)
    ending.hospital.failure = lambda: StoreError("the audit log cannot be written")
    await ending.tell_last()
    ending.hospital.failure = None
    assert ending.hospital.given_back == []
    assert ending.lease.is_held


async def test_a_hospital_that_hangs_or_has_gone_holds_up_no_end(autojump_clock: trio.testing.MockClock) -> None:
    """Its lease ends there by itself; here it has ended."""
    ending = mount_about_to_end(autojump_clock)

    ending.opens.heard(ending.opens.report())
    ending.hospital.failure = unreachable
    await ending.tell_last()
    other = Lease(trio.current_time)
    other.grant(trio.current_time(), 60.0)
    silent = Silent(TwinHospital())
    feed = Feed(silent, Namespace(ending.hospital, ROOT), NoWitness(), other)
    begun = trio.current_time()
    with trio.move_on_after(LAST_WORD_SECONDS):
        await feed.tell_last(lambda: True)
    assert trio.current_time() - begun == LAST_WORD_SECONDS
    assert [lease.is_held for lease in (ending.lease, other)] == [False, False]
    assert ending.hospital.given_back == []


async def test_a_leaver_whom_nothing_answers_does_not_keep_his_followers_lease(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """All of the time for last words would go to him."""
    ending = mount_about_to_end(autojump_clock)
    ending.feed.note_leaving(Silent(ending.hospital))
    await ending.tell_last()
    assert ending.hospital.given_back == [0]


async def test_who_never_had_a_lease_has_none_to_give_back(autojump_clock: trio.testing.MockClock) -> None:
    """Nor who was refused, or let it lapse: it has ended at the hospital, too."""
    hospital, refused, lapsed = TwinHospital(), Lease(trio.current_time), Lease(trio.current_time)
    for lease in (refused, lapsed):
        lease.grant(trio.current_time(), 60.0)
    refused.refuse(CredentialExpiredError("make a new proxy"))
    await trio.sleep(61)
    for lease in (Lease(trio.current_time), refused, lapsed):
        await Feed(hospital, Namespace(hospital, ROOT), NoWitness(), lease).tell_last(lambda: True)
    assert hospital.given_back == []


async def test_what_a_leaver_has_opened_is_told_once_whoever_asks_meanwhile(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """The last word may come while the feed is at it."""

    class Slow(Leaver):
        async def changes(
            self, since: int, wait: float, report: OpensReport | None = None, groups: Sequence[str] = ()
        ) -> Changes:
            await trio.sleep(1)
            return await super().changes(since, wait, report, groups)

    hospital, opens = TwinHospital(), Opens()
    feed = Feed(hospital, Namespace(hospital, ROOT), NoWitness(), Lease(trio.current_time), opens)
    leaver = Slow(hospital)
    nursery.start_soon(feed.follow)
    opens.note(random_guid())
    feed.note_leaving(leaver)
    await trio.sleep(0.5)
    await feed.tell_last(None)
    assert leaver.is_closed
    assert len(leaver.reports) == 1


async def test_who_was_refused_asks_again_as_soon_as_he_has_another_credential(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, faults: list[str]
) -> None:
    """Whoever reads there gets EACCES until then. A look that fails as no program should ends no mount."""
    hospital, lease, is_right = TwinHospital(), Lease(trio.current_time), False

    def look() -> bool:
        if trio.current_time() < 2 * LOOK_SECONDS:
            message = "a fault of the program"
            raise ZeroDivisionError(message)
        is_other = is_right and hospital.failure is not None
        if is_other:
            hospital.failure = None
        return is_other

    def refusing() -> MdmfsError:
        return CredentialExpiredError("make a new proxy")

    hospital.failure = refusing
    feed = Feed(hospital, Namespace(hospital, ROOT), NoWitness(), lease, look=look)
    nursery.start_soon(feed.follow)
    await trio.sleep(30.5)
    is_right = True
    await trio.sleep(LOOK_SECONDS)
    assert lease.is_held
    assert faults
    faults.clear()


def test_opens_for_which_there_is_no_room_are_told_of_in_the_log() -> None:
    """They stand in no audit log, and somebody has to know that."""
    opens = Opens(room=2)
    for _ in range(3):
        opens.note(random_guid())
    with structlog.testing.capture_logs() as logs:
        report = opens.report()
        assert report is not None
        assert len(report.opens) == 2
        opens.heard(report)
        assert opens.report() is None
    assert [one["opens"] for one in logs] == [1]


async def test_more_opens_than_one_report_names_do_not_wait_for_a_renewal_each(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """A scan of what is at hand goes faster than leases are renewed."""
    hospital, opens = TwinHospital(), Opens()
    hospital.lease = 30.0
    feed = Feed(hospital, Namespace(hospital, ROOT), NoWitness(), Lease(trio.current_time), opens)
    for _ in range(3 * MAX_REPORTED):
        opens.note(random_guid())
    nursery.start_soon(feed.follow)
    await trio.sleep(1)
    assert len(hospital.reports) == 3


async def test_opens_go_with_the_next_renewal_and_again_after_an_outage(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Nothing is lost by a hospital that does not answer, and the last word is told at the end."""
    hospital, opens = TwinHospital(), Opens()
    hospital.lease = 30.0
    lease = Lease(trio.current_time)
    feed = Feed(hospital, Namespace(hospital, ROOT), NoWitness(), lease, opens)
    nursery.start_soon(feed.follow)
    await trio.sleep(1)
    guid = random_guid()
    opens.note(guid)
    hospital.failure = unreachable
    await trio.sleep(60)
    assert hospital.reports == []
    hospital.failure = None
    await trio.sleep(30)
    assert [[one.count for one in report.opens] for report in hospital.reports] == [[1]]
    opens.note(guid)
    await feed.tell_last(None)
    assert len(hospital.reports) == 2
