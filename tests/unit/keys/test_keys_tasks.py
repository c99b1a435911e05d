"""Every fault of a share is found and named, what can be repaired is, and no key is lost on the way."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
from pathlib import Path
from typing import cast

import msgspec
import pytest
import structlog.testing
import trio
import trio.testing

from mdmfs.hospital import tables
from mdmfs.hospital.assembly import read_policy
from mdmfs.hospital.catalogue.records import FileState
from mdmfs.hospital.kept.escrow import FIRST_GENERATION
from mdmfs.hospital.keys import face, renewals
from mdmfs.hospital.keys.amends import Shipment, adopt_threshold, deposits
from mdmfs.hospital.keys.currency import keep_current
from mdmfs.hospital.keys.introduction import Given, give_first
from mdmfs.hospital.keys.selection import Selection
from mdmfs.hospital.keys.settling import LATE
from mdmfs.hospital.keys.tasks import INTERVAL, SOON, Task, Tasks
from mdmfs.hospital.ledger.destructions import Destructions
from mdmfs.hospital.ledger.records import DEPOSIT, RENEWALS, OutboxItem
from mdmfs.hospital.outbox.deposit import deposit
from mdmfs.hospital.registration.ending import take_away
from mdmfs.hospital.registration.rerender import Rerendering
from mdmfs.hospital.rows import DIGEST_KEY_SIZE
from mdmfs.hospital.store import Store
from mdmfs.keystore.notary import Notary
from mdmfs.keystore.shelf import KeyRecord
from mdmfs.model.errors import (
    AccessDeniedError,
    BusyError,
    IntegrityError,
    MalformedMessageError,
    PeerUnreachableError,
    UnknownNameError,
)
from mdmfs.model.identity import Principal
from mdmfs.model.names import Guid
from mdmfs.model.subject import SubjectId
from mdmfs.pki.signature import refuse_other_signature
from mdmfs.sharing.shamir import MAX_GENERATION, Share
from mdmfs.wire.keystores.keystores import Keystores
from mdmfs.wire.messages.key_tasks import (
    KEYS_CERTIFY_PATH,
    KEYS_PATH,
    KEYS_PROGRESS_PATH,
    AskCertificates,
    AskKeyTask,
    Certificate,
    Certificates,
    KeyProgress,
    KeyTask,
    StartKeyTask,
)
from mdmfs.wire.messages.keystores import CERTIFY_PATH, COLLECT_PATH, SET_ACLS_PATH, Certify, Outcome
from mdmfs.wire.messages.message import Message
from mdmfs.wire.service import Reply, Request, Service
from mdmfs.wire.stream import Address
from tests.twins.certificates import host
from tests.twins.clinic import KEYSTORES, OWNER, PROJECT, READER, SECONDS, Clinic, OpenClinic, slices, until
from tests.twins.disk import no_room_behind
from tests.twins.key_tasks import clinic_with, done, held, is_clean, is_readable
from tests.twins.keystores import TwinKeystore, always_current, random_guid, shares_of, unreachable
from tests.twins.store import MemoryRows, Table

FIRST, SECOND, THIRD = KEYSTORES
PATIENT_NAME = "Doe^Jane"
SUBJECT = SubjectId.from_random(bytes(10)).text


def put(opened: OpenClinic, keystore: str, guid: Guid, share: Share | bytes) -> None:
    """Lay something else onto a shelf."""
    page = opened.clinic.keystores[keystore].shelf.page
    octets = share if isinstance(share, bytes) else share.encode()
    record = page.keys[guid]
    page.keys[guid] = KeyRecord(owner=record.owner, share=octets, aliases=record.aliases)


def asking(path: str, message: Message, caller: Principal) -> Request:
    """Make a request."""

    async def body() -> bytes:
        await trio.lowlevel.checkpoint()
        return msgspec.msgpack.encode(message)

    return Request("POST", path, {}, caller, Address("192.0.2.7", 1), body)


def flipped(share: Share | None) -> Share:
    """Change one bit of a share's value."""
    assert share is not None
    return dataclasses.replace(share, y=bytes([share.y[0] ^ 1]) + share.y[1:])


async def test_after_a_registration_nothing_is_wrong(tmp_path: Path) -> None:
    """Every file is looked at, and every keystore."""
    async with clinic_with(tmp_path, 3) as opened:
        found = await done(opened, KeyTask.VERIFY)
        assert (found.files, found.files_done, found.faults, found.lost) == (3, 3, {}, 0)
        assert found.is_over


def on_record(opened: OpenClinic, event: str) -> set[Guid]:
    """Name the files of which the audit log tells something."""
    return {Guid.parse(str(record["guid"])) for record in opened.audited() if record["event"] == event}


async def test_each_fault_is_named_with_its_keystore_and_repaired(tmp_path: Path) -> None:
    """Missing, wrong, stale by split and by file; afterwards each keystore has the share that it had."""
    async with clinic_with(tmp_path, 4) as opened:
        guids = list(opened.files().values())
        before = {(name, guid): held(opened, name, guid) for name in KEYSTORES for guid in guids}
        del opened.clinic.keystores[FIRST].shelf.page.keys[guids[0]]
        put(opened, SECOND, guids[1], flipped(before[SECOND, guids[1]]))
        put(opened, THIRD, guids[2], shares_of(guids[2], bytes(32), generation=1)[2])
        put(opened, FIRST, guids[3], shares_of(guids[3], bytes(32), generation=0)[0])
        found = await done(opened, KeyTask.REPAIR)
        assert found.faults == {"missing": 1, "wrong": 1, "stale": 2}
        assert set(found.lines) == {
            f"{guids[0]} {FIRST}: missing",
            f"{guids[1]} {SECOND}: wrong",
            f"{guids[2]} {THIRD}: stale",
            f"{guids[3]} {FIRST}: stale",
        }
        assert (found.changed, found.lost) == (4, 0)
        assert on_record(opened, "repair") == set(guids)
        assert await is_clean(opened)
        assert {(name, guid): held(opened, name, guid) for name in KEYSTORES for guid in guids} == before


async def test_verifying_changes_nothing(tmp_path: Path) -> None:
    """A fault stays until somebody asks for its repair."""
    async with clinic_with(tmp_path, 1) as opened:
        (guid,) = opened.files().values()
        wrong = flipped(held(opened, FIRST, guid))
        put(opened, FIRST, guid, wrong)
        assert (await done(opened, KeyTask.VERIFY)).faults == {"wrong": 1}
        assert held(opened, FIRST, guid) == wrong


