"""Replicas: what is let out is put on storage elements, named only to those who may have it, and taken away again."""

from __future__ import annotations

import re
import threading
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import msgspec
import pytest
import structlog.testing
import trio
import trio.testing

from mdmfs.hospital import tables
from mdmfs.hospital.assembly import read_policy
from mdmfs.hospital.deid.pseudonyms import PatientKey
from mdmfs.hospital.deid.refusal import Reason, RefusedError
from mdmfs.hospital.keys import amends
from mdmfs.hospital.keys.currency import keep_current
from mdmfs.hospital.ledger.records import LossCause
from mdmfs.hospital.ledger.replicas import Replica, ReplicaRows, ReplicaState
from mdmfs.hospital.projects import Placement
from mdmfs.hospital.registration.ending import Ending
from mdmfs.hospital.registration.rerender import Rerendering
from mdmfs.hospital.release.loss import note_lost
from mdmfs.hospital.release.release import quarantine
from mdmfs.hospital.replicas.face import forget_element, replica_routes, use_of
from mdmfs.hospital.replicas.publish import padded
from mdmfs.hospital.replicas.removal import DELETERS, LATE
from mdmfs.hospital.storage.port import Content, StorageError
from mdmfs.hospital.storage.replicas import Replicas
from mdmfs.hospital.store import STORE_FORMAT, Transaction
from mdmfs.model.errors import AccessDeniedError, NoSuchFileError, StoreError, UnknownNameError
from mdmfs.model.identity import Principal
from mdmfs.model.names import Guid
from mdmfs.wire.messages.administration import REPLICAS_PATH, AskReplicas, ReplicaUse
from mdmfs.wire.messages.files import (
    DESCRIBE_PATH,
    TRANSFERS_PATH,
    AskTransfers,
    Describe,
    FileDescription,
    Transfer,
    Transfers,
)
from mdmfs.wire.messages.key_tasks import KeyTask
from mdmfs.wire.messages.message import Message
from mdmfs.wire.service import Reply, Request
from mdmfs.wire.stream import Address
from tests.twins.clinic import (
    OWNER,
    PROJECT,
    READER,
    SECONDS,
    STRANGER,
    Clinic,
    OpenClinic,
    including,
    sealed_octets,
    slices,
    until,
)
from tests.twins.disk import no_room_behind
from tests.twins.key_tasks import done
from tests.twins.records import guid_of
from tests.twins.storage import TwinElement
from tests.twins.store import MemoryRows, Table


@pytest.fixture
def clinic(tmp_path: Path) -> Clinic:
    """Give a hospital with a series, whose project wants one replica of what is let out."""
    clinic = Clinic(tmp_path, slices([1, 2]))
    clinic.elements = [TwinElement()]
    clinic.placement = Placement(("tier1",))
    return clinic


@pytest.fixture
async def hospital(clinic: Clinic) -> AsyncIterator[OpenClinic]:
    """Give it open, and harvested."""
    async with clinic.open() as hospital:
        await hospital.harvest()
        yield hospital


def first_of(hospital: OpenClinic) -> Guid:
    """Give a file."""
    return next(iter(hospital.files().values()))


async def transfer_of(
    hospital: OpenClinic, guid: Guid, principal: Principal = READER, avoid: tuple[str, ...] = ()
) -> Transfer:
    """Ask for one replica."""
    question = AskTransfers([guid.octets], "a study", avoid=list(avoid))
    told = await hospital.told(TRANSFERS_PATH, question, principal)
    assert isinstance(told, Transfers)
    assert told.are_there_any
    return told.transfers[0]


def asking(path: str, message: Message, principal: Principal) -> Request:
    """Ask over no wire."""

    async def body() -> bytes:
        await trio.lowlevel.checkpoint()
        return msgspec.msgpack.encode(message)

    return Request("POST", path, {}, principal, Address("192.0.2.7", 1), body)


async def put_first(hospital: OpenClinic) -> Guid:
    """Have one file let out, and wait until its replica is there."""
    guid = first_of(hospital)
    await sealed_octets(await hospital.release(guid))
    await until(lambda: ReplicaState.THERE in states_of(hospital, guid))
    return guid


