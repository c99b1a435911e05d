"""What every store of the hospital promises: transactions, subjects, the UID map and the ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import msgspec
import pytest
import trio

from mdmfs.hospital.ledger.records import (
    BEGINNING,
    Epoch,
    KeyChangeKind,
    LossCause,
    LossRecord,
    Notice,
    OutboxSize,
    QuarantineRecord,
    SeriesState,
)
from mdmfs.hospital.ledger.replicas import Replica, ReplicaState
from mdmfs.hospital.pages import pages_of_quarantine, pages_of_series, pages_of_subjects
from mdmfs.hospital.store import Store, Transaction
from mdmfs.hospital.uidmap.records import SeriesKey
from mdmfs.model.errors import StoreError
from tests.twins.records import NOW, guid_of, instance_of, quarantined, series_record, subject_of, subject_row

SERIES = instance_of(1).series


@pytest.fixture
async def store(open_store: Callable[[], Store]) -> AsyncIterator[Store]:
    """Each store in turn, empty."""
    opened = open_store()
    yield opened
    await opened.aclose()


class TurnedBackError(Exception):
    """Raised inside acts."""


def push(tx: Transaction, payload: bytes, destination: str = "key1") -> int:
    """Write something small."""
    return tx.outbox.push(destination, "shares", SERIES.octets(), payload)


def payloads(store: Store, destination: str = "key1") -> list[bytes]:
    """Read it back."""
    return [item.payload for item in store.read(lambda tx: tx.outbox.peek(destination, limit=10_000))]


# Transactions


async def test_a_write_gives_what_its_act_gives_and_a_read_sees_it(store: Store) -> None:
    """The answer comes once the change is there for everybody."""
    assert await store.write(lambda tx: push(tx, b"one")) == 1
    assert payloads(store) == [b"one"]


async def test_the_version_rises_with_every_commit_and_with_nothing_else(store: Store) -> None:
    """Who decided at a version need not decide again while it stays."""
    before = store.version()
    assert payloads(store) == []
    assert store.version() == before
    await store.write(lambda tx: push(tx, b"one"))
    assert store.version() > before


async def test_an_exception_undoes_the_whole_act(store: Store) -> None:
    """Nothing of five views stays, and the exception comes out as it is."""

    def act(tx: Transaction) -> None:
        tx.subjects.admit("neuro", "AMC", "1", lambda: subject_row(1, "1"))
        tx.uidmap.tie(guid_of(1), instance_of(1))
        tx.series.put(series_record(1))
        tx.quarantine.put(quarantined(1))
        push(tx, b"half")
        raise TurnedBackError

    with pytest.raises(TurnedBackError):
        await store.write(act)
    assert store.read(lambda tx: tx.subjects.find("neuro", "AMC", "1")) is None
    assert store.read(lambda tx: tx.uidmap.resolve(guid_of(1))) is None
    assert store.read(lambda tx: tx.series.all()) == []
    assert store.read(lambda tx: tx.quarantine.all("neuro")) == []
    assert store.read(lambda tx: tx.outbox.size()) == OutboxSize(0, 0)


async def test_acts_called_together_run_one_by_one_and_fail_alone(store: Store) -> None:
    """Of 200 concurrent acts each third fails; the others are all there, and numbers were not given twice."""
    failed: list[int] = []

    def act(tx: Transaction, number: int) -> None:
        push(tx, b"%d" % number)
        if number % 3 == 0:
            raise TurnedBackError

    async def call(number: int) -> None:
        try:
            await store.write(lambda tx: act(tx, number))
        except TurnedBackError:
            failed.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(call, number)
    assert sorted(failed) == [number for number in range(200) if number % 3 == 0]
    assert sorted(map(int, payloads(store))) == [number for number in range(200) if number % 3]
    numbers = [item.number for item in store.read(lambda tx: tx.outbox.peek("key1", limit=1000))]
    assert numbers == sorted(set(numbers))


async def test_a_read_cannot_write(store: Store) -> None:
    """Closed by default."""
    with pytest.raises(StoreError):
        store.read(lambda tx: push(tx, b"never"))
    assert payloads(store) == []


async def test_a_transaction_is_of_no_use_after_its_end(store: Store) -> None:
    """Neither one that was kept, nor an iterator that was not used up."""
    await store.write(lambda tx: tx.uidmap.tie(guid_of(1), instance_of(1)))
    kept = [store.read(lambda tx: tx), await store.write(lambda tx: tx)]
    for transaction in kept:
        with pytest.raises(StoreError):
            transaction.uidmap.resolve(guid_of(1))
    with pytest.raises(StoreError):
        list(store.read(lambda tx: tx.uidmap.of_series(SERIES)))


async def test_a_cancelled_write_happens_whole_or_not_at_all(store: Store) -> None:
    """Cancelled before it began, nothing is written; cancelled later, it is finished first."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await store.write(lambda tx: push(tx, b"not begun"))
    assert payloads(store) == []
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(store.write, lambda tx, number=number: push(tx, b"%d" % number))
        await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    written = payloads(store)
    assert len(set(written)) == len(written)
    assert await store.write(lambda tx: push(tx, b"after")) == len(written) + 1


