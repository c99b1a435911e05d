"""Records: patients come in, subjects go out; text is sealed under keys that keystores alone keep."""

from __future__ import annotations

import base64
import datetime as dt
import logging
import random
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
import trio
import trio.testing

from mdmfs.access.acl import Acl, Entry, EntryKind, Right
from mdmfs.cli.record import open_text
from mdmfs.hospital.keys.amends import destroy
from mdmfs.hospital.metadata.attributes import NAMES_OF_IMAGES
from mdmfs.hospital.metadata.defining import define_records
from mdmfs.hospital.metadata.identify import WAIT_SECONDS, Identification
from mdmfs.hospital.metadata.importing import import_records
from mdmfs.hospital.metadata.withdrawal import destroy_text_keys
from mdmfs.metadata.schema import IMAGE_ATTRIBUTES
from mdmfs.model.errors import (
    AccessDeniedError,
    BusyError,
    ConfigurationError,
    MalformedMessageError,
    MalformedQueryError,
    MdmfsError,
)
from mdmfs.wire.keystores.keystores import Keystores
from mdmfs.wire.messages.message import Message
from mdmfs.wire.messages.metadata import (
    EXPLAIN_PATH,
    FIND_PATH,
    FROZEN_PATH,
    RECORDS_PATH,
    SNAPSHOT_PATH,
    AskFrozen,
    AskRecords,
    CreateSnapshot,
    Explain,
    Explanation,
    Find,
    FoundLevel,
    FoundPage,
    FrozenPage,
    Record,
    RecordPage,
    Snapshot,
)
from mdmfs.wire.messages.records import Barred, DefineRecords, Identify, ImportRecords, PatientRecord, RecordAttribute
from mdmfs.worker.keys.ring import KeyRing
from tests.twins.clinic import PROJECT, PROJECT_LFN, READER, STRANGER, OpenClinic
from tests.twins.keystores import HOSPITAL, principal
from tests.unit.metadata.test_metadata_feed import Scene
from tests.unit.registration.test_merge import HookedStore

T = TypeVar("T", bound=Message)
SECOND = principal("/DC=org/DC=demo/CN=second")
KINDS = {
    "Diagnosis": "text",
    "Grade": "integer",
    "Seen": "date",
    "Dead": "boolean",
    "Score": "number",
    "Remark": "note",
    "Letter": "attachment",
}
NOTE = "Spoke of pain in the left arm since spring."
LETTER = b"%PDF-1.4 planted letter"


def collection(*, readers: tuple[str, ...] = (str(READER.dn),), key: tuple[str, ...] = ()) -> DefineRecords:
    """Describe a collection."""
    attributes = [RecordAttribute(name, kind, name.lower()) for name, kind in KINDS.items()]
    return DefineRecords(PROJECT, "followup", list(readers), [], attributes, list(key), {})


def row(patient: str = "TEST-1", **values: str | float | bool) -> PatientRecord:
    """Make a row."""
    return PatientRecord(patient, "AMC", {"Diagnosis": "glioma", **values})


async def imported(opened: OpenClinic, *rows: PatientRecord) -> list[str]:
    """Import rows; give the reasons."""
    return (await import_records(opened.hospital, ImportRecords(PROJECT, "followup", list(rows)))).reasons


async def records(scene: Scene, opened: OpenClinic, who: object = READER) -> list[Record]:
    """Ask for the subject's records as somebody."""
    (series,) = opened.series()
    caller = scene.metadata.as_seen_by(who)  # type: ignore[arg-type]
    asked = AskRecords(series.subject.text)
    return (await caller.call(RECORDS_PATH, asked, RecordPage, deadline=trio.current_time() + 10)).records