async def read_while_away(clinic: Clinic, hospital: OpenClinic) -> Guid:
    """Let a file out while its storage element is away, which is back then; nothing of it is left there."""
    clinic.elements[0].is_dead = True
    guid = first_of(hospital)
    await hospital.read(guid)
    await until(lambda: bool(hospital.hospital.replicas.reasons))
    clinic.elements[0].is_dead = False
    hospital.hospital.replicas.departures.ring()  # as time does
    await until(lambda: not states_of(hospital, guid))
    return guid


def states_of(hospital: OpenClinic, guid: Guid) -> list[ReplicaState]:
    """Say how the replicas of a file are."""
    return hospital.hospital.store.read(lambda tx: [it.state for it in tx.replicas.of(guid)])


async def test_what_is_let_out_is_put_and_is_the_same_sealed_object(clinic: Clinic, hospital: OpenClinic) -> None:
    """The replica has the bytes that were staged, and the answer all that is needed to open them."""
    guid = await put_first(hospital)
    transfer = await transfer_of(hospital, guid)
    (octets,) = clinic.elements[0].kept.values()
    assert octets == await sealed_octets(await hospital.release(guid))
    assert (transfer.element, transfer.size, transfer.header) == ("tier1", len(octets), octets[:56])
    assert (transfer.generation, transfer.threshold) == (1, 2)


async def test_each_transfer_is_on_record_before_it_is_told_and_no_other(hospital: OpenClinic) -> None:
    """A release by reference is a release: who, what, whence and what for."""
    guid = await put_first(hospital)
    others = [it for it in hospital.files().values() if it != guid]
    before = len(hospital.audited())
    question = AskTransfers([guid.octets, *(it.octets for it in others)], "a study", ahead=True)
    told = await hospital.told(TRANSFERS_PATH, question)
    assert isinstance(told, Transfers)
    assert [bool(it.turl) for it in told.transfers] == [True] + [False] * len(others)
    (record,) = [it for it in hospital.audited()[before:] if it["event"] != "replica"]
    assert (record["event"], record["guid"], record["dn"]) == ("release", str(guid), str(READER.dn))
    assert (record["purpose"], record["ahead"], record["address"]) == ("a study", True, "192.0.2.7")


async def test_without_a_record_no_replica_is_told(clinic: Clinic, hospital: OpenClinic) -> None:
    """An audit log on a full disk stops these, too."""
    guid = await put_first(hospital)
    with no_room_behind(clinic.folder / "audit.jsonl"), pytest.raises(StoreError, match="nothing is released"):
        await transfer_of(hospital, guid)
    assert (await transfer_of(hospital, guid)).turl


async def test_whoever_may_not_read_a_file_is_told_of_no_replica(hospital: OpenClinic) -> None:
    """Neither that there is one nor where; and nothing is signed for him."""
    guid = await put_first(hospital)
    assert await transfer_of(hospital, guid, STRANGER) == Transfer()
    with pytest.raises(NoSuchFileError):
        await hospital.told(DESCRIBE_PATH, Describe(guid.octets), STRANGER)


async def test_the_name_tells_nothing_and_each_sealing_has_another(clinic: Clinic, hospital: OpenClinic) -> None:
    """An HMAC under a secret of the hospital: no LFN, project, subject or GUID, and not to be guessed from one."""
    guid = await put_first(hospital)
    (name,) = clinic.elements[0].kept
    assert re.fullmatch(r"[0-9a-f]{64}", name)
    one, other = Replicas({}, bytes(32)), Replicas({}, b"\1" * 32)
    names = {it.name_of(guid, number, salt) for it in (one, other) for number in (1, 2) for salt in (b"a", b"b")}
    assert len(names) == 8


async def test_the_surl_is_shown_beside_that_of_the_hospital(clinic: Clinic, hospital: OpenClinic) -> None:
    """``user.replicas`` names both."""
    guid = await put_first(hospital)
    told = await hospital.told(DESCRIBE_PATH, Describe(guid.octets))
    assert isinstance(told, FileDescription)
    assert told.replicas[1:] == [f"s3://tier1/{name}" for name in clinic.elements[0].kept]