async def test_a_closed_store_answers_nothing(store: Store) -> None:
    """Closing twice is no error."""
    await store.aclose()
    await store.aclose()
    with pytest.raises(StoreError, match="closed"):
        store.read(lambda tx: tx.outbox.size())
    with pytest.raises(StoreError, match="closed"):
        await store.write(lambda tx: push(tx, b"never"))


# Subjects


async def test_a_patient_is_one_subject_in_each_project(store: Store) -> None:
    """The same patient keeps his row; another project, issuer or Patient ID has its own."""
    people = [("neuro", "AMC", "12"), ("cardio", "AMC", "12"), ("neuro", "AMC1", "2"), ("neuro", "", "AMC12")]
    for number, (project, issuer, patient) in enumerate(people):
        row = subject_row(number, patient, project=project, issuer=issuer)
        for _ in range(2):
            who = (project, issuer, patient)
            assert await store.write(lambda tx, row=row, who=who: tx.subjects.admit(*who, lambda: row)) == row
        assert store.read(lambda tx, who=who: tx.subjects.find(*who)) == row
        assert store.read(lambda tx, row=row: tx.subjects.by_id(row.id)) == row


async def test_no_row_is_made_for_a_patient_who_has_one(store: Store) -> None:
    """``make`` is not even called."""
    await store.write(lambda tx: tx.subjects.admit("neuro", "AMC", "1", lambda: subject_row(1, "1")))
    found = await store.write(lambda tx: tx.subjects.admit("neuro", "AMC", "1", lambda: pytest.fail("called")))
    assert found.id == subject_of(1)


async def test_two_patients_never_share_a_subject(store: Store) -> None:
    """An id that is taken is refused, and so is a row of somebody else."""
    await store.write(lambda tx: tx.subjects.admit("neuro", "AMC", "1", lambda: subject_row(1, "1")))
    with pytest.raises(StoreError, match="taken"):
        await store.write(lambda tx: tx.subjects.admit("neuro", "AMC", "2", lambda: subject_row(1, "2")))
    with pytest.raises(StoreError, match="another patient"):
        await store.write(lambda tx: tx.subjects.admit("neuro", "AMC", "3", lambda: subject_row(3, "4")))
    assert store.read(lambda tx: tx.subjects.find("neuro", "AMC", "2")) is None


async def test_a_deleted_subject_is_unlinked_for_ever(store: Store) -> None:
    """The next admission of the patient makes another subject."""
    await store.write(lambda tx: tx.subjects.admit("neuro", "AMC", "1", lambda: subject_row(1, "1")))
    assert await store.write(lambda tx: tx.subjects.delete(subject_of(1)))
    assert not await store.write(lambda tx: tx.subjects.delete(subject_of(1)))
    assert store.read(lambda tx: tx.subjects.by_id(subject_of(1))) is None
    again = await store.write(lambda tx: tx.subjects.admit("neuro", "AMC", "1", lambda: subject_row(2, "1")))
    assert again.id == subject_of(2)


# UID map