async def ready(scene: Scene, opened: OpenClinic) -> None:
    """Register the images, and define the collection."""
    await opened.harvest()
    await define_records(opened.hospital, collection())
    await scene.told(opened)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Make a hospital with three slices of one patient."""
    return Scene(tmp_path)


async def test_a_row_of_a_patient_becomes_a_record_of_the_subject_and_joins_the_images(scene: Scene) -> None:
    """Its dates move by the same days as those of the images."""
    async with scene.open() as opened:
        await ready(scene, opened)
        assert await imported(opened, row(Grade="4", Seen="2020-03-01", Dead="no", Score="1.5")) == [""]
        await scene.told(opened)
        (series,) = opened.series()
        subject = opened.hospital.store.read(lambda tx: tx.subjects.by_id(series.subject))
        assert subject is not None
        shifted = dt.date(2020, 3, 1) + dt.timedelta(subject.date_offset_days)
        query = (
            f'Modality == "CT" and Diagnosis like "gli%" and Grade == 4 and Seen == date({shifted}) and Dead == false'
        )
        assert await scene.reader.find(query) == [str(series.lfn)]
        with pytest.raises(MalformedQueryError, match="no attribute Diagnosis"):
            await scene.stranger.find('Diagnosis == "glioma"')


def below(
    *names: str,
    collection: str = "followup.onco",
    readers: tuple[str, ...] = (),
    key: tuple[str, ...] = (),
    narrow: dict[str, list[str]] | None = None,
) -> DefineRecords:
    """Describe one in another; each attribute is a text, or has its type behind a colon."""
    parts = [name.partition(":") for name in names]
    attributes = [RecordAttribute(name, kind or "text", name.lower()) for name, _, kind in parts]
    return DefineRecords(PROJECT, collection, list(readers), [], attributes, list(key), narrow or {})


async def test_a_collection_in_another_has_its_attributes_its_readers_and_its_key(scene: Scene) -> None:
    """Unless it says otherwise; its records are found by whoever asks the one above, and its text opens."""
    async with scene.open() as opened:
        await opened.harvest()
        await define_records(opened.hospital, collection(key=("Diagnosis",)))
        assert (await define_records(opened.hospital, below("Gene"))).barred == []
        await scene.told(opened)
        rows = [row(Grade=grade, Gene="x", Remark=NOTE, Seen="2020-03-01") for grade in (1, 2)]
        for one in rows:
            asked = ImportRecords(PROJECT, "followup.onco", [one])
            assert (await import_records(opened.hospital, asked)).reasons == [""]
        await scene.told(opened)
        (series,) = opened.series()
        for query in ('Diagnosis == "glioma"', 'followup.onco.Grade == 2 and Gene == "x"'):
            assert await scene.reader.find(query) == [str(series.lfn)]
        (found,) = await records(scene, opened)
        assert (found.collection, found.values["Grade"]) == ("followup.onco", 2)
        assert await open_text(found, ring_of(opened, READER)) == {"Remark": NOTE}
        assert await records(scene, opened, STRANGER) == []


async def test_what_is_part_of_a_key_below_cannot_be_dropped(scene: Scene) -> None:
    """Records that differ in it alone would become one."""
    async with scene.open() as opened:
        await ready(scene, opened)
        await define_records(opened.hospital, below("Gene", key=("Grade",)))
        fewer = [one for one in collection().attributes if one.name != "Grade"]
        with pytest.raises(ConfigurationError, match=r"Grade is part of the key of followup\.onco"):
            await define_records(opened.hospital, msgspec.structs.replace(collection(), attributes=fewer))


async def test_rows_for_a_collection_that_is_defined_anew_meanwhile_are_not_sent(scene: Scene) -> None:
    """The service would refuse them, and all that waits behind them."""
    fewer = [one for one in collection().attributes if one.name != "Grade"]

    async def refused(opened: OpenClinic) -> None:
        with pytest.raises(BusyError, match=r"followup of .* has been defined anew"):
            await imported(opened, row(Grade="4"))

    async with scene.open() as opened, trio.open_nursery() as nursery:
        await ready(scene, opened)
        async with opened.hospital.turns.of(("records", PROJECT, "followup")):
            nursery.start_soon(refused, opened)
            await trio.testing.wait_all_tasks_blocked()
            await define_records(opened.hospital, msgspec.structs.replace(collection(), attributes=fewer))
            await scene.told(opened)
    async with scene.open() as opened:
        assert await imported(opened, row(Seen="2020-03-01")) == [""]
        await scene.told(opened)


@pytest.mark.parametrize("was_imported", [False, True])
@pytest.mark.parametrize("goes", ["keys", "files", "subject"])
async def test_rows_of_a_subject_that_goes_meanwhile_are_not_sent(
    scene: Scene, *, was_imported: bool, goes: str
) -> None:
    """Nobody could take such records away; a key that was destroyed would be known again."""
    async with scene.open() as opened:
        await ready(scene, opened)
        if was_imported:
            assert await imported(opened, row(Grade=1)) == [""]
        (series,) = opened.series()
        subject, store = series.subject, opened.hospital.store
        before = store.read(lambda tx: tx.records.keys_of(subject))
        assert len(before) == was_imported

        async def withdraw() -> None:
            if goes == "files":
                await store.write(lambda tx: destroy(tx, list(opened.files().values())))
            await store.write(lambda tx: destroy_text_keys(tx, subject))
            if goes == "subject":
                await store.write(lambda tx: tx.subjects.delete(subject))

        late = opened.over(HookedStore(store, withdraw))
        if was_imported or goes != "keys":
            with pytest.raises(BusyError, match="gone meanwhile"):
                await imported(late, row(Grade=2))
            assert store.read(lambda tx: tx.records.keys_of(subject)) == []
        else:
            assert await imported(late, row(Grade=2)) == [""]


async def test_readers_of_their_own_read_one_collection_and_no_other(scene: Scene) -> None:
    """They pass the directory of collections; one in another they reach where they may pass that, and are told."""
    async with scene.open() as opened:
        await opened.harvest()
        await define_records(opened.hospital, collection(readers=(str(SECOND.dn),)))
        mine = below("Arm", collection="trials", readers=(str(READER.dn),))
        assert (await define_records(opened.hospital, mine)).barred == []
        (barred,) = (await define_records(opened.hospital, below("Gene", readers=(str(READER.dn),)))).barred
        assert barred == Barred(f"user:{READER.dn}:--x--", f"{PROJECT_LFN}/.records/followup")
        for name, values in (("trials", {"Arm": "a"}), ("followup.onco", {"Gene": "x"})):
            asked = ImportRecords(PROJECT, name, [PatientRecord("TEST-1", "AMC", values)])
            assert (await import_records(opened.hospital, asked)).reasons == [""]
        await scene.told(opened)
        assert [one.collection for one in await records(scene, opened)] == ["trials"]
        followup = PROJECT_LFN / ".records" / "followup"
        passing = Acl(str(HOSPITAL), (Entry(EntryKind.USER, str(READER.dn), Right.TRAVERSE.value),))
        await opened.hospital.store.write(lambda tx: tx.acls.set(followup, passing))
        opened.hospital.outbox.ring()
        await scene.told(opened)
        assert sorted(one.collection for one in await records(scene, opened)) == ["followup.onco", "trials"]
        assert await scene.reader.find('Gene == "x"') != []


CANNOT_BE: list[tuple[DefineRecords, str]] = [
    (below("A:blob"), "A has no type 'blob'"),
    (below(collection="two words"), "no name of a collection"),
    (below(collection="a/b"), "no name of a collection"),
    (below(collection="."), "no name of a collection"),
    (below("Modality"), "attribute of images"),
    (below(collection="nowhere.onco"), "define nowhere first"),
    (below("Grade:integer"), "Grade comes from followup"),
    (below("Grade:text", collection="followup"), "Grade is of type integer already"),
    (below("Gene", key=("Remark",)), "Remark is part of the key of followup.onco and would be no plain attribute"),
    (below("Gene", collection="followup.narrow"), "there is a directory .*/followup/narrow already"),
]


async def test_what_the_service_would_refuse_is_never_on_its_way(scene: Scene) -> None:
    """All that follows would wait behind it: images that are registered afterwards are found."""
    async with scene.open() as opened:
        grouped = msgspec.structs.replace(collection(), narrow={"narrow": []})
        await define_records(opened.hospital, grouped)
        for asked, said in CANNOT_BE:
            with pytest.raises(ConfigurationError, match=said):
                await define_records(opened.hospital, asked)
        await opened.harvest()
        await scene.told(opened)
        assert len(await scene.found()) == 1


def test_hospital_and_service_know_the_same_attributes_of_images() -> None:
    """So that both refuse the same names for attributes of records."""
    assert set(IMAGE_ATTRIBUTES) == NAMES_OF_IMAGES


async def test_text_is_given_sealed_and_opens_with_what_the_keystores_give(scene: Scene, tmp_path: Path) -> None:
    """To the reader of the collection; the service's file holds none of it, and the stranger gets no share."""
    async with scene.open() as opened:
        await ready(scene, opened)
        letter = base64.b64encode(LETTER).decode()
        assert await imported(opened, row(Remark=NOTE, Letter=letter)) == [""]
        assert await imported(opened, row(Remark="again", Grade=2)) == [""]
        await scene.told(opened)
        found = await records(scene, opened)
        assert len(found) == 2
        texts = [await open_text(one, ring_of(opened, READER)) for one in found]
        assert {"Remark": NOTE, "Letter": LETTER} in texts
        assert {"Remark": "again"} in texts
        assert await records(scene, opened, STRANGER) == []
        with pytest.raises(MdmfsError):
            await open_text(found[0], ring_of(opened, STRANGER))
        with pytest.raises(MalformedQueryError, match="Remark is sealed"):
            await scene.reader.find(f'Remark == "{NOTE}"')
    scene.metadata.database.close()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "private").iterdir())
    for planted in (NOTE.encode(), LETTER, b"TEST-1"):
        assert planted not in kept


