"""From registration to what is found: whole, once, by whom may read it, whatever is killed in between."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
import trio

from mdmfs.access.acl import Acl
from mdmfs.hospital.deid.refusal import Reason, RefusedError
from mdmfs.hospital.keys.amends import destroy
from mdmfs.hospital.keys.currency import is_effective, keep_current
from mdmfs.hospital.ledger.records import OutboxItem
from mdmfs.hospital.metadata.attributes import attributes_of
from mdmfs.hospital.outbox.delivery import MOST_OCTETS, MetadataService, deliver_metadata, parted
from mdmfs.hospital.projects import Partial
from mdmfs.hospital.registration.moved import put_away_moved, restore
from mdmfs.hospital.release.release import quarantine
from mdmfs.metadata.store.tables import COLLECTIONS
from mdmfs.model.errors import (
    AccessDeniedError,
    BusyError,
    CredentialExpiredError,
    MalformedMessageError,
    PeerUnreachableError,
)
from mdmfs.model.identity import Principal
from mdmfs.model.names import Lfn
from mdmfs.wire.messages.metadata import (
    AttributeEntry,
    DefineCollection,
    FoundLevel,
    Parcel,
    PutRecords,
    RecordEntry,
    ShowSeries,
    Tell,
    Told,
)
from tests.twins.clinic import OWNER, PROJECT_LFN, READER, STRANGER, Clinic, OpenClinic, slices, until
from tests.twins.keystores import HOSPITAL
from tests.twins.metadata_service import TwinMetadataService


class Scene:
    """A hospital and its metadata service."""

    def __init__(self, folder: Path, count: int = 3) -> None:
        self.clinic = Clinic(folder, slices(range(1, count + 1)))
        self.clinic.has_metadata = True
        self.metadata = TwinMetadataService(folder, HOSPITAL, lambda: self.clinic.now)
        self.reader = self.metadata.as_seen_by(READER)
        self.stranger = self.metadata.as_seen_by(STRANGER)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[OpenClinic]:
        """Run the hospital and what it tells the service."""
        async with self.clinic.open() as opened:
            service = MetadataService.of(self.metadata.as_seen_by(OWNER), opened.nursery)
            opened.nursery.start_soon(keep_current, opened.hospital, service.peer)
            opened.nursery.start_soon(deliver_metadata, opened.hospital, service)
            yield opened

    async def told(self, opened: OpenClinic) -> None:
        """Wait until the service has heard everything."""

        def is_told() -> bool:
            return opened.hospital.store.read(
                lambda tx: not tx.outbox.destinations() and is_effective(tx, opened.hospital, tx.epochs.latest().number)
            )

        with trio.fail_after(20):
            await until(is_told)

    async def found(self) -> list[str]:
        """Give what the reader finds, as soon as the service is current."""
        with trio.fail_after(20):
            while True:
                with contextlib.suppress(BusyError):
                    return await self.reader.find("")
                await trio.sleep(0.05)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Three slices of one patient."""
    return Scene(tmp_path)


async def test_a_registered_series_is_found_by_what_its_published_header_says(scene: Scene) -> None:
    """By the reader, under the name that the mount shows, with the shifted date; by the stranger not at all."""
    async with scene.open() as opened:
        await opened.harvest()
        await scene.told(opened)
        (record,) = opened.series()
        query = 'Modality == "CT" and BodyPartExamined == "CHEST" and Rows == 64 and InstanceNumber == 2'
        assert await scene.reader.find(query) == [str(record.lfn)]
        assert await scene.reader.find(f'Subject == "{record.subject.text}" and Project == "neuro"') == [
            str(record.lfn)
        ]
        session = record.lfn.parent.name.removeprefix("ses-")
        shifted = f"{session[:4]}-{session[4:6]}-{session[6:]}"
        assert await scene.reader.find(f"StudyDate == date({shifted})") == [str(record.lfn)]
        images = await scene.reader.find("", FoundLevel.IMAGE)
        assert images == [
            str(PROJECT_LFN / name) if "/" not in name else f"{PROJECT_LFN}/{name}" for name in opened.names()
        ]
        assert await scene.stranger.find("") == []


async def test_nothing_identifying_reaches_the_service(scene: Scene, tmp_path: Path) -> None:
    """Not even into its file: neither Patient ID nor a real UID."""
    async with scene.open() as opened:
        await opened.harvest()
        await scene.told(opened)
        (record,) = opened.series()
    scene.metadata.database.close()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "private").iterdir())
    assert str(record.lfn).encode() in kept
    for identifying in ("TEST-1", record.study_uid, record.series_uid):
        assert identifying.encode() not in kept


async def test_a_series_whose_keys_are_not_deposited_is_found_by_nobody(scene: Scene) -> None:
    """It is not on the mounts either."""
    scene.clinic.keystores["k1"].failure = scene.clinic.keystores["k2"].failure = PeerUnreachableError
    async with scene.open() as opened:
        await opened.harvest()
        with trio.fail_after(20):
            await until(lambda: {"/v1/tell", "/v1/confirm"} <= set(scene.metadata.calls))
        assert await scene.found() == []