async def test_a_guid_stands_for_one_instance(store: Store) -> None:
    """Tied again with the same record nothing changes; with another it is refused."""
    for _ in range(2):
        await store.write(lambda tx: tx.uidmap.tie(guid_of(1), instance_of(1)))
    with pytest.raises(StoreError, match="already"):
        await store.write(lambda tx: tx.uidmap.tie(guid_of(1), instance_of(2)))
    assert store.read(lambda tx: tx.uidmap.resolve(guid_of(1))) == instance_of(1)
    assert store.read(lambda tx: tx.uidmap.guids_of("neuro", instance_of(1).instance_uid)) == [guid_of(1)]
    assert store.read(lambda tx: tx.uidmap.resolve(guid_of(2))) is None


async def test_the_guids_of_an_instance_come_newest_first(store: Store) -> None:
    """Within its project only."""
    for number in range(3):
        await store.write(lambda tx, number=number: tx.uidmap.tie(guid_of(number), instance_of(1)))
    await store.write(lambda tx: tx.uidmap.tie(guid_of(9), instance_of(1, project="cardio")))
    uid = instance_of(1).instance_uid
    assert store.read(lambda tx: tx.uidmap.guids_of("neuro", uid)) == [guid_of(2), guid_of(1), guid_of(0)]
    assert store.read(lambda tx: tx.uidmap.guids_of("cardio", uid)) == [guid_of(9)]
    await store.write(lambda tx: tx.uidmap.untie(guid_of(1)))
    assert store.read(lambda tx: tx.uidmap.guids_of("neuro", uid)) == [guid_of(2), guid_of(0)]


async def test_a_series_lists_its_own_guids(store: Store) -> None:
    """Several classes in one series too; another series, or project, with equal UIDs is another."""

    def act(tx: Transaction) -> None:
        for number in range(6):
            tx.uidmap.tie(guid_of(number), instance_of(number, class_uid=f"1.2.{number % 2}"))
        tx.uidmap.tie(guid_of(7), instance_of(7, series=2))
        tx.uidmap.tie(guid_of(8), instance_of(8, project="cardio"))

    await store.write(act)
    found = store.read(lambda tx: dict(tx.uidmap.of_series(SERIES)))
    assert found == {guid_of(n): instance_of(n, class_uid=f"1.2.{n % 2}") for n in range(6)}
    assert store.read(lambda tx: tx.uidmap.count_of_series(SERIES)) == 6
    assert store.read(lambda tx: tx.uidmap.count_of_series(SeriesKey("neuro", "1.2.3.3", "1"))) == 0


async def test_an_untied_guid_leaves_nothing_behind(store: Store) -> None:
    """Neither by GUID, nor by instance, nor by series; and it may be tied again."""
    await store.write(lambda tx: tx.uidmap.tie(guid_of(1), instance_of(1)))
    await store.write(lambda tx: tx.uidmap.tie(guid_of(2), instance_of(2)))
    for number in (1, 2):
        assert await store.write(lambda tx, number=number: tx.uidmap.untie(guid_of(number)))
    assert not await store.write(lambda tx: tx.uidmap.untie(guid_of(1)))
    assert store.read(lambda tx: tx.uidmap.resolve(guid_of(1))) is None
    assert store.read(lambda tx: tx.uidmap.guids_of("neuro", instance_of(1).instance_uid)) == []
    assert store.read(lambda tx: list(tx.uidmap.of_series(SERIES))) == []

    def tie_untie_tie(tx: Transaction) -> int:
        tx.uidmap.tie(guid_of(1), instance_of(1))
        tx.uidmap.untie(guid_of(1))
        tx.uidmap.tie(guid_of(1), instance_of(3))
        return tx.uidmap.count_of_series(SERIES)

    assert await store.write(tie_untie_tie) == 1
    assert store.read(lambda tx: tx.uidmap.resolve(guid_of(1))) == instance_of(3)


# Ledger