async def test_no_planted_identifier_comes_out_of_an_import(
    scene: Scene, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither in the database nor in pages, plans, snapshots, errors or logs; the search finds what is there."""
    said: list[str] = []
    with caplog.at_level(logging.DEBUG):
        async with scene.open() as opened:
            await ready(scene, opened)
            refused = [row(Diagnosis=f"of {one}") for one in ("TEST-1", "1961-02-03", "0123456789", "m@x.example")]
            said += await imported(opened, row(Seen="1961-02-03", Grade=4, Remark=NOTE), *refused)
            await scene.told(opened)
            page = await asked(scene, FIND_PATH, Find('Diagnosis == "glioma"', FoundLevel.IMAGE), FoundPage)
            plan = await asked(scene, EXPLAIN_PATH, Explain('Diagnosis == "glioma"'), Explanation)
            frozen = await asked(scene, SNAPSHOT_PATH, CreateSnapshot("trial", "Grade == 4", bytes(16)), Snapshot)
            files = await asked(scene, FROZEN_PATH, AskFrozen("trial"), FrozenPage)
            said += [repr(one) for one in (page, plan, frozen, files, await records(scene, opened))]
            for query in ('Seen == "1961-02-03"', "TEST-1 == 3"):
                with pytest.raises(MalformedQueryError) as failed:
                    await scene.reader.find(query)
                said.append(str(failed.value))
            (series,) = opened.series()
    scene.metadata.database.close()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "private").iterdir())
    logs = caplog.text + capsys.readouterr().out  # of the libraries, and our own
    assert f"dn='{READER.dn}' found=3" in logs  # who asked and how much was found, not for what
    assert "glioma" not in logs
    told = "\n".join([*said, logs]).encode() + kept
    for there in (b"glioma", b"looks like a date", series.subject.text.encode()):
        assert there in told
    for planted in ("TEST-1 ", "TEST-1\0", "of TEST-1", "1961-02-03", "19610203", "0123456789", "m@x.example", NOTE):
        assert planted.encode() not in told, planted
    for real in (series.study_uid, series.series_uid):
        assert real.encode() not in told


async def asked(scene: Scene, path: str, question: Message, reply: type[T]) -> T:
    """Ask the service as the reader."""
    return await scene.reader.call(path, question, reply, deadline=trio.current_time() + 10)


async def test_large_attachments_come_on_several_pages(scene: Scene) -> None:
    """No page is larger than a message can be, and none is left out."""
    letter = base64.b64encode(random.Random(1).randbytes(3 * 2**20)).decode()  # noqa: S311 only long
    async with scene.open() as opened:
        await ready(scene, opened)
        for grade in range(3):
            assert await imported(opened, row(Grade=grade, Letter=letter)) == [""]
        await scene.told(opened)
        (series,) = opened.series()
        first = await asked(scene, RECORDS_PATH, AskRecords(series.subject.text), RecordPage)
        assert (len(first.records), first.is_last) == (2, False)
        rest = await asked(scene, RECORDS_PATH, AskRecords(series.subject.text, first.records[-1].guid), RecordPage)
        assert (len(rest.records), rest.is_last) == (1, True)


def ring_of(opened: OpenClinic, who: object) -> KeyRing:
    """Give a worker's ring of keys for somebody."""
    clients = {name: twin.as_seen_by(who) for name, twin in opened.clinic.keystores.items()}  # type: ignore[arg-type]
    keystores = Keystores(clients, opened.nursery)
    return KeyRing(lambda: keystores, deadline=10.0)


async def test_the_same_file_imported_twice_changes_nothing(scene: Scene) -> None:
    """And with a key, a later row takes the place of the earlier one."""
    async with scene.open() as opened:
        await ready(scene, opened)
        for _ in range(2):
            assert await imported(opened, row(Grade=1), row(Grade=2)) == ["", ""]
        await scene.told(opened)
        assert len(await records(scene, opened)) == 2
        await define_records(opened.hospital, collection(key=("Seen",)))
        assert await imported(opened, row(Seen="2020-01-01", Grade=3), row(Seen="2020-01-01", Grade=4)) == ["", ""]
        await scene.told(opened)
        assert sorted(str(one.values["Grade"]) for one in await records(scene, opened)) == ["1", "2", "4"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row(patient="NOBODY"), "no image of this patient"),
        (row(Diagnosis="seen as test-1"), "the patient's own number"),
        (row(Remark="about TEST-1"), "the patient's own number"),
        (row(Diagnosis="on 12.3.2020"), "looks like a date"),
        (row(Diagnosis="call 0123456"), "looks like a date"),
        (row(Diagnosis="a@b.example"), "looks like a date"),
        (row(Diagnosis="call +31-555-0148-293"), "looks like a date"),
        (row(Diagnosis="call (055) 5 01_48"), "looks like a date"),
        (row(Diagnosis="seen as tes t/1"), "the patient's own number"),
        (row(Seen="12.3.2020"), "Seen: it must be a date"),
        (row(Seen="2020-02-30"), "Seen: it must be a date"),
        (row(Grade="4.5"), "Grade: it must be a whole number"),
        (row(Grade="inf"), "Grade: it must be"),
        (row(Score="much"), "Score: it must be a number"),
        (row(Dead="maybe"), "Dead: it must be true or false"),
        (row(Letter="***"), "Letter: it must be Base64"),
        (row(Nothing=1), "Nothing: there is no such attribute"),
        (row(Diagnosis="x" * 1025), "Diagnosis: it must be printable"),
        (row(Diagnosis="a\nb"), "Diagnosis: it must be printable"),
    ],
)
async def test_a_row_that_cannot_be_taken_is_refused_alone_and_without_its_values(
    scene: Scene, bad: PatientRecord, reason: str
) -> None:
    """The others go in."""
    async with scene.open() as opened:
        await opened.harvest()
        await define_records(opened.hospital, collection())
        first, second, third = await imported(opened, row(Grade=1), bad, row(Grade=2))
        assert (first, third) == ("", "")
        assert reason in second
        assert "TEST-1" not in second
        assert repr(bad) == "PatientRecord(...)"