async def test_a_share_of_another_file_is_wrong(tmp_path: Path) -> None:
    """A keystore that swaps two files is found out at both."""
    async with clinic_with(tmp_path, 2) as opened:
        first, second = opened.files().values()
        keys = opened.clinic.keystores[FIRST].shelf.page.keys
        one, other = keys[first].share, keys[second].share
        put(opened, FIRST, first, other)
        put(opened, FIRST, second, one)
        assert (await done(opened, KeyTask.REPAIR)).faults == {"wrong": 2}
        told = [record for record in opened.audited() if record["event"] == "wrong-share"]
        assert {str(record["guid"]) for record in told} == {str(first), str(second)}
        assert all(str(record["outcome"]).startswith(f"{FIRST}: ") for record in told)
        assert await is_clean(opened)


async def test_a_key_that_too_few_hold_is_told_as_lost_and_nothing_is_invented(tmp_path: Path) -> None:
    """One right share of three makes no key, and none is sent."""
    async with clinic_with(tmp_path, 1) as opened:
        (guid,) = opened.files().values()
        for name in (FIRST, SECOND):
            del opened.clinic.keystores[name].shelf.page.keys[guid]
        found = await done(opened, KeyTask.REPAIR)
        assert (found.lost, found.changed, found.faults) == (1, 0, {"missing": 2})
        assert f"{guid}: no shares make its key" in found.lines


async def test_a_keystore_that_does_not_answer_is_named_and_the_others_are_judged(tmp_path: Path) -> None:
    """Silence is no fault of a share, and not clean either."""
    async with clinic_with(tmp_path, 1) as opened:
        (guid,) = opened.files().values()
        opened.clinic.keystores[THIRD].failure = unreachable
        put(opened, FIRST, guid, flipped(held(opened, FIRST, guid)))
        found = await done(opened, KeyTask.VERIFY)
        assert list(found.silent) == [THIRD]
        # of two shares that contradict each other nobody knows which one lies
        assert (found.lost, found.faults) == (1, {})


async def test_a_share_that_is_left_of_a_destroyed_file_is_surplus_and_goes(tmp_path: Path) -> None:
    """Also where a keystore was restored behind our back and says that it has heard everything."""
    async with clinic_with(tmp_path, 2) as opened:
        gone, stays = opened.files().values()
        record = opened.clinic.keystores[FIRST].shelf.page.keys[gone]
        found = await done(opened, KeyTask.DESTROY, [gone])
        assert (found.is_effective, found.behind, found.changed) == (True, [], 1)
        assert f'"destruction","guid":"{gone}"' in (tmp_path / "audit.jsonl").read_text()
        assert await is_clean(opened)
        page = opened.clinic.keystores[FIRST].shelf.page
        page.graves.clear()
        page.keys[gone] = record
        assert (await done(opened, KeyTask.REPAIR)).faults == {"surplus": 1}
        assert await is_clean(opened)
        assert held(opened, FIRST, gone) is None
        assert await is_readable(opened, stays)


async def test_destroying_takes_name_shares_and_staged_objects(tmp_path: Path) -> None:
    """Nobody opens it any more, the owner included; pending while too many keystores are away, with their names."""
    async with clinic_with(tmp_path, 2) as opened:
        gone, stays = opened.files().values()
        await opened.read(gone)
        for name in (FIRST, SECOND):
            opened.clinic.keystores[name].failure = unreachable
        found = await done(opened, KeyTask.DESTROY, [gone])
        assert (found.is_effective, set(found.behind)) == (False, {FIRST, SECOND})
        assert list(opened.files().values()) == [stays]
        assert opened.hospital.staging.find(gone, 1) is None
        for name in (FIRST, SECOND):
            opened.clinic.keystores[name].failure = None
        await until(lambda: all(held(opened, name, gone) is None for name in KEYSTORES))
        answers = await opened.hospital.keystores.collect([gone], enough=1, deadline=trio.current_time() + 5)
        assert not answers[gone].shares


async def test_a_subjects_files_or_a_projects_are_destroyed_and_no_others(tmp_path: Path) -> None:
    """By hand, named by what the grid knows; a name that fits nothing is told before anything is done."""
    async with clinic_with(tmp_path, 3) as opened:
        (series,) = opened.series()
        for unknown in (Selection(subject=SubjectId("a" * 16)), Selection(project="neuro-2")):
            assert "was ever registered" in (await done(opened, KeyTask.DESTROY, unknown)).failure
        assert len(opened.files()) == 3
        found = await done(opened, KeyTask.DESTROY, Selection(subject=series.subject))
        assert (found.changed, found.is_effective, opened.files()) == (3, True, {})
        again = await done(opened, KeyTask.DESTROY, Selection(project=series.project))
        assert (again.changed, again.is_effective) == (3, True)


async def test_each_keystore_certifies_what_it_destroyed_and_when_its_backups_expire(tmp_path: Path) -> None:
    """Signed with its own key; what it still holds, or never heard of, is named as not destroyed."""
    credential = host("a keystore that certifies").save(tmp_path, "keystore")
    async with clinic_with(tmp_path, 2) as opened:
        first, second = opened.files().values()
        for twin in opened.clinic.keystores.values():
            twin.restart(currency=always_current(OWNER.dn), notary=Notary("k", credential, 30))
        opened.clinic.keystores[THIRD].failure = unreachable
        tasks = Tasks(opened.hospital, opened.nursery)
        await tasks.start(KeyTask.DESTROY, Selection((first,)))
        await until(lambda: tasks.progress().is_over and tasks.progress().behind == [THIRD])
        found = await tasks.certificates(0)
        assert (found.count, sorted(found.certificates), list(found.silent)) == (1, sorted([FIRST, SECOND]), [THIRD])
        assert await tasks.certificates(1) == Certificates({}, {}, 0)
        for certificate in found.certificates.values():
            refuse_other_signature(certificate.chain[0], certificate.document, certificate.signature)
            with pytest.raises(IntegrityError):
                refuse_other_signature(certificate.chain[0], certificate.document + b" ", certificate.signature)
            told = json.loads(certificate.document)
            assert list(told["destroyed"]) == [str(first)]
            at, expires = (
                dt.datetime.fromisoformat(it) for it in (told["destroyed"][str(first)], told["backups expire"])
            )
            assert expires - at == dt.timedelta(days=30)
            assert "not recalled" in told["says"]
        keystore = opened.clinic.keystores[FIRST].as_seen_by(OWNER)
        held = await keystore.call(
            CERTIFY_PATH, Certify([first.octets, second.octets]), Certificate, deadline=trio.current_time() + 5
        )
        told = json.loads(held.document)
        assert (list(told["destroyed"]), told["not destroyed"]) == ([str(first)], [str(second)])
        reader = opened.clinic.keystores[FIRST].as_seen_by(READER)
        with pytest.raises(AccessDeniedError):
            await reader.call(CERTIFY_PATH, Certify([first.octets]), Certificate, deadline=trio.current_time() + 5)