async def test_a_series_is_found_by_key_and_by_state(store: Store) -> None:
    """A new state takes it out of the old one's list."""
    await store.write(lambda tx: [tx.series.put(series_record(number)) for number in range(3)])
    shown = series_record(1, SeriesState.VISIBLE)
    await store.write(lambda tx: tx.series.put(shown))
    assert store.read(lambda tx: tx.series.get(shown.key)) == shown
    assert store.read(lambda tx: tx.series.by_octets(shown.key.octets())) == shown
    assert store.read(lambda tx: tx.series.all(SeriesState.VISIBLE)) == [shown]
    waiting = store.read(lambda tx: tx.series.all(SeriesState.REGISTERING))
    assert {record.study_uid for record in waiting} == {"1.2.3.0", "1.2.3.2"}
    every = store.read(lambda tx: tx.series.all())
    assert len(every) == 3
    pages = [store.read(lambda tx, last=last: tx.series.page(2, last)) for last in (None, every[1], every[2])]
    assert pages == [every[:2], every[2:], []]
    assert await store.write(lambda tx: tx.series.remove(shown.key))
    assert not await store.write(lambda tx: tx.series.remove(shown.key))
    assert store.read(lambda tx: tx.series.all(SeriesState.VISIBLE)) == []
    in_state = [series for page in pages_of_series(store, 1, state=SeriesState.REGISTERING) for series in page]
    assert in_state == store.read(lambda tx: tx.series.all(SeriesState.REGISTERING))
    assert list(pages_of_series(store, 2, state=SeriesState.VISIBLE)) == []


async def test_the_outbox_keeps_each_destination_in_order(store: Store) -> None:
    """Names that begin alike do not mix."""
    for number in range(6):
        await store.write(lambda tx, number=number: push(tx, b"%d" % number, ("key", "key1")[number % 2]))
    assert payloads(store, "key") == [b"0", b"2", b"4"]
    assert payloads(store, "key1") == [b"1", b"3", b"5"]
    assert store.read(lambda tx: tx.outbox.destinations()) == ["key", "key1"]
    assert [item.number for item in store.read(lambda tx: tx.outbox.peek("key1", limit=2))] == [2, 4]
    assert [item.number for item in store.read(lambda tx: tx.outbox.peek("key1", limit=2, after=2))] == [4, 6]


async def test_the_outbox_counts_what_remains_of_a_series(store: Store) -> None:
    """Dropping what is not there, or another destination's, drops nothing."""
    numbers = [await store.write(lambda tx: push(tx, b"four")) for _ in range(3)]
    await store.write(lambda tx: tx.outbox.push("key1", "acls", b"", b"xx"))
    assert store.read(lambda tx: tx.outbox.remaining(SERIES.octets(), "key1")) == 3
    assert store.read(lambda tx: tx.outbox.remaining(SERIES.octets(), "key2")) == 0
    assert store.read(lambda tx: tx.outbox.size()) == OutboxSize(4, 14)
    assert await store.write(lambda tx: tx.outbox.drop("key2", numbers)) == 0
    assert await store.write(lambda tx: tx.outbox.drop("key1", [*numbers[:2], numbers[0], 99])) == 2
    assert store.read(lambda tx: tx.outbox.remaining(SERIES.octets(), "key1")) == 1
    assert store.read(lambda tx: tx.outbox.size()) == OutboxSize(2, 6)


async def test_numbers_of_the_outbox_are_never_given_twice(store: Store) -> None:
    """Not even when it was empty in between."""
    first = await store.write(lambda tx: push(tx, b"one"))
    await store.write(lambda tx: tx.outbox.drop("key1", [first]))
    assert store.read(lambda tx: tx.outbox.destinations()) == []
    assert await store.write(lambda tx: push(tx, b"two")) == first + 1


@pytest.mark.parametrize("destination", ["", "a\0b", "k" * 129])
async def test_a_destination_that_would_mix_with_others_is_refused(store: Store, destination: str) -> None:
    """NUL ends a name in the keys, and keys are short."""
    with pytest.raises(StoreError, match="destination"):
        await store.write(lambda tx: push(tx, b"x", destination))


async def test_a_large_payload_comes_back_whole(store: Store) -> None:
    """A batch of shares is larger than a page."""
    payload = bytes(range(256)) * 8192
    await store.write(lambda tx: push(tx, payload))
    assert payloads(store) == [payload]


def refused_in_pages(store: Store, project: str | None = None) -> list[QuarantineRecord]:
    """Go through refusals two at a time."""
    pages = list(pages_of_quarantine(store, 2, project=project))
    assert all(len(page) <= 2 for page in pages)
    return [record for page in pages for record in page]