async def test_with_the_last_file_of_a_subject_go_records_and_key(scene: Scene) -> None:
    """Rows are deleted, shares destroyed, and nothing under the old key comes back."""
    async with scene.open() as opened:
        await ready(scene, opened)
        await imported(opened, row(Remark=NOTE))
        await scene.told(opened)
        (found,) = await records(scene, opened)
        guids = list(opened.files().values())
        await opened.hospital.store.write(lambda tx: destroy(tx, guids))
        opened.hospital.outbox.ring()
        await scene.told(opened)
        assert await records(scene, opened) == []
        with pytest.raises(MdmfsError):
            await open_text(found, ring_of(opened, READER))
        assert await imported(opened, row(Remark=NOTE)) == ["no image of this patient is registered in the project"]
        await scene.told(opened)
        assert await records(scene, opened) == []


@pytest.mark.parametrize("seed", range(4))
async def test_a_service_killed_at_any_instant_of_an_import_has_every_record_once_afterwards(
    scene: Scene, seed: int
) -> None:
    """What was sent is sent again; a hundredth of the instants."""
    draw = random.Random(seed)  # noqa: S311 a seed
    async with scene.open() as opened:
        await ready(scene, opened)
        scene.metadata.loses_answers = draw.randrange(1, 5)
        for number in range(5):
            assert await imported(opened, *(row(Grade=10 * number + one) for one in range(4))) == [""] * 4
            if draw.random() < 0.5:
                scene.metadata.restart()
        # a connection that breaks tells the hospital of a restart; here a change does
        await opened.hospital.store.write(lambda tx: tx.epochs.note_acl(bytes(16)))
        opened.hospital.outbox.ring()
        await scene.told(opened)
        await scene.found()
        grades = sorted(int(str(one.values["Grade"])) for one in await records(scene, opened))
        assert grades == sorted(10 * number + one for number in range(5) for one in range(4))