@pytest.mark.parametrize("lost", [1, 2, 3, 4, 5, 6])
async def test_whatever_answer_is_lost_everything_is_there_once(scene: Scene, lost: int) -> None:
    """The hospital says the same again."""
    scene.metadata.loses_answers = lost
    async with scene.open() as opened:
        await opened.harvest()
        await scene.told(opened)
        assert len(await scene.reader.find("", FoundLevel.IMAGE)) == len(opened.names())


async def test_a_service_that_was_away_while_images_were_registered_hears_of_them_afterwards(scene: Scene) -> None:
    """Nothing waits for it: images are visible without it."""
    scene.metadata.failure = lambda: PeerUnreachableError("away")
    async with scene.open() as opened:
        await opened.harvest()
        assert opened.names()
    scene.metadata.failure = None
    async with scene.open() as opened:
        await scene.told(opened)
        assert len(await scene.reader.find("")) == 1


async def test_a_restarted_service_answers_nobody_before_it_has_heard(scene: Scene) -> None:
    """What was decided meanwhile comes first."""
    async with scene.open() as opened:
        await opened.harvest()
        await scene.told(opened)
    scene.metadata.restart()
    with pytest.raises(BusyError, match="yet to hear"):
        await scene.reader.find("")
    async with scene.open() as opened:
        assert len(await scene.found()) == 1


async def test_a_revoked_reader_finds_nothing_any_more(scene: Scene) -> None:
    """By the same epochs that keystores hear."""
    async with scene.open() as opened:
        await opened.harvest()
        await scene.told(opened)
        await opened.hospital.store.write(lambda tx: tx.acls.set(PROJECT_LFN, Acl(str(HOSPITAL), ())))
        opened.hospital.outbox.ring()
        await scene.told(opened)
        assert await scene.reader.find("") == []


async def test_a_destroyed_file_is_gone_and_its_series_with_the_last(scene: Scene) -> None:
    """Tombstones come by the epochs too."""
    async with scene.open() as opened:
        await opened.harvest()
        await scene.told(opened)
        guids = list(opened.files().values())
        for gone in (guids[:1], guids[1:]):
            await opened.hospital.store.write(lambda tx, gone=gone: destroy(tx, gone))  # type: ignore[misc]
            opened.hospital.outbox.ring()
            await scene.told(opened)
            assert len(await scene.reader.find("", FoundLevel.IMAGE)) == len(opened.names())
        assert await scene.reader.find("") == []


async def test_a_series_that_is_put_away_is_found_by_nobody_until_it_is_there_again(scene: Scene) -> None:
    """It may be another patient's: neither its name nor what its headers say."""
    async with scene.open() as opened:
        await opened.harvest()
        await scene.told(opened)
        found = await scene.reader.find("", FoundLevel.IMAGE)
        (series,) = opened.series()
        project = opened.hospital.projects[series.project]
        assert await put_away_moved(opened.hospital, series.key) == 3
        await scene.told(opened)
        assert await scene.reader.find("", FoundLevel.IMAGE) == await scene.reader.find("") == []
        assert await restore(opened.hospital, series.key, project, {Reason.MOVED_PATIENT}) == 3
        await scene.told(opened)
        assert await scene.reader.find("", FoundLevel.IMAGE) == found


async def test_a_series_that_hides_since_an_image_was_refused_at_a_recall_is_found_by_nobody(scene: Scene) -> None:
    """As on the mounts."""
    async with scene.open() as opened:
        await opened.harvest()
        await scene.told(opened)
        await quarantine(opened.hospital, next(iter(opened.files().values())), RefusedError(Reason.OTHER_INSTANCE))
        await scene.told(opened)
        assert (opened.names(), await scene.reader.find("")) == ([], [])


async def test_of_a_project_that_shows_parts_the_image_that_was_put_away_is_found_by_nobody(scene: Scene) -> None:
    """Until it is there again; with the last of them goes the series."""
    scene.clinic.partial = Partial.SHOW
    async with scene.open() as opened:
        await opened.harvest()
        await scene.told(opened)
        found = await scene.reader.find("", FoundLevel.IMAGE)
        guids = list(opened.files().values())
        for place, guid in enumerate(guids, 1):
            await quarantine(opened.hospital, guid, RefusedError(Reason.OTHER_PATIENT))
            await scene.told(opened)
            assert await scene.reader.find("", FoundLevel.IMAGE) == found[place:]
        assert await scene.reader.find("") == []
        (series,) = opened.series()
        project = opened.hospital.projects[series.project]
        assert await restore(opened.hospital, series.key, project, {Reason.OTHER_PATIENT}) == 3
        await scene.told(opened)
        assert await scene.reader.find("", FoundLevel.IMAGE) == found