async def test_rotated_keys_open_what_is_sealed_from_then_on(tmp_path: Path) -> None:
    """Another key, the next generation, a new check; the hospital seals with it, and the old shares are gone."""
    async with clinic_with(tmp_path, 2) as opened:
        guid = next(iter(opened.files().values()))
        plaintext, old = await opened.read(guid), held(opened, FIRST, guid)
        found = await done(opened, KeyTask.ROTATE)
        assert found.changed == 2
        assert await is_clean(opened)
        new, file = held(opened, FIRST, guid), opened.hospital.store.read(lambda tx: tx.catalogue.file(guid))
        assert old is not None
        assert new is not None
        assert file is not None
        assert (new.generation, file.generation) == (old.generation + 1, old.generation + 1)
        assert guid in on_record(opened, "rotation")
        assert opened.hospital.staging.find(guid, old.generation) is None
        assert await opened.read(guid) == plaintext


async def test_keys_are_new_also_where_keystores_hold_later_ones_than_a_restored_hospital(tmp_path: Path) -> None:
    """A generation that they know would be refused by them, and the file be lost."""
    async with clinic_with(tmp_path, 1) as opened:
        (guid,) = opened.files().values()
        for name, share in zip(KEYSTORES, shares_of(guid, bytes(32), generation=4), strict=True):
            put(opened, name, guid, share)
        assert (await done(opened, KeyTask.VERIFY)).lost == 1
        assert (await done(opened, KeyTask.ROTATE)).changed == 1
        assert await is_clean(opened)
        file = opened.hospital.store.read(lambda tx: tx.catalogue.file(guid))
        assert file is not None
        assert file.generation == 5
        assert await opened.read(guid)


@pytest.mark.parametrize("claimed", [MAX_GENERATION - 1, MAX_GENERATION])
async def test_a_keystore_that_lies_about_its_generation_keeps_no_key_from_being_rotated(
    claimed: int, tmp_path: Path
) -> None:
    """Against it keys are rotated: there must be a next generation, now and ever after."""
    async with clinic_with(tmp_path, 1) as opened:
        (guid,) = opened.files().values()
        put(opened, FIRST, guid, shares_of(guid, bytes(32), generation=claimed)[0])
        assert [(await done(opened, KeyTask.ROTATE)).changed for _ in range(2)] == [1, 1]
        file = opened.hospital.store.read(lambda tx: tx.catalogue.file(guid))
        assert file is not None
        assert file.generation == 3
        assert await opened.read(guid)


async def test_a_rotation_waits_once_for_a_keystore_that_does_not_answer(tmp_path: Path) -> None:
    """A hospital has thousands of pages, and 20 s for each would take half a day."""
    async with clinic_with(tmp_path, 3) as opened:
        twin = opened.clinic.keystores[FIRST]
        twin.failure = unreachable
        asked = twin.paths.count(COLLECT_PATH)
        task = Task(KeyTask.ROTATE, Selection(), opened.hospital, page=1)
        await task.run()
        found = task.progress()
        assert (found.changed, list(found.silent)) == (3, [FIRST])
        assert twin.paths.count(COLLECT_PATH) == asked + 1


async def test_keys_that_too_few_keystores_have_room_for_stay_as_they_are_and_files_open(tmp_path: Path) -> None:
    """Whoever refuses is named, with his reason; once there is room, keys are new, and each keystore has its share."""
    async with clinic_with(tmp_path, 2) as opened:
        guids, twins = list(opened.files().values()), opened.clinic.keystores
        plaintext = [await opened.read(guid) for guid in guids]
        for name in (SECOND, THIRD):
            twins[name].room = 0
        for _ in range(2):
            found = await done(opened, KeyTask.ROTATE)
            assert found.changed == 0
            assert found.silent == dict.fromkeys((SECOND, THIRD), "the shelf is full")
            assert "only 1 of the 2 keystores that make a key took new shares, and the files keep" in found.failure
            assert f"theirs: {SECOND}: the shelf is full; {THIRD}: the shelf is full" in found.failure
        for guid, expected in zip(guids, plaintext, strict=True):
            opened.hospital.staging.discard(guid)
            assert await opened.read(guid) == expected
            assert await is_readable(opened, guid)
        for name in (SECOND, THIRD):
            twins[name].room = float("inf")
        assert (await done(opened, KeyTask.ROTATE)).changed == 2
        assert await is_clean(opened)
        assert [await opened.read(guid) for guid in guids] == plaintext


@pytest.mark.parametrize("full", KEYSTORES)
async def test_one_keystore_without_room_keeps_no_key_from_being_rotated(full: str, tmp_path: Path) -> None:
    """It gets its share when there is room; no file is closed meanwhile, and it is asked first no more."""
    async with clinic_with(tmp_path, 3) as opened:
        twin = opened.clinic.keystores[full]
        twin.room = 0
        task = Task(KeyTask.ROTATE, Selection(), opened.hospital, page=1)
        await task.run()
        found = task.progress()
        assert (found.failure, found.changed) == ("", 3)
        assert set(found.silent) <= {full}
        for guid in opened.files().values():
            assert await is_readable(opened, guid)
        twin.room = float("inf")
        with trio.fail_after(SECONDS):
            while not await is_clean(opened):  # noqa: ASYNC110 a keystore that has refused is asked again
                await trio.sleep(0.1)


async def test_keys_that_two_keystores_hold_alone_are_not_tried_first_at_one_of_them(tmp_path: Path) -> None:
    """The third has lost its shelf and has no room: the files open by themselves once another has."""
    async with clinic_with(tmp_path, 2) as opened:
        guids, twins = list(opened.files().values()), opened.clinic.keystores
        plaintext = [await opened.read(guid) for guid in guids]
        twins[FIRST].shelf.page.keys.clear()
        twins[FIRST].room = twins[THIRD].room = 0
        found = await done(opened, KeyTask.ROTATE)
        assert (found.failure, found.changed, list(found.silent)) == ("", 2, [FIRST])
        twins[THIRD].room = float("inf")
        with trio.fail_after(SECONDS):
            while not all([await is_readable(opened, guid) for guid in guids]):  # noqa: ASYNC110 as above
                await trio.sleep(0.1)
        assert [await opened.read(guid) for guid in guids] == plaintext