async def test_the_same_url_is_told_to_all_for_a_while(clinic: Clinic, hospital: OpenClinic) -> None:
    """A cache between knows it again; after half its life another one is signed."""
    guid = await put_first(hospital)
    first = await transfer_of(hospital, guid)
    assert await transfer_of(hospital, guid, OWNER) == first
    clinic.now += 1801
    assert (await transfer_of(hospital, guid)).turl != first.turl


async def test_a_storage_element_that_is_to_be_avoided_is_not_named(hospital: OpenClinic) -> None:
    """Whoever finds it dead says so, and gets the bytes from us."""
    guid = await put_first(hospital)
    assert await transfer_of(hospital, guid, avoid=("tier1",)) == Transfer()


@pytest.mark.parametrize("end", ["destroyed", "lost", "put away", "put away with a sibling"])
async def test_what_is_taken_away_is_taken_away_there_too(clinic: Clinic, hospital: OpenClinic, end: str) -> None:
    """It is named no more at once, and deleted; and that is on record once it was looked for in vain."""
    guid = await put_first(hospital)
    if end == "lost":
        await note_lost(hospital.hospital, [guid], LossCause.CHANGED)
    elif end.startswith("put away"):
        refused = guid if end == "put away" else list(hospital.files().values())[1]
        await quarantine(hospital.hospital, refused, RefusedError(Reason.RESIDUE))
    else:
        await hospital.hospital.store.write(lambda tx: amends.destroy(tx, [guid]))
        hospital.hospital.discard(guid)
    assert await transfer_of(hospital, guid) == Transfer()
    await until(lambda: not states_of(hospital, guid))
    assert not clinic.elements[0].kept
    assert "replica-gone" in [line["event"] for line in hospital.audited()[-2:]]


@pytest.mark.parametrize("act", ["withdraw", "rotate", "rerender", "opt-out"])
async def test_whatever_takes_a_file_or_its_key_away_takes_its_replicas_away(clinic: Clinic, act: str) -> None:
    """The commands themselves, and what ends by itself: nothing sealed under an old key is left at any element."""
    clinic.elements.append(TwinElement("tier2"))
    clinic.placement = Placement(("tier1", "tier2"), copies=2)
    async with clinic.open() as hospital:
        await hospital.harvest()
        guid = await put_first(hospital)
        await until(lambda: states_of(hospital, guid) == [ReplicaState.THERE] * 2)
        old = {name for element in clinic.elements for name in element.kept}
    if act == "rerender":
        clinic.policy = read_policy("strict")
    if act == "opt-out":
        row = clinic.store.read(lambda tx: tx.subjects.by_id(tx.uidmap.resolve(guid).subject))
        clinic.opted_out = including(PatientKey(row.issuer, row.patient_id))
    async with clinic.open() as hospital:
        hospital.nursery.start_soon(keep_current, hospital.hospital)
        if act == "withdraw":
            await done(hospital, KeyTask.DESTROY, [guid])
        elif act == "rotate":
            await done(hospital, KeyTask.ROTATE, [guid])
        elif act == "rerender":
            await Rerendering(hospital.hospital.projects[PROJECT], patience=1.0).run(hospital.hospital)
        else:
            ending = Ending(hospital.hospital)
            assert await ending.look() + await ending.look() > 0
        assert await transfer_of(hospital, guid) == Transfer()
        await until(lambda: not old & {name for element in clinic.elements for name in element.kept})
        await until(lambda: not states_of(hospital, guid))
        gone = [line["outcome"] for line in hospital.audited() if line["event"] == "replica-gone"]
        assert sorted(gone) == ["tier1", "tier2"]
        assert not (await use_of(hospital.hospital)).left


class HeldElement(TwinElement):
    """One that takes an object, and keeps it once it may."""

    def __init__(self) -> None:
        super().__init__()
        self.has_begun, self.may_end = threading.Event(), threading.Event()

    def put(self, name: str, content: Content, length: int) -> None:
        """Keep it, late."""
        octets = b"".join(content())
        self.has_begun.set()
        self.may_end.wait(20)
        super().put(name, lambda: iter([octets]), length)