async def test_what_was_put_away_stays_away_when_its_siblings_are_shown_again(scene: Scene) -> None:
    """A series comes back from another patient, and one of its images is still his."""
    scene.clinic.partial = Partial.SHOW
    async with scene.open() as opened:
        await opened.harvest()
        await quarantine(opened.hospital, next(iter(opened.files().values())), RefusedError(Reason.RESIDUE))
        (series,) = opened.series()
        project = opened.hospital.projects[series.project]
        await put_away_moved(opened.hospital, series.key)
        assert await restore(opened.hospital, series.key, project, {Reason.MOVED_PATIENT}) == 2
        await scene.told(opened)
        assert await scene.reader.find("", FoundLevel.IMAGE) == [f"{PROJECT_LFN}/{name}" for name in opened.names()]
        assert len(opened.names()) == 2


async def test_only_the_hospital_may_write_and_nobody_with_an_expired_proxy_may_ask(scene: Scene) -> None:
    """The principal comes from the connection."""
    with pytest.raises(AccessDeniedError, match="only the hospital"):
        await tell(scene, (Parcel.SHOW, ShowSeries(str(Lfn(("x",))))), who=READER)
    expired = Principal(READER.dn, (), scene.clinic.now)
    with pytest.raises(CredentialExpiredError):
        await scene.metadata.as_seen_by(expired).find("")


async def tell(scene: Scene, *parcels: tuple[Parcel, Told], who: Principal = OWNER) -> None:
    """Tell the service something, as the hospital or as somebody else."""
    told = Tell([], [(kind, msgspec.Raw(msgspec.msgpack.encode(one))) for kind, one in parcels])
    await scene.metadata.answer("/v1/tell", msgspec.msgpack.encode(told), who)


async def test_what_is_told_together_is_kept_together_or_not_at_all(scene: Scene) -> None:
    """One thing that cannot be is named, and nothing of the rest stays."""
    chain = [[bytes(16)]]
    define = DefineCollection("neuro", "followup", chain, [AttributeEntry("Seen", "date")], {})
    records = PutRecords("neuro", "followup", [RecordEntry(bytes(15) + b"r", "a" * 16, {"Seen": "never"}, bytes(16))])
    for bad in ((Parcel.RECORDS, records), (Parcel.IMAGES, records)):
        with pytest.raises(MalformedMessageError, match=r"Seen|parcel of images"):
            await tell(scene, (Parcel.COLLECTION, define), bad)
        assert scene.metadata.database.read_now(lambda c: c.execute(sa.select(COLLECTIONS)).all()) == []
    await tell(scene, (Parcel.COLLECTION, define))
    with pytest.raises(MalformedMessageError, match="at most 256"):
        await tell(scene, *[(Parcel.COLLECTION, define)] * 257)


def test_what_waits_is_told_in_order_and_in_messages_of_bounded_size() -> None:
    """An item that is larger than that goes alone."""
    sizes = [10, MOST_OCTETS, MOST_OCTETS * 2, 5, 6, MOST_OCTETS - 11, 1]
    items = [OutboxItem(number, "m", "show", b"", bytes(size)) for number, size in enumerate(sizes)]
    messages = list(parted(items))
    assert [item for some in messages for item in some] == items
    assert [[item.number for item in some] for some in messages] == [[0], [1], [2], [3, 4, 5], [6]]


def test_what_defines_a_collection_is_told_by_itself() -> None:
    """Told again, because its answer was lost, it changes nothing; records from before it would be refused then."""
    kinds = [Parcel.RECORDS, Parcel.COLLECTION, Parcel.COLLECTION, Parcel.RECORDS, Parcel.IMAGES]
    items = [OutboxItem(number, "m", kind, b"", b"") for number, kind in enumerate(kinds)]
    assert [[item.number for item in some] for some in parted(items)] == [[0], [1], [2], [3, 4]]


@pytest.mark.parametrize("cut", range(0, 400, 7))
def test_a_cut_header_tells_less_and_breaks_nothing(cut: int) -> None:
    """Whatever bytes come, there is an answer."""
    whole = (
        bytes(132)
        + b"\x08\x00\x60\x00CS\x02\x00MR"
        + b"\x10\x00\x10\x10AS\x04\x00064Y"
        + b"\x28\x00\x30\x00DS\x08\x000.50\\0.5"
    )
    whole += b"\x20\x00\x13\x00IS\x02\x0012" + b"\x08\x00\x20\x00DA\x08\x0020240231" + b"\x00" * 300
    found = attributes_of(whole[:cut])
    assert set(found.series) <= {"Modality", "Age", "PixelSpacing"}
    assert attributes_of(whole).series == {"Modality": "MR", "Age": 60, "PixelSpacing": 0.5}
    assert attributes_of(whole).image == {"InstanceNumber": 12}