async def test_who_has_no_share_of_the_old_keys_gets_new_ones_first(tmp_path: Path) -> None:
    """Where the others have no room for theirs, they have the old ones as before."""
    async with clinic_with(tmp_path, 2) as opened:
        guids, twins = list(opened.files().values()), opened.clinic.keystores
        twins[THIRD].shelf.page.keys.clear()
        twins[FIRST].room = twins[SECOND].room = 0
        found = await done(opened, KeyTask.ROTATE)
        assert (found.changed, list(found.silent)) == (0, [FIRST, SECOND])
        assert all([await is_readable(opened, guid) for guid in guids])


async def test_a_file_that_was_lost_before_closes_no_other_where_keystores_have_no_room(tmp_path: Path) -> None:
    """It has nothing to lose, and opens once there is room; the others keep their keys."""
    async with clinic_with(tmp_path, 2) as opened:
        (lost, other), twins = opened.files().values(), opened.clinic.keystores
        for name in (SECOND, THIRD):
            del twins[name].shelf.page.keys[lost]
            twins[name].room = 0
        found = await done(opened, KeyTask.ROTATE)
        assert "only 1 of the 2 keystores" in found.failure
        assert await is_readable(opened, other)
        for name in (SECOND, THIRD):
            twins[name].room = float("inf")
        with trio.fail_after(SECONDS):
            while not await is_readable(opened, lost):  # noqa: ASYNC110 as above
                await trio.sleep(0.1)


async def test_keys_are_new_at_once_where_no_keystore_answers(tmp_path: Path) -> None:
    """They have their shares as soon as they are back."""
    async with clinic_with(tmp_path, 2) as opened:
        twins = opened.clinic.keystores.values()
        for twin in twins:
            twin.failure = unreachable
        found = await done(opened, KeyTask.ROTATE)
        assert (found.failure, found.changed, sorted(found.silent)) == ("", 2, [*KEYSTORES])
        for twin in twins:
            twin.failure = None
        with trio.fail_after(SECONDS):
            while not await is_clean(opened):  # noqa: ASYNC110 as above
                await trio.sleep(0.1)


@pytest.mark.parametrize("refuses", [1, 2])
async def test_who_has_taken_some_of_its_shares_has_given_the_old_ones_up(refuses: int, tmp_path: Path) -> None:
    """Another that took its own would close what the first one took; of who refuses all nothing is lost."""
    async with clinic_with(tmp_path, 2) as opened:
        guids, hospital = list(opened.files().values()), opened.hospital
        for guid in guids[:refuses]:
            put(opened, FIRST, guid, shares_of(guid, bytes(32), generation=9)[0])
        new = hospital.store.read(lambda tx: renewals.new_keys(tx, hospital, guids))
        given = await give_first(hospital, [one.shipment for one in new], KEYSTORES, current=KEYSTORES, spare=1)
        taken = [] if refuses == 1 else [SECOND, THIRD]
        assert given == Given(taken, {FIRST: f"it refused {refuses} of 2 new shares"}, is_safe=refuses == 2)


async def killed_in_a_rotation(opened: OpenClinic, given: int) -> list[renewals.Renewal]:
    """Leave what a kill leaves when so many keystores have taken the new keys of all files, and nobody has noted it."""
    hospital, guids = opened.hospital, list(opened.files().values())
    new = hospital.store.read(lambda tx: renewals.new_keys(tx, hospital, guids))
    await hospital.store.write(lambda tx: renewals.note(tx, hospital, new))
    shipments = [one.shipment for one in new]
    await give_first(hospital, shipments, KEYSTORES[:given], current=KEYSTORES, spare=1)
    return new


def noted(opened: OpenClinic) -> list[OutboxItem]:
    """Give the notes of new keys."""
    return opened.hospital.store.read(lambda tx: tx.outbox.peek(RENEWALS, limit=9))


async def test_who_took_new_keys_and_could_not_say_so_has_them(tmp_path: Path) -> None:
    """Its answer was lost, and the next one is full: two of three have changed over, so the files have."""
    async with clinic_with(tmp_path, 2) as opened:
        guids, twins = list(opened.files().values()), opened.clinic.keystores
        plaintext = [await opened.read(guid) for guid in guids]
        twins[THIRD].room, twins[SECOND].loses_answers = 0, 1
        found = await done(opened, KeyTask.ROTATE)
        assert (found.changed, found.failure, list(found.silent)) == (2, "", [SECOND, THIRD])
        assert not noted(opened)
        assert [await opened.read(guid) for guid in guids] == plaintext