@pytest.mark.parametrize("end", ["destroyed", "put away", "rotated"])
async def test_what_is_taken_away_while_it_is_being_put_is_no_replica(clinic: Clinic, end: str) -> None:
    """What was read of the store before it was begun holds no longer; it goes as soon as it is there."""
    element = HeldElement()
    clinic.elements = [element]
    async with clinic.open() as hospital:
        await hospital.harvest()
        guid = first_of(hospital)
        await sealed_octets(await hospital.release(guid))
        await until(element.has_begun.is_set)
        if end == "destroyed":
            await hospital.hospital.store.write(lambda tx: amends.destroy(tx, [guid]))
            hospital.hospital.discard(guid)
        elif end == "rotated":
            hospital.nursery.start_soon(keep_current, hospital.hospital)
            await done(hospital, KeyTask.ROTATE, [guid])
        else:
            await quarantine(hospital.hospital, guid, RefusedError(Reason.RESIDUE))
        assert await transfer_of(hospital, guid) == Transfer()
        element.may_end.set()
        await until(lambda: element.puts == 1)
        await until(lambda: not states_of(hospital, guid))
        assert not element.kept


async def test_a_kill_between_destroying_and_deleting_leaves_nothing_behind(clinic: Clinic) -> None:
    """The next start finds what is no longer wanted."""
    async with clinic.open() as hospital:
        await hospital.harvest()
        guid = await put_first(hospital)
        await hospital.hospital.store.write(lambda tx: amends.destroy(tx, [guid]))
        assert await transfer_of(hospital, guid) == Transfer()
        assert clinic.elements[0].kept
    async with clinic.open() as hospital:
        await until(lambda: not states_of(hospital, guid))
        assert not clinic.elements[0].kept


@pytest.mark.parametrize("fault", ["is_dead", "is_deaf"])
async def test_what_could_not_be_taken_away_is_listed_and_tried_again(
    clinic: Clinic, hospital: OpenClinic, fault: str
) -> None:
    """A storage element that is away, or says yes and keeps it: the hospital's people see which object, and why."""
    guid = await put_first(hospital)
    setattr(clinic.elements[0], fault, True)
    hospital.hospital.discard(guid)
    await until(lambda: bool(hospital.hospital.replicas.reasons))
    told = await use_of(hospital.hospital)
    assert [(it.guid, it.surl) for it in told.left] == [
        (guid.octets, f"s3://tier1/{name}") for name in clinic.elements[0].kept
    ]
    assert "tier1" in told.left[0].reason
    setattr(clinic.elements[0], fault, False)
    hospital.hospital.replicas.departures.ring()  # as time does
    await until(lambda: not states_of(hospital, guid))
    assert not clinic.elements[0].kept
    assert not (await use_of(hospital.hospital)).left


async def test_what_a_storage_element_kept_that_is_gone_for_good_is_forgotten(hospital: OpenClinic) -> None:
    """Nobody can delete there any more; one that is configured is not forgotten, nor one that nobody knows."""
    guid = await put_first(hospital)
    for element, why in (("tier1", "is configured"), ("tier2", "nothing is known")):
        with pytest.raises(UnknownNameError, match=why):
            await forget_element(hospital.hospital, element)
    hospital.hospital.replicas.elements = {}
    ask = replica_routes(hospital.hospital)["POST", REPLICAS_PATH]
    told = await ask(asking(REPLICAS_PATH, AskReplicas("tier1"), OWNER))
    assert isinstance(told, Reply)
    assert told.message == ReplicaUse([], [])
    assert states_of(hospital, guid) == []
    (gone,) = (line for line in hospital.audited() if line["event"] == "replica-gone")
    assert gone["outcome"] == "tier1, forgotten by hand"


async def test_a_storage_element_that_fails_as_nobody_foresaw_ends_nothing(
    clinic: Clinic, hospital: OpenClinic
) -> None:
    """It is an incident in the log; the hospital runs on, and tries again."""
    guid = await put_first(hospital)
    clinic.elements[0].is_odd = True
    with structlog.testing.capture_logs() as logs:
        hospital.hospital.discard(guid)
        await until(lambda: "incident" in {it["event"] for it in logs})
    clinic.elements[0].is_odd = False
    hospital.hospital.replicas.departures.ring()  # as time does
    await until(lambda: not states_of(hospital, guid))