async def test_refusals_are_found_by_instance_series_and_project(store: Store) -> None:
    """And replaced and removed; an instance of no project is kept under the empty name."""
    records = [quarantined(1), quarantined(2), quarantined(1, series=2), quarantined(1, project="")]
    await store.write(lambda tx: [tx.quarantine.put(record) for record in records])
    changed = msgspec.structs.replace(records[0], reason="changed")
    await store.write(lambda tx: tx.quarantine.put(changed))
    assert store.read(lambda tx: tx.quarantine.get(changed.series, changed.instance_uid)) == changed
    in_series = store.read(lambda tx: tx.quarantine.of_series(changed.series))
    assert {record.instance_uid for record in in_series} == {"1.2.3.9.1", "1.2.3.9.2"}
    assert len(store.read(lambda tx: tx.quarantine.all("neuro"))) == 3
    assert store.read(lambda tx: tx.quarantine.all("")) == [records[3]]
    everything = refused_in_pages(store)
    assert sorted(it.series_uid for it in everything) == sorted(it.series_uid for it in records)
    assert [it for it in everything if it.project] == refused_in_pages(store, "neuro")
    assert refused_in_pages(store, "neuro") == store.read(lambda tx: tx.quarantine.all("neuro"))
    assert refused_in_pages(store, "") == [records[3]]
    assert await store.write(lambda tx: tx.quarantine.remove(changed.series, changed.instance_uid))
    assert not await store.write(lambda tx: tx.quarantine.remove(changed.series, changed.instance_uid))
    assert store.read(lambda tx: tx.quarantine.get(changed.series, changed.instance_uid)) is None


# Epochs


async def test_epochs_are_numbered_from_one_and_keep_their_order(store: Store) -> None:
    """Each has a mark of its own; what came after one is given oldest first."""
    assert store.read(lambda tx: tx.epochs.latest()) == BEGINNING
    numbers = [await store.write(lambda tx, n=n: tx.epochs.bury(guid_of(n))) for n in range(3)]
    numbers.append(await store.write(lambda tx: tx.epochs.note_acl(b"i" * 16)))
    assert numbers == [1, 2, 3, 4]
    later = store.read(lambda tx: tx.epochs.after(1, limit=2))
    assert [(number, change.what) for number, change in later] == [(2, guid_of(1).octets), (3, guid_of(2).octets)]
    last = store.read(lambda tx: tx.epochs.after(3, limit=9))
    assert [(number, change.kind, change.what) for number, change in last] == [(4, KeyChangeKind.ACL, b"i" * 16)]
    assert len({change.mark for _, change in store.read(lambda tx: tx.epochs.after(0, limit=9))}) == 4


async def test_an_epoch_of_another_history_is_told_by_its_mark(store: Store) -> None:
    """The same number is not enough; the beginning is everybody's; what is yet to come is not ours."""
    await store.write(lambda tx: tx.epochs.bury(guid_of(1)))
    latest = store.read(lambda tx: tx.epochs.latest())
    for epoch, is_ours in (
        (latest, True),
        (BEGINNING, True),
        (Epoch(1, bytes(16)), False),
        (Epoch(2, latest.mark), False),
        (Epoch(0, latest.mark), False),
    ):
        assert store.read(lambda tx, epoch=epoch: tx.epochs.holds(epoch)) is is_ours


async def test_what_keystores_acknowledged_is_kept_for_each(store: Store) -> None:
    """One that was never heard of is at the beginning; a name that cannot be a key is refused."""
    await store.write(lambda tx: tx.epochs.acknowledge("key1", 7))
    await store.write(lambda tx: tx.epochs.acknowledge("key10", 3))
    assert [store.read(lambda tx, name=name: tx.epochs.acknowledged(name)) for name in ("key1", "key10", "key")] == [
        7,
        3,
        0,
    ]
    with pytest.raises(StoreError):
        await store.write(lambda tx: tx.epochs.acknowledge("x" * 129, 1))


async def test_an_undone_write_leaves_no_epoch(store: Store) -> None:
    """A decision that was not taken is not told."""

    def act(tx: Transaction) -> None:
        tx.epochs.bury(guid_of(1))
        raise TurnedBackError

    with pytest.raises(TurnedBackError):
        await store.write(act)
    assert store.read(lambda tx: tx.epochs.latest()) == BEGINNING


# Notices


def notice(number: int, *, series: int = 1, when: float = NOW) -> Notice:
    """Make a notice."""
    return Notice("main", f"1.2.{series}", f"1.2.{series}.9", f"1.2.{series}.9.{number}", "1.2.4", when)