@pytest.mark.parametrize("given", [0, 1, 2])
async def test_a_rotation_that_was_killed_leaves_each_file_a_key_that_opens_it(
    given: int, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Between a keystore's answer and the note that all have changed over: nobody has to rotate again."""
    assert autojump_clock.rate == 0
    async with clinic_with(tmp_path, 2) as opened:
        guids = list(opened.files().values())
        plaintext = [await opened.read(guid) for guid in guids]
        new = await killed_in_a_rotation(opened, given)
        opened.nursery.start_soon(Tasks(opened.hospital, opened.nursery).take_up)
        await trio.sleep(LATE + 2 * SOON)
        assert not noted(opened)
        await opened.deliver()
        for guid in guids:
            opened.hospital.discard(guid)
        assert [await opened.read(guid) for guid in guids] == plaintext
        files = opened.hospital.store.read(lambda tx: [tx.catalogue.file(guid) for guid in guids])
        generations = {file.generation for file in files if file is not None}
        assert generations == ({one.generation for one in new} if given == 2 else {FIRST_GENERATION})
        assert await is_clean(opened) is (given != 1)  # the one that has a later share is told of
        assert [await is_readable(opened, guid) for guid in guids] == [True, True]


async def test_who_starts_without_keystores_settles_a_rotation_when_they_answer(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """After a power cut all start at once."""
    assert autojump_clock.rate == 0
    async with clinic_with(tmp_path, 1) as opened:
        await killed_in_a_rotation(opened, 2)
        for name in (SECOND, THIRD):
            opened.clinic.keystores[name].failure = unreachable
        opened.nursery.start_soon(Tasks(opened.hospital, opened.nursery).take_up)
        await trio.sleep(2 * SOON)
        assert noted(opened)
        for name in (SECOND, THIRD):
            opened.clinic.keystores[name].failure = None
        await trio.sleep(2 * SOON)
        assert not noted(opened)
        await opened.deliver()
        assert await is_clean(opened)


async def test_new_keys_that_arrive_after_all_others_looked_are_the_files_own(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """A keystore on a slow disk takes its shares when whoever sent them was killed long ago."""
    assert autojump_clock.rate == 0
    async with clinic_with(tmp_path, 1) as opened:
        (new,) = await killed_in_a_rotation(opened, 1)
        guid = new.shipment.guid
        opened.nursery.start_soon(Tasks(opened.hospital, opened.nursery).take_up)
        await trio.sleep(2 * SOON)
        assert await is_readable(opened, guid)
        put(opened, SECOND, guid, Share.parse(new.shipment.shares[SECOND]))
        await trio.sleep(2 * SOON)
        assert not noted(opened)
        await opened.deliver()
        assert await is_readable(opened, guid)
        assert await is_clean(opened)


async def test_a_rotation_that_fails_keeps_its_note_while_shares_may_be_on_their_way(tmp_path: Path) -> None:
    """One did not answer and the next is full; all that have answered opens the files with the old keys."""
    async with clinic_with(tmp_path, 1) as opened:
        twins = opened.clinic.keystores
        twins[SECOND].failure, twins[SECOND].fails_at, twins[THIRD].room = unreachable, SET_ACLS_PATH, 0
        assert "only 1 of the 2 keystores" in (await done(opened, KeyTask.ROTATE)).failure
        assert noted(opened)


async def test_no_generation_is_made_twice_where_those_who_hold_it_do_not_answer(tmp_path: Path) -> None:
    """They would keep what they have, and the files be closed when they are back."""
    async with clinic_with(tmp_path, 1) as opened:
        (new,) = await killed_in_a_rotation(opened, 2)
        for name in (FIRST, SECOND):
            opened.clinic.keystores[name].failure = unreachable
        assert (await done(opened, KeyTask.ROTATE)).changed == 1
        file = opened.hospital.store.read(lambda tx: tx.catalogue.file(new.shipment.guid))
        assert file is not None
        assert file.generation == new.generation + 1
        for name in (FIRST, SECOND):
            opened.clinic.keystores[name].failure = None
        await opened.deliver()
        assert await is_clean(opened)


async def test_a_file_that_goes_meanwhile_gets_no_new_key_back(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Of the others the rotation is settled as ever."""
    assert autojump_clock.rate == 0
    async with clinic_with(tmp_path, 2) as opened:
        new = await killed_in_a_rotation(opened, 2)
        gone, left = (one.shipment.guid for one in new)
        await take_away(opened.hospital, [gone])
        opened.nursery.start_soon(Tasks(opened.hospital, opened.nursery).take_up)
        await trio.sleep(LATE + 2 * SOON)
        assert not noted(opened)
        assert list(opened.files().values()) == [left]
        file = opened.hospital.store.read(lambda tx: tx.catalogue.file(gone))
        assert file is None or file.state is FileState.WITHDRAWN
        await opened.deliver()
        assert await is_clean(opened)


async def test_a_rotation_leaves_no_note_whatever_comes_of_it_and_shows_no_share_meanwhile(tmp_path: Path) -> None:
    """A copy of the store alone makes no key."""
    async with clinic_with(tmp_path, 1) as opened:
        (new,) = await killed_in_a_rotation(opened, 0)
        (item,) = noted(opened)
        values = [Share.parse(share).y for share in new.shipment.shares.values()]
        assert len(values) == len(KEYSTORES)
        assert not any(value in item.payload for value in values)
        await opened.hospital.store.write(lambda tx: tx.outbox.drop(RENEWALS, [item.number]))
        assert (await done(opened, KeyTask.ROTATE)).changed == 1
        assert not noted(opened)
        for twin in opened.clinic.keystores.values():
            twin.room = 0
        assert (await done(opened, KeyTask.ROTATE)).failure
        assert not noted(opened)


async def test_a_rotation_under_way_is_settled_by_itself_alone(tmp_path: Path) -> None:
    """Its note is no kill's."""
    async with clinic_with(tmp_path, 1) as opened:
        await killed_in_a_rotation(opened, 2)
        tasks = Tasks(opened.hospital, opened.nursery)
        opened.clinic.keystores[FIRST].failure = unreachable
        await tasks.start(KeyTask.VERIFY, Selection())
        assert not tasks.progress().is_over
        opened.nursery.start_soon(tasks.take_up)
        await until(lambda: tasks.progress().is_over)
        assert noted(opened)


async def test_new_keys_wait_for_what_was_sent_before_and_for_nothing_that_comes_meanwhile(tmp_path: Path) -> None:
    """While an archive is registered there is always something on its way to every keystore."""
    async with clinic_with(tmp_path, 1) as opened:
        (guid,), hospital = opened.files().values(), opened.hospital
        new = hospital.store.read(lambda tx: renewals.new_keys(tx, hospital, [guid]))
        before = await hospital.store.write(lambda tx: tx.outbox.push(FIRST, DEPOSIT, b"", b"nobody opens it"))
        given: list[Given] = []

        async def give() -> None:
            given.append(
                await give_first(hospital, [one.shipment for one in new], KEYSTORES, current=KEYSTORES, spare=1)
            )

        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(give)
                await trio.sleep(0.2)
                assert held(opened, FIRST, guid) != Share.parse(new[0].shipment.shares[FIRST]), "too early"
                await hospital.store.write(lambda tx: tx.outbox.push(FIRST, DEPOSIT, b"", b"nor this"))
                await hospital.store.write(lambda tx: tx.outbox.drop(FIRST, [before]))
        assert given == [Given([FIRST, SECOND], {}, is_safe=True)]


class TakenOverStore:
    """A store that another daemon works on by now."""

    def __init__(self, store: Store) -> None:
        self.read = store.read

    def refuse_stale(self) -> None:
        """See ``Store``."""
        message = "another daemon has taken over"
        raise PeerUnreachableError(message)


async def test_a_hospital_whose_store_another_has_taken_over_gives_no_keystore_new_keys(tmp_path: Path) -> None:
    """It could not note them: k keystores would hold what opens nothing."""
    async with clinic_with(tmp_path, 1) as opened:
        (guid,), hospital = opened.files().values(), opened.hospital
        new = hospital.store.read(lambda tx: renewals.new_keys(tx, hospital, [guid]))
        taken_over = dataclasses.replace(hospital, store=cast("Store", TakenOverStore(hospital.store)))
        given = await give_first(taken_over, [one.shipment for one in new], KEYSTORES, current=KEYSTORES, spare=1)
        refused = dict.fromkeys(KEYSTORES, "another daemon has taken over")
        assert given == Given([], refused, is_safe=True, is_certain=False)
        assert await is_clean(opened)


async def test_keystores_that_fill_up_while_keys_are_rotated_close_nothing(tmp_path: Path) -> None:
    """What has new keys by then has them, and the rest the old ones."""
    async with clinic_with(tmp_path, 3) as opened:
        guids, twins = list(opened.files().values()), opened.clinic.keystores
        plaintext = [await opened.read(guid) for guid in guids]
        twins[SECOND].room = twins[THIRD].room = 1
        task = Task(KeyTask.ROTATE, Selection(), opened.hospital, page=1)
        await task.run()
        assert (task.progress().changed, bool(task.progress().failure)) == (1, True)
        for guid, expected in zip(guids, plaintext, strict=True):
            opened.hospital.staging.discard(guid)
            assert await opened.read(guid) == expected
            assert await is_readable(opened, guid)


@pytest.mark.parametrize(
    ("added", "removed"), [(("k4", "k5"), ()), (("k4",), (THIRD,))], ids=["three to five", "one replaced"]
)
async def test_new_keystores_get_shares_under_a_new_split_while_reads_go_on(
    added: tuple[str, ...], removed: tuple[str, ...], tmp_path: Path
) -> None:
    """At every instant that a reader looks, k shares of one split are there."""
    async with clinic_with(tmp_path, 20) as opened:
        guids = list(opened.files().values())
        before = {guid: held(opened, FIRST, guid) for guid in guids}
        for name in added:
            opened.clinic.keystores[name] = TwinKeystore(OWNER.dn)
        kept = {name: twin for name, twin in opened.clinic.keystores.items() if name not in removed}
        clients = {name: twin.as_seen_by(OWNER) for name, twin in kept.items()}
        hospital = dataclasses.replace(opened.hospital, keystores=Keystores(clients, opened.nursery), threshold=2)
        grown = OpenClinic(opened.clinic, hospital, opened.recalls, opened.nursery, delivers=True)
        failed: list[Guid] = []
        rounds: list[int] = []

        async def read_on() -> None:
            while True:
                failed.extend([guid for guid in guids if not await is_readable(grown, guid)])
                rounds.append(len(failed))

        opened.nursery.start_soon(deposit, hospital)
        opened.nursery.start_soon(keep_current, hospital)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_on)
            await until(lambda: bool(rounds))
            found = await done(grown, KeyTask.RESPLIT)
            before_last = len(rounds)
            await until(lambda: len(rounds) > before_last + 1)
            nursery.cancel_scope.cancel()
        assert found.changed == 20
        assert failed == []
        assert on_record(grown, "resplit") == set(guids)
        assert await is_clean(grown)
        for guid in guids:
            splits = {share.split_id for name in clients if (share := held(grown, name, guid))}
            old = before[guid]
            assert old is not None
            assert len(splits) == 1
            assert old.split_id not in splits


async def test_what_waits_for_a_removed_keystore_goes_once_all_keys_are_split_anew(tmp_path: Path) -> None:
    """Not before: a share that it has yet to get may be one of the k that there are."""
    async with clinic_with(tmp_path, 2) as opened:
        first, second = opened.files().values()
        opened.clinic.keystores[THIRD].failure = unreachable
        await done(opened, KeyTask.ROTATE)
        clients = {name: opened.clinic.keystores[name].as_seen_by(OWNER) for name in (FIRST, SECOND)}
        smaller = dataclasses.replace(opened.hospital, keystores=Keystores(clients, opened.nursery))
        left = OpenClinic(opened.clinic, smaller, opened.recalls, opened.nursery, delivers=True)

        def waiting() -> int:
            return len(opened.hospital.store.read(lambda tx: tx.outbox.peek(THIRD, limit=10)))

        assert waiting() == 1
        await done(left, KeyTask.RESPLIT, [first, second])
        opened.clinic.keystores[SECOND].failure = unreachable
        await done(left, KeyTask.RESPLIT)
        assert waiting() == 1
        opened.clinic.keystores[SECOND].failure = None
        lost = opened.clinic.keystores[SECOND].shelf.page.keys.pop(first)
        found = await done(left, KeyTask.RESPLIT)
        assert (found.lost, found.silent, waiting()) == (1, {}, 1)
        opened.clinic.keystores[SECOND].shelf.page.keys[first] = lost
        opened.clinic.keystores["k4"] = TwinKeystore(OWNER.dn)
        opened.clinic.keystores["k4"].failure = unreachable
        with_newcomer = clients | {"k4": opened.clinic.keystores["k4"].as_seen_by(OWNER)}
        grown = dataclasses.replace(opened.hospital, keystores=Keystores(with_newcomer, opened.nursery))
        found = await done(
            OpenClinic(opened.clinic, grown, opened.recalls, opened.nursery, delivers=True), KeyTask.RESPLIT
        )
        assert (found.lost, list(found.silent), waiting()) == (0, ["k4"], 1)
        assert (await done(left, KeyTask.RESPLIT)).changed == 2
        assert waiting() == 0
        assert await is_clean(left)


async def test_a_series_that_lost_a_keystore_while_it_was_registered_shows_once_another_holds_its_keys(
    tmp_path: Path,
) -> None:
    """The new one was sent nothing for it but by the split, so no acknowledgement would ever show it."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    clinic.required = len(KEYSTORES)
    async with clinic.open() as opened:
        clinic.keystores[THIRD].failure = unreachable
        await opened.harvest()
        opened.nursery.start_soon(keep_current, opened.hospital)
        await done(opened, KeyTask.VERIFY)
        assert opened.names() == []  # something is on its way to the third
        clinic.keystores["k4"] = TwinKeystore(OWNER.dn)
        names = (FIRST, SECOND, "k4")
        clients = {name: clinic.keystores[name].as_seen_by(OWNER) for name in names}
        hospital = dataclasses.replace(opened.hospital, keystores=Keystores(clients, opened.nursery))
        renewed = OpenClinic(clinic, hospital, opened.recalls, opened.nursery, delivers=True)
        opened.nursery.start_soon(keep_current, hospital)
        opened.nursery.start_soon(deposit, hospital)
        found = await done(renewed, KeyTask.RESPLIT)
        assert (found.changed, opened.names()) == (2, [])
        assert await is_clean(renewed)
        assert len(opened.names()) == 2
        assert all([await is_readable(renewed, guid) for guid in opened.files().values()])


async def test_a_split_with_another_threshold_is_in_the_catalogue(tmp_path: Path) -> None:
    """Readers are told how many shares make the key."""
    async with clinic_with(tmp_path, 1) as opened:
        (guid,) = opened.files().values()
        hospital = dataclasses.replace(opened.hospital, threshold=3)
        await hospital.store.write(lambda tx: adopt_threshold(tx, hospital, [guid, random_guid()]))
        file = hospital.store.read(lambda tx: tx.catalogue.file(guid))
        assert file is not None
        assert file.threshold == 3


async def test_one_task_at_a_time_and_none_that_destroys_everything(tmp_path: Path) -> None:
    """A second one is told what runs; a destruction names its files; an unknown file ends the task."""
    async with clinic_with(tmp_path, 1) as opened:
        tasks = Tasks(opened.hospital, opened.nursery)
        with pytest.raises(UnknownNameError, match="no task"):
            tasks.progress()
        with pytest.raises(UnknownNameError, match="no file, subject or project"):
            await tasks.start(KeyTask.DESTROY, Selection())
        await tasks.start(KeyTask.VERIFY, Selection())
        with pytest.raises(BusyError, match="verify is under way"):
            await tasks.start(KeyTask.ROTATE, Selection())
        await trio.sleep(0.5)
        assert tasks.progress().is_over
        found = await done(opened, KeyTask.DESTROY, [random_guid()])
        assert "there is no file" in found.failure
        assert (found.changed, found.files_done) == (0, 0)


@pytest.mark.parametrize("what", ["guids", "subject", "project", "below"])
async def test_a_destruction_that_was_killed_goes_on_by_itself(tmp_path: Path, what: str) -> None:
    """Of any kind: whoever called for it may have gone, and must not find half of it years later."""
    async with clinic_with(tmp_path, 3) as opened:
        (series,), guids = opened.series(), tuple(opened.files().values())
        selection = {
            "guids": Selection(guids),
            "subject": Selection(subject=series.subject),
            "project": Selection(project=series.project),
            "below": Selection(below=series.lfn),
        }[what]
        async with trio.open_nursery() as killed:
            tasks = Tasks(opened.hospital, killed)
            await tasks.start(KeyTask.DESTROY, selection)
            killed.cancel_scope.cancel()
        assert len(opened.files()) == 3
        again = Tasks(opened.hospital, opened.nursery)
        opened.nursery.start_soon(again.take_up)
        await until(lambda: not opened.files() and again.progress().is_over)
        assert again.destroyed == list(guids)
        assert opened.hospital.store.read(lambda tx: tx.destructions.all()) == []


async def test_what_is_to_be_destroyed_goes_where_noted_keys_do_not_open(tmp_path: Path) -> None:
    """As after a restore without outbox.key: a rotation that cannot be settled keeps nobody's images."""
    async with clinic_with(tmp_path, 2) as opened:
        await killed_in_a_rotation(opened, 0)
        (item,) = noted(opened)
        spoilt = item.payload[:-1] + bytes([item.payload[-1] ^ 1])
        await opened.hospital.store.write(lambda tx: tx.outbox.replace(item, spoilt))
        selection = Selection(tuple(opened.files().values()))
        await opened.hospital.store.write(lambda tx: tx.destructions.put(selection.record))
        opened.nursery.start_soon(Tasks(opened.hospital, opened.nursery).take_up)
        await until(lambda: not opened.files())


@pytest.mark.parametrize("way", ["task", "end"])
async def test_what_is_destroyed_leaves_no_header_where_hospitald_is_killed_right_after(
    tmp_path: Path, way: str
) -> None:
    """Its key is gone, but beside it lies a digest of the header as the PACS has it."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    async with clinic.open() as opened:
        await opened.harvest()
        guids = list(opened.files().values())
        assert all(await opened.hospital.headers.find([(guid, FIRST_GENERATION) for guid in guids]))
        if way == "task":
            await done(opened, KeyTask.DESTROY, guids)
        else:
            await take_away(opened.hospital, guids)
    async with clinic.open() as opened:
        headers = opened.hospital.headers
        assert await headers.find([(guid, FIRST_GENERATION) for guid in guids]) == [b"", b""]
        assert [headers.origin(guid, FIRST_GENERATION) for guid in guids] == [None, None]


@pytest.mark.parametrize("what", ["subject", "project", "below"])
async def test_a_destruction_that_goes_on_takes_nothing_that_came_meanwhile(tmp_path: Path, what: str) -> None:
    """On images that were registered after it was called for nobody has decided."""
    async with clinic_with(tmp_path, 2) as opened:
        (series,), guids = opened.series(), tuple(opened.files().values())
        selection = {
            "subject": Selection(subject=series.subject),
            "project": Selection(project=series.project),
            "below": Selection(below=series.lfn),
        }[what]
        async with trio.open_nursery() as killed:
            await Tasks(opened.hospital, killed).start(KeyTask.DESTROY, selection)
            killed.cancel_scope.cancel()
        opened.clinic.pacs.held += slices((3, 4))
        assert (await opened.harvest()).registered == 2
        later = set(opened.files().values()) - set(guids)
        again = Tasks(opened.hospital, opened.nursery)
        opened.nursery.start_soon(again.take_up)
        await until(lambda: not opened.hospital.store.read(lambda tx: tx.destructions.all()))
        assert (tuple(again.destroyed), set(opened.files().values())) == (guids, later)


async def test_a_destruction_that_goes_on_takes_what_was_made_anew_meanwhile(tmp_path: Path) -> None:
    """It was called for images, and these are the same ones under other rules."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    async with clinic.open() as opened:
        await opened.harvest()
        async with trio.open_nursery() as killed:
            await Tasks(opened.hospital, killed).start(KeyTask.DESTROY, Selection(project=PROJECT))
            killed.cancel_scope.cancel()
    clinic.policy = read_policy("strict")
    async with clinic.open() as opened:
        run = Rerendering(opened.hospital.projects[PROJECT], patience=SECONDS)
        await run.run(opened.hospital)
        assert (run.rendered, run.destroyed, len(opened.files())) == (2, 2, 2)
        opened.nursery.start_soon(Tasks(opened.hospital, opened.nursery).take_up)
        await until(lambda: not opened.hospital.store.read(lambda tx: tx.destructions.all()))
        assert opened.files() == {}


def test_a_destruction_that_an_older_program_began_is_known_and_forgotten() -> None:
    """Its row has no number up to which files are meant, and lies under the same key."""
    rows = MemoryRows(Table(), is_writing=True)
    destructions = Destructions(rows)
    old = b"\x01" + msgspec.msgpack.encode(([], "", PROJECT, ""))
    rows.put(tables.DESTRUCTIONS + hashlib.sha256(old).digest()[:DIGEST_KEY_SIZE], old)
    (record,) = destructions.all()
    assert Selection.of_record(record) == Selection(project=PROJECT)
    assert destructions.remove(record)


async def test_a_destruction_that_a_full_disk_broke_off_goes_on_when_there_is_room(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """What cannot be put on record is not done; and it is tried again."""
    assert autojump_clock.rate == 0
    async with clinic_with(tmp_path, 2) as opened:
        tasks = Tasks(opened.hospital, opened.nursery)
        opened.nursery.start_soon(tasks.take_up)
        with no_room_behind(opened.clinic.folder / "audit.jsonl"):
            await tasks.start(KeyTask.DESTROY, Selection(project=PROJECT))
            await until(lambda: tasks.progress().is_over)
            assert tasks.progress().failure
            assert len(opened.files()) == 2
        with trio.fail_after(3 * INTERVAL):
            while opened.files():  # noqa: ASYNC110 nothing tells
                await trio.sleep(1)
            while opened.hospital.store.read(lambda tx: tx.destructions.all()):  # noqa: ASYNC110 as above
                await trio.sleep(1)


async def test_a_destruction_of_what_there_is_not_is_not_tried_again(tmp_path: Path) -> None:
    """Its caller is told; nothing is left to be done."""
    async with clinic_with(tmp_path, 1) as opened:
        tasks = Tasks(opened.hospital, opened.nursery)
        await tasks.start(KeyTask.DESTROY, Selection((random_guid(),)))
        await until(lambda: tasks.progress().is_over)
        assert "there is no file" in tasks.progress().failure
        assert opened.hospital.store.read(lambda tx: tx.destructions.all()) == []


async def test_only_the_hospitals_own_certificate_starts_a_task(tmp_path: Path) -> None:
    """A reader who could destroy or rotate could take everybody's images away."""
    async with clinic_with(tmp_path, 1) as opened:
        routes = face.key_routes(opened.hospital, Tasks(opened.hospital, opened.nursery))
        service = Service("hospital", routes)
        start = StartKeyTask(KeyTask.VERIFY)
        for path, message in (
            (KEYS_PATH, start),
            (KEYS_PROGRESS_PATH, AskKeyTask()),
            (KEYS_CERTIFY_PATH, AskCertificates()),
        ):
            with pytest.raises(AccessDeniedError):
                await service.answer(asking(path, message, READER))
        reply = await service.answer(asking(KEYS_PATH, start, OWNER))
        assert isinstance(reply, Reply)
        assert isinstance(reply.message, KeyProgress)


async def test_the_unforeseen_ends_a_task_and_nothing_else(tmp_path: Path) -> None:
    """It is told by a number, under which the log has more; what it says itself might name somebody."""
    async with clinic_with(tmp_path, 1) as opened:

        class Odd(Keystores):
            async def collect_from(
                self, keystore: str, guids: object, *, deadline: float
            ) -> list[tuple[Outcome, bytes]]:
                raise ValueError(keystore, guids, deadline, PATIENT_NAME)

        clients = {name: twin.as_seen_by(OWNER) for name, twin in opened.clinic.keystores.items()}
        hospital = dataclasses.replace(opened.hospital, keystores=Odd(clients, opened.nursery))
        tasks = Tasks(hospital, opened.nursery)
        with structlog.testing.capture_logs() as lines:
            await tasks.start(KeyTask.VERIFY, Selection())
            await until(lambda: tasks.progress().is_over)
        assert "incident" in tasks.progress().failure
        assert PATIENT_NAME not in tasks.progress().failure + repr(lines)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (StartKeyTask(KeyTask.VERIFY, guids=[b"short"]), "GUID"),
        (StartKeyTask(KeyTask.VERIFY, subject="somebody"), "subject"),
        (StartKeyTask(KeyTask.VERIFY, guids=[bytes(16)], project="p"), "name one of these"),
        (StartKeyTask(KeyTask.VERIFY, subject=SUBJECT, project="p"), "name one of these"),
        (StartKeyTask(KeyTask.VERIFY, guids=[bytes(16)], subject=SUBJECT), "name one of these"),
    ],
)
async def test_a_task_is_about_one_thing_that_can_be_read(tmp_path: Path, asked: StartKeyTask, told: str) -> None:
    """Of two things that are named, one would not be looked at."""
    async with clinic_with(tmp_path, 1) as opened:
        tasks = Tasks(opened.hospital, opened.nursery)
        service = Service("hospital", face.key_routes(opened.hospital, tasks))
        with pytest.raises(MalformedMessageError, match=told):
            await service.answer(asking(KEYS_PATH, asked, OWNER))
        with pytest.raises(UnknownNameError, match="no task"):
            tasks.progress()


async def test_shares_travel_with_the_acls_that_they_go_by(tmp_path: Path) -> None:
    """A keystore that lost both would keep everybody out."""
    async with clinic_with(tmp_path, 1) as opened:
        (guid,) = opened.files().values()
        shipment = Shipment(guid, {FIRST: b"a share"})
        given = opened.hospital.store.read(lambda tx: deposits(tx, [shipment]))
        (entry,) = given[FIRST].entries
        assert {acl.id for acl in given[FIRST].acls} == {acl_id for chain in entry.aliases for acl_id in chain}
        assert given[FIRST].acls


@pytest.mark.parametrize("page", [1, 2])
async def test_no_key_is_made_anew_of_a_file_that_is_gone(page: int, tmp_path: Path) -> None:
    """It would be sent to keystores that have destroyed the one before, and to those that had not heard of that."""
    async with clinic_with(tmp_path, 2) as opened:
        gone, stays = opened.files().values()
        await done(opened, KeyTask.DESTROY, [gone])
        task = Task(KeyTask.ROTATE, Selection(), opened.hospital, page=page)
        await task.run()
        assert (task.progress().changed, task.progress().failure) == (1, "")
        assert on_record(opened, "rotation") == {stays}
        assert [held(opened, name, gone) for name in KEYSTORES] == [None] * 3
        share = held(opened, FIRST, stays)
        assert share is not None
        assert share.generation == 2


def test_an_outcome_for_every_answer() -> None:
    """Whoever adds an outcome must say what it means for a share."""
    assert {outcome.value for outcome in Outcome} == {"done", "denied", "unknown", "conflict", "destroyed", "stale"}