async def test_many_are_taken_away_with_few_commits(clinic: Clinic) -> None:
    """Each is on record by itself; they are written down and forgotten 64 at a time."""
    leaving = [
        Replica(guid_of(number).octets, "tier1", f"{number:064x}", 1, bytes(56), 9, 0.0, ReplicaState.LEAVING)
        for number in range(130)
    ]
    async with clinic.open() as hospital:
        store = hospital.hospital.store

        def act(tx: Transaction) -> None:
            for replica in leaving:
                tx.replicas.put(replica)

        await store.write(act)
        before = store.version()
        hospital.hospital.replicas.departures.ring()
        await until(lambda: not store.read(lambda tx: tx.replicas.page(1)))
        assert store.version() - before == 3
        gone = [it["guid"] for it in hospital.audited() if it["event"] == "replica-gone"]
        assert sorted(map(str, gone)) == sorted(str(Guid(it.guid)) for it in leaving)


async def mark_leaving(hospital: OpenClinic, element: str, numbers: Iterable[int]) -> None:
    """Have replicas go from a storage element, in this order."""
    leaving = [
        Replica(number.to_bytes(16, "big"), element, f"{number:064x}", 1, bytes(56), 9, 0.0, ReplicaState.LEAVING)
        for number in numbers
    ]
    await hospital.hospital.store.write(lambda tx: [tx.replicas.put(replica) for replica in leaving])
    hospital.hospital.replicas.departures.ring()


def left_at(hospital: OpenClinic, element: str) -> list[int]:
    """Say which are still to go from there."""
    found = hospital.hospital.store.read(lambda tx: tx.replicas.leaving(element, 1000))
    return [int(replica.name, 16) for replica in found]


class CrowdedElement(TwinElement):
    """Ends a deletion when so many are under way."""

    def __init__(self) -> None:
        super().__init__()
        self._crowd = threading.Barrier(DELETERS)

    def delete(self, name: str) -> None:
        """Wait for the others."""
        self._crowd.wait(SECONDS)
        super().delete(name)


async def test_replicas_are_taken_away_side_by_side(clinic: Clinic) -> None:
    """A project's end is not over in days where each deletion takes a second."""
    clinic.elements = [CrowdedElement()]
    async with clinic.open() as hospital:
        await mark_leaving(hospital, "tier1", range(3 * DELETERS))
        await until(lambda: not left_at(hospital, "tier1"))