async def test_notices_are_kept_by_series(store: Store) -> None:
    """Each instance once, the series without news for longest first."""
    for one in (notice(1, when=NOW + 5), notice(1, series=2), notice(2, when=NOW + 9), notice(2, when=NOW + 10)):
        await store.write(lambda tx, one=one: tx.notices.put(one))  # type: ignore[misc]
    second, first = store.read(lambda tx: tx.notices.all())
    assert (second.series_uid, second.arrivals) == ("1.2.2.9", 1)
    assert (first.series_uid, first.first, first.latest, first.arrivals) == ("1.2.1.9", NOW + 5, NOW + 10, 3)
    kept = store.read(lambda tx: tx.notices.of_series(first))
    assert {(one.instance_uid, one.when) for one in kept} == {("1.2.1.9.1", NOW + 5), ("1.2.1.9.2", NOW + 10)}


async def test_a_series_is_forgotten_with_its_notices(store: Store) -> None:
    """And no other series with it; once is enough."""
    for series in (1, 2):
        await store.write(lambda tx, series=series: tx.notices.put(notice(1, series=series)))  # type: ignore[misc]
    first, second = store.read(lambda tx: tx.notices.all())
    assert await store.write(lambda tx: tx.notices.remove(first))
    assert not await store.write(lambda tx: tx.notices.remove(first))
    assert store.read(lambda tx: tx.notices.all()) == [second]
    assert store.read(lambda tx: tx.notices.of_series(first)) == []
    assert len(store.read(lambda tx: tx.notices.of_series(second))) == 1


async def test_news_of_a_series_keep_it(store: Store) -> None:
    """What came while somebody worked on it, the same instance again too, is not forgotten with the rest."""
    await store.write(lambda tx: tx.notices.put(notice(1)))
    (read_before,) = store.read(lambda tx: tx.notices.all())
    await store.write(lambda tx: tx.notices.put(notice(1)))
    assert not await store.write(lambda tx: tx.notices.remove(read_before))
    (read_after,) = store.read(lambda tx: tx.notices.all())
    assert await store.write(lambda tx: tx.notices.remove(read_after))
    assert store.read(lambda tx: tx.notices.all()) == []


async def test_the_same_series_from_two_pacss_is_two(store: Store) -> None:
    """Each is asked for its own."""
    await store.write(lambda tx: tx.notices.put(notice(1)))
    await store.write(lambda tx: tx.notices.put(msgspec.structs.replace(notice(1), pacs="other")))
    assert {one.pacs for one in store.read(lambda tx: tx.notices.all())} == {"main", "other"}


# Losses


async def test_losses_are_kept_by_file(store: Store) -> None:
    """The latest cause counts; a file that is found again is lost no more."""
    await store.write(lambda tx: tx.losses.put(guid_of(1), LossRecord(LossCause.GONE, NOW)))
    await store.write(lambda tx: tx.losses.put(guid_of(1), LossRecord(LossCause.CHANGED, NOW + 1)))
    assert store.read(lambda tx: tx.losses.get(guid_of(1))) == LossRecord(LossCause.CHANGED, NOW + 1)
    assert store.read(lambda tx: (tx.losses.get(guid_of(2)), tx.losses.count())) == (None, 1)
    assert await store.write(lambda tx: tx.losses.remove(guid_of(1)))
    assert not await store.write(lambda tx: tx.losses.remove(guid_of(1)))
    assert store.read(lambda tx: tx.losses.count()) == 0


async def test_when_a_project_was_reconciled_is_kept(store: Store) -> None:
    """By project; never is 0."""
    await store.write(lambda tx: tx.losses.note_reconciled("neuro", NOW))
    assert store.read(lambda tx: [tx.losses.last_reconciled(name) for name in ("neuro", "cardio")]) == [NOW, 0.0]


# Merged patients


async def test_a_subject_can_become_another_patient(store: Store) -> None:
    """It is found by the new one, and the old one is nobody."""
    await store.write(lambda tx: tx.subjects.admit("neuro", "AMC", "1", lambda: subject_row(1, "1")))
    row = await store.write(lambda tx: tx.subjects.hand_over(subject_of(1), "AMC", "2"))
    assert (row.id, row.patient_id, row.uid_key) == (subject_of(1), "2", subject_row(1, "1").uid_key)
    assert store.read(lambda tx: tx.subjects.find("neuro", "AMC", "2")) == row
    assert store.read(lambda tx: tx.subjects.find("neuro", "AMC", "1")) is None
    assert store.read(lambda tx: tx.subjects.by_id(subject_of(1))) == row
    with pytest.raises(StoreError):
        await store.write(lambda tx: tx.subjects.hand_over(subject_of(9), "AMC", "2"))