async def let_identify(opened: OpenClinic) -> None:
    """Give two people the right i."""
    named = [Entry(EntryKind.USER, str(who.dn), (Right.IDENTIFY | Right.READ).value) for who in (READER, SECOND)]
    await opened.hospital.store.write(lambda tx: tx.acls.set(PROJECT_LFN, Acl(str(HOSPITAL), tuple(named))))


async def test_who_a_subject_is_takes_two_people_one_purpose_and_the_hospitals_own_network(scene: Scene) -> None:
    """Each step is in the audit log before anything is told."""
    async with scene.clinic.open() as opened:
        await opened.harvest()
        (series,) = opened.series()
        asked = Identify(series.subject.text, "incidental finding")
        identification = Identification(opened.hospital, ["10.0.0.0/8"])
        with pytest.raises(AccessDeniedError, match="right i"):
            await identification.identify(READER, asked, "10.1.1.1")
        await let_identify(opened)
        with pytest.raises(AccessDeniedError, match="own network"):
            await identification.identify(READER, asked, "192.0.2.1")
        for _ in range(2):
            assert (await identification.identify(READER, asked, "10.1.1.1")).is_pending
        with pytest.raises(AccessDeniedError, match="another purpose"):
            await identification.identify(SECOND, msgspec.structs.replace(asked, purpose="curiosity"), "10.1.1.2")
        told = await identification.identify(SECOND, asked, "10.1.1.2")
        assert (told.patient_id, told.issuer) == ("TEST-1", "AMC")
        assert "TEST-1" not in repr(told)
        assert (await identification.identify(SECOND, asked, "10.1.1.2")).is_pending
        scene.clinic.now += WAIT_SECONDS + 1
        assert (await identification.identify(READER, asked, "10.1.1.1")).is_pending
        with pytest.raises(MalformedMessageError, match="what for"):
            await identification.identify(READER, msgspec.structs.replace(asked, purpose=" "), "10.1.1.1")
        outcomes = [record["outcome"] for record in opened.audited() if record["event"] == "identification"]
        assert len(outcomes) == 8
        assert sum(str(outcome).startswith("told") for outcome in outcomes) == 1
        assert "TEST-1" not in str(outcomes)