class HangingElement(TwinElement):
    """Answers no deletion until it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.is_let = threading.Event()

    def delete(self, name: str) -> None:
        """Wait."""
        self.is_let.wait(SECONDS)
        super().delete(name)


async def test_a_slow_storage_element_holds_up_no_deletion_at_another(clinic: Clinic) -> None:
    """Neither what was to go before, nor what is to go while it does not answer."""
    hanging = HangingElement()
    clinic.elements = [hanging, TwinElement("tier2")]
    async with clinic.open() as hospital:
        try:
            await mark_leaving(hospital, "tier1", range(100))
            await mark_leaving(hospital, "tier2", range(100, 200))
            await until(lambda: not left_at(hospital, "tier2"))
            await mark_leaving(hospital, "tier2", range(200, 300))
            await until(lambda: not left_at(hospital, "tier2"))
            assert len(left_at(hospital, "tier1")) == 100
        finally:
            hanging.is_let.set()
        await until(lambda: not left_at(hospital, "tier1"))


class RetainingElement(TwinElement):
    """Lets the first objects go never, as under a legal hold."""

    def delete(self, name: str) -> None:
        """Refuse."""
        if int(name, 16) < 2 * DELETERS:
            message = f"storage {self.name} answers with status 403"
            raise StorageError(message)
        super().delete(name)


async def test_what_is_refused_for_ever_holds_up_nothing_behind_it(clinic: Clinic) -> None:
    """It is listed; the next round goes on behind it."""
    clinic.elements = [RetainingElement()]
    async with clinic.open() as hospital:
        await mark_leaving(hospital, "tier1", range(4 * DELETERS))

        def is_all_else_gone() -> bool:
            hospital.hospital.replicas.departures.ring()  # as time does
            return left_at(hospital, "tier1") == list(range(2 * DELETERS))

        await until(is_all_else_gone)
        left = (await use_of(hospital.hospital)).left
        assert len(left) == 2 * DELETERS
        assert {it.reason for it in left} == {"storage tier1 answers with status 403"}


def test_a_store_of_format_2_lists_what_is_to_be_taken_away() -> None:
    """A program before kept no list: what it left behind goes too."""
    rows = MemoryRows(Table(), is_writing=True)
    replicas = ReplicaRows(rows)
    coming = Replica(guid_of(1).octets, "tier1", "a" * 64, 1, bytes(56), 9, 4e9, ReplicaState.COMING)
    leaving = msgspec.structs.replace(coming, guid=guid_of(2).octets, state=ReplicaState.LEAVING)
    for replica in (coming, leaving):
        replicas.put(replica)
    for key, _ in list(rows.scan(tables.REPLICAS_LEAVING)):
        rows.delete(tables.REPLICAS_LEAVING + key)
    assert replicas.leaving("tier1", 9) == []
    assert STORE_FORMAT.advance(b"2", rows, "a store") == b"3"
    assert replicas.leaving("tier1", 9) == [leaving]
    assert coming in replicas.page(9)


def test_a_store_of_format_4_lists_what_is_to_be_taken_away_by_storage_element() -> None:
    """A program before listed all of it in one; a million others that stay are not written in one transaction."""
    written: list[bytes] = []

    class Listening(MemoryRows):
        def put(self, key: bytes, value: bytes) -> None:
            super().put(key, value)
            written.append(key)

    rows = Listening(Table(), is_writing=True)
    replicas = ReplicaRows(rows)
    leaving = [
        Replica(guid_of(number).octets, f"tier{number}", "a" * 64, 1, bytes(56), 9, 0.0, ReplicaState.LEAVING)
        for number in (1, 2)
    ]
    staying = msgspec.structs.replace(leaving[0], guid=guid_of(3).octets, state=ReplicaState.THERE)
    for replica in (*leaving, staying):
        replicas.put(replica)
    for key, _ in list(rows.scan(tables.REPLICAS_LEAVING)):
        rows.delete(tables.REPLICAS_LEAVING + key)
        rows.put(tables.REPLICAS_LEAVING + key[16:], b"")
    written.clear()
    assert STORE_FORMAT.advance(b"4", rows, "a store") == b"5"
    assert not [key for key in written if staying.guid in key]
    for replica in leaving:
        assert replicas.leaving(replica.element, 9) == [replica]
        replicas.remove(replica)
    assert list(rows.scan(tables.REPLICAS_LEAVING)) == []


async def test_only_the_hospitals_own_people_are_told_what_is_where(hospital: OpenClinic) -> None:
    """The list names GUIDs and SURLs."""
    await put_first(hospital)
    ask = replica_routes(hospital.hospital)["POST", REPLICAS_PATH]
    told = await ask(asking(REPLICAS_PATH, AskReplicas(), OWNER))
    assert isinstance(told, Reply)
    assert isinstance(told.message, ReplicaUse)
    with pytest.raises(AccessDeniedError):
        await ask(asking(REPLICAS_PATH, AskReplicas(), READER))


async def test_an_object_that_does_not_arrive_whole_is_no_replica(clinic: Clinic, hospital: OpenClinic) -> None:
    """What was put is looked at; a short one is named to nobody, and goes."""
    clinic.elements[0].cut = 1
    guid = first_of(hospital)
    await sealed_octets(await hospital.release(guid))
    await until(lambda: bool(states_of(hospital, guid)))
    await until(lambda: not states_of(hospital, guid))
    assert not clinic.elements[0].kept
    assert await transfer_of(hospital, guid) == Transfer()


async def test_what_cannot_be_read_here_is_told_of_no_storage_element(clinic: Clinic, hospital: OpenClinic) -> None:
    """The disk of staging is ours: the log says so, and the storage element is put at what comes next."""
    guid = await read_while_away(clinic, hospital)
    staged = hospital.hospital.staging.find(guid, 1)
    assert staged is not None
    await staged.settled.wait()
    staged.path.unlink()
    with structlog.testing.capture_logs() as logs:
        hospital.hospital.replicas.want(guid)
        await until(lambda: "replicas are not put" in {it["event"] for it in logs})
    assert {it["reason"] for it in logs if "reason" in it} == {
        f"{guid}.1 cannot be read in staging, to be put elsewhere: No such file or directory"
    }
    assert not hospital.hospital.replicas.is_resting("tier1")
    await until(lambda: not states_of(hospital, guid))


async def test_what_was_put_and_cannot_be_recorded_is_no_replica(clinic: Clinic, hospital: OpenClinic) -> None:
    """A full disk after the last byte has arrived: the object is told to nobody, and goes once there is room."""
    guid = await read_while_away(clinic, hospital)
    with no_room_behind(clinic.folder / "audit.jsonl"):
        hospital.hospital.replicas.want(guid)
        await until(lambda: states_of(hospital, guid) == [ReplicaState.LEAVING])
    hospital.hospital.replicas.departures.ring()
    await until(lambda: not clinic.elements[0].kept)
    assert await transfer_of(hospital, guid) == Transfer()  # and so it is wanted again


async def killed_while_putting(clinic: Clinic) -> Guid:
    """Have a hospital put its first file, and leave the store as it was before it heard that this was done."""
    async with clinic.open() as hospital:
        await hospital.harvest()
        guid = await put_first(hospital)
        (known,) = hospital.hospital.store.read(lambda tx: tx.replicas.of(guid))
        coming = msgspec.structs.replace(known, state=ReplicaState.COMING)
        await hospital.hospital.store.write(lambda tx: tx.replicas.put(coming))
        return guid


async def test_what_was_being_put_when_we_were_killed_is_taken_away(clinic: Clinic) -> None:
    """Nobody knows how much of it is there: it is put anew when it is let out again."""
    guid = await killed_while_putting(clinic)
    async with clinic.open() as hospital:
        await until(lambda: not clinic.elements[0].kept)
        assert await transfer_of(hospital, guid) == Transfer()


async def test_what_arrives_after_its_put_broke_off_is_taken_away_too(clinic: Clinic, hospital: OpenClinic) -> None:
    """A slow storage element had all of it, and keeps it when it was looked for in vain: it is looked for again."""
    clinic.elements[0].is_late = True
    guid = first_of(hospital)
    await hospital.read(guid)
    await until(lambda: bool(hospital.hospital.replicas.reasons))
    clinic.elements[0].wake()
    assert clinic.elements[0].kept
    (left,) = (await use_of(hospital.hospital)).left
    assert (left.guid, "looked for again" in left.reason) == (guid.octets, True)
    hospital.hospital.replicas.departures.ring()  # as time does
    await until(lambda: not clinic.elements[0].kept)
    clinic.now += LATE
    hospital.hospital.replicas.departures.ring()
    await until(lambda: not states_of(hospital, guid))
    assert [line["outcome"] for line in hospital.audited() if line["event"] == "replica-gone"] == ["tier1"]


async def test_what_may_yet_arrive_can_be_put_anew(clinic: Clinic, hospital: OpenClinic) -> None:
    """Both are the same bytes; that the first one arrives then takes nothing away."""
    clinic.elements[0].is_late = True
    guid = first_of(hospital)
    await hospital.read(guid)
    await until(lambda: bool(hospital.hospital.replicas.reasons))
    clinic.elements[0].is_late = False
    hospital.hospital.replicas.want(guid)
    await until(lambda: states_of(hospital, guid) == [ReplicaState.THERE])
    kept = dict(clinic.elements[0].kept)
    clinic.elements[0].wake()
    clinic.now += LATE
    hospital.hospital.replicas.departures.ring()
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert clinic.elements[0].kept == kept
    assert (await transfer_of(hospital, guid)).element == "tier1"
    assert not (await use_of(hospital.hospital)).left


async def test_what_arrives_after_we_were_killed_while_putting_is_taken_away_too(clinic: Clinic) -> None:
    """Its connection has gone with us, and the storage element had all of it: the next start looks more than once."""
    guid = await killed_while_putting(clinic)
    clinic.elements[0].coming, clinic.elements[0].kept = clinic.elements[0].kept, {}
    async with clinic.open() as hospital:
        await until(lambda: bool(hospital.hospital.replicas.reasons))
        clinic.elements[0].wake()
        hospital.hospital.replicas.departures.ring()  # as time does
        await until(lambda: not clinic.elements[0].kept)
        clinic.now += LATE
        hospital.hospital.replicas.departures.ring()
        await until(lambda: not states_of(hospital, guid))


async def test_what_a_project_no_longer_keeps_somewhere_goes_from_there(clinic: Clinic) -> None:
    """The storage element is configured for others still: nothing of this project is shown there, or left."""
    async with clinic.open() as hospital:
        await hospital.harvest()
        guid = await put_first(hospital)
    clinic.elements.append(TwinElement("tier2"))
    clinic.placement = Placement(("tier2",))
    async with clinic.open() as hospital:
        told = await hospital.told(DESCRIBE_PATH, Describe(guid.octets))
        assert isinstance(told, FileDescription)
        assert len(told.replicas) == 1
        await until(lambda: not states_of(hospital, guid))
        assert not clinic.elements[0].kept


async def test_a_replica_goes_when_its_time_is_over(clinic: Clinic) -> None:
    """It is not named from that moment on, and the next look takes it away."""
    async with clinic.open() as hospital:
        await hospital.harvest()
        guid = await put_first(hospital)
        clinic.now += 31 * 86_400
        clinic.until = clinic.until.replace(year=clinic.until.year + 1)
        assert await transfer_of(hospital, guid) == Transfer()
        told = await hospital.told(DESCRIBE_PATH, Describe(guid.octets))
        assert isinstance(told, FileDescription)
        assert len(told.replicas) == 1
    async with clinic.open() as hospital:
        await until(lambda: not clinic.elements[0].kept)


async def test_sizes_are_padded_to_steps_where_that_is_wanted(clinic: Clinic) -> None:
    """So a size tells less; what fills it up follows the sealed object, and the answer tells the true size."""
    clinic.elements = [TwinElement(padding=65_536)]
    async with clinic.open() as hospital:
        await hospital.harvest()
        guid = await put_first(hospital)
        (octets,) = clinic.elements[0].kept.values()
        transfer = await transfer_of(hospital, guid)
        assert len(octets) % 65_536 == 0
        assert octets[: transfer.size] == await sealed_octets(await hospital.release(guid))
        assert not any(octets[transfer.size :])


def test_padding_rounds_up() -> None:
    """Multiples stay as they are."""
    assert [padded(size, step) for size, step in ((5, 0), (5, 1), (5, 4), (8, 4), (0, 4))] == [5, 5, 8, 8, 0]


async def test_a_project_that_wants_none_has_none(clinic: Clinic) -> None:
    """Whatever storage elements there are."""
    clinic.placement = None
    async with clinic.open() as hospital:
        await hospital.harvest()
        await sealed_octets(await hospital.release(first_of(hospital)))
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not clinic.elements[0].kept


async def test_a_dead_storage_element_hinders_no_reader(clinic: Clinic, hospital: OpenClinic) -> None:
    """The file is let out as ever; the replica comes with a later release."""
    clinic.elements[0].is_dead = True
    guid = first_of(hospital)
    assert await hospital.read(guid)
    assert await transfer_of(hospital, guid) == Transfer()


async def test_a_storage_element_that_failed_is_left_alone_for_a_while(clinic: Clinic) -> None:
    """Whoever waits for one that does not answer puts nothing at the others meanwhile."""
    failing, other = TwinElement(), TwinElement("tier2")
    clinic.elements, clinic.placement = [failing, other], Placement(("tier1", "tier2"), copies=2)
    async with clinic.open() as hospital:
        await hospital.harvest()
        failing.is_dead = True
        for count, guid in enumerate(hospital.files().values(), 1):
            await hospital.read(guid)
            await until(lambda count=count: len(other.kept) == count)  # type: ignore[misc]
        assert failing.puts == 1
        failing.is_dead = False
        hospital.hospital.replicas.departures.ring()  # as time does
        await until(lambda: not hospital.hospital.replicas.is_resting("tier1"))
        assert await transfer_of(hospital, guid)
        hospital.hospital.replicas.want(guid)
        await until(lambda: len(failing.kept) == 1)


async def test_what_is_lacking_of_a_staged_file_is_put_when_it_is_asked_for(
    clinic: Clinic, hospital: OpenClinic
) -> None:
    """A storage element that was away when the file was let out gets it then."""
    guid = await read_while_away(clinic, hospital)
    assert await transfer_of(hospital, guid) == Transfer()
    await until(lambda: states_of(hospital, guid) == [ReplicaState.THERE])
    assert (await transfer_of(hospital, guid)).element == "tier1"