async def test_a_merge_that_has_begun_is_known_until_it_ends(store: Store) -> None:
    """Or until its subject is forgotten."""
    for number in (1, 2):
        await store.write(
            lambda tx, number=number: tx.subjects.admit(  # type: ignore[misc]
                "neuro", "AMC", f"{number}", lambda: subject_row(number, f"{number}")
            )
        )
        await store.write(lambda tx, number=number: tx.subjects.begin_merge(subject_of(number)))  # type: ignore[misc]
    assert set(store.read(lambda tx: tx.subjects.merging())) == {subject_of(1), subject_of(2)}
    assert await store.write(lambda tx: tx.subjects.end_merge(subject_of(1)))
    assert not await store.write(lambda tx: tx.subjects.end_merge(subject_of(1)))
    await store.write(lambda tx: tx.subjects.delete(subject_of(2)))
    assert store.read(lambda tx: tx.subjects.merging()) == []


async def test_subjects_come_in_pages(store: Store) -> None:
    """Each once."""
    for number in range(5):
        row = subject_row(number, f"{number}")
        await store.write(lambda tx, row=row: tx.subjects.admit("neuro", "AMC", row.patient_id, lambda: row))  # type: ignore[misc]
    pages = list(pages_of_subjects(store, 2))
    assert [len(page) for page in pages] == [2, 2, 1]
    assert {row.id for page in pages for row in page} == set(map(subject_of, range(5)))


async def test_two_subjects_of_one_patient_stay_two(store: Store) -> None:
    """The one who was there goes on; both are found by their ids, and deleting one leaves the other findable."""
    for row in (subject_row(1, "1"), subject_row(2, "2")):
        await store.write(lambda tx, row=row: tx.subjects.admit("neuro", "AMC", row.patient_id, lambda: row))  # type: ignore[misc]
    await store.write(lambda tx: tx.subjects.hand_over(subject_of(1), "AMC", "2"))
    found = store.read(lambda tx: (tx.subjects.find("neuro", "AMC", "2"), tx.subjects.by_id(subject_of(1))))
    assert [row and row.id for row in found] == [subject_of(2), subject_of(1)]
    assert [row and row.patient_id for row in found] == ["2", "2"]
    await store.write(lambda tx: tx.subjects.delete(subject_of(1)))
    still = store.read(lambda tx: tx.subjects.find("neuro", "AMC", "2"))
    assert still is not None
    assert still.id == subject_of(2)


# Replicas


async def test_replicas_are_given_page_by_page_and_those_to_be_taken_away_by_themselves(store: Store) -> None:
    """In one order; what was to go and is there again is listed no more, nor what was forgotten."""
    states = (ReplicaState.LEAVING, ReplicaState.THERE, ReplicaState.LEAVING, ReplicaState.LEAVING)
    kept = [
        Replica(guid_of(number).octets, "tier1", f"{number:064x}", 1, bytes(56), 9, NOW, state)
        for number, state in enumerate(states)
    ]

    def act(tx: Transaction) -> None:
        for replica in kept:
            tx.replicas.put(replica)
        tx.replicas.put(msgspec.structs.replace(kept[2], state=ReplicaState.THERE))
        tx.replicas.remove(kept[3])

    await store.write(act)
    ordered = sorted(kept[:3], key=lambda it: it.guid)
    pages = store.read(lambda tx: (tx.replicas.page(2), tx.replicas.page(2, tx.replicas.page(2)[1])))
    assert [[it.guid for it in page] for page in pages] == [[it.guid for it in ordered[:2]], [ordered[2].guid]]
    assert store.read(lambda tx: tx.replicas.leaving("tier1", 9)) == kept[:1]
    assert store.read(lambda tx: tx.replicas.leaving("tier1", 9, kept[0])) == []
    assert store.read(lambda tx: tx.replicas.leaving("tier2", 9)) == []
