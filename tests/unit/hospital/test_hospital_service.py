"""The hospital's face: each question answered for who asks it, what he may not know not even by its absence."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec
import pytest
import trio

from mdmfs.access.acl import Right
from mdmfs.hospital.catalogue.records import FileState
from mdmfs.hospital.catalogue.times import time_within
from mdmfs.hospital.feed import LONGEST_WAIT, Feed
from mdmfs.model.errors import (
    AccessDeniedError,
    MalformedMessageError,
    MalformedNameError,
    MdmfsError,
    NoSuchFileError,
    NotADirectoryFileError,
    UnknownNameError,
)
from mdmfs.model.identity import Principal
from mdmfs.model.names import Guid, Lfn
from mdmfs.sealing.layout import sealed_size
from mdmfs.wire.messages.administration import (
    HARVEST_PATH,
    HARVEST_PROGRESS_PATH,
    AskHarvest,
    HarvestProgress,
    StartHarvest,
)
from mdmfs.wire.messages.files import (
    BUNDLE_PATH,
    CHANGES_PATH,
    DESCRIBE_PATH,
    GIVE_BACK_PATH,
    HEADERS_PATH,
    LIST_PATH,
    LOCATE_PATH,
    MAX_BUNDLE,
    SEALED_PATH,
    STAGED_PATH,
    TOTALS_PATH,
    TRANSFERS_PATH,
    AskBundle,
    AskChanges,
    AskHeaders,
    AskTotals,
    AskTransfers,
    Changes,
    Describe,
    DirectoryPage,
    FileDescription,
    GiveBack,
    ListDirectory,
    Locate,
    Located,
    Totals,
)
from mdmfs.wire.messages.message import Message
from mdmfs.wire.service import Reply, StreamReply
from tests.twins.clinic import (
    HOSPITAL,
    NOW,
    OWNER,
    PROJECT,
    PROJECT_LFN,
    READER,
    STRANGER,
    Clinic,
    OpenClinic,
    add_entry,
    let_list,
    slices,
    until,
)
from tests.twins.keystores import principal
from tests.twins.records import guid_of

LISTER = principal("/DC=org/DC=demo/CN=lister")
"""May traverse the project and read nothing in it."""
ROOT = Lfn(())


@contextlib.asynccontextmanager
async def open_registered(folder: Path, numbers: range = range(1, 4)) -> AsyncGenerator[tuple[OpenClinic, list[Guid]]]:
    """Run a hospital with one registered series; the lister may list."""
    clinic = Clinic(folder, slices(numbers))
    async with clinic.open() as hospital:
        await hospital.harvest()
        yield hospital, list(hospital.files().values())


async def listed(hospital: OpenClinic, lfn: Lfn, who: Principal = READER) -> list[str]:
    """List a directory to its end, page by page of one."""
    names: list[str] = []
    while True:
        page = await hospital.told(LIST_PATH, ListDirectory(str(lfn), names[-1] if names else "", 1), who)
        assert isinstance(page, DirectoryPage)
        assert page.entries or page.is_last
        names += [node.name for node in page.entries]
        if page.is_last:
            return names


# Listings


async def test_the_reader_walks_from_the_root_to_the_files(tmp_path: Path) -> None:
    """Every name leads on; sizes are those that were registered, times those of the session's day."""
    async with open_registered(tmp_path) as (hospital, guids):
        lfn, found = ROOT, []
        while not found:
            page = await hospital.told(LIST_PATH, ListDirectory(str(lfn)))
            assert isinstance(page, DirectoryPage)
            found = [node for node in page.entries if node.guid]
            lfn = lfn / page.entries[0].name
        assert [Guid(node.guid) for node in found] == guids
        for node in found:
            file = hospital.hospital.store.read(lambda tx, node=node: tx.catalogue.file(Guid(node.guid)))
            assert file is not None
            assert (node.size, node.modified, node.inode) == (file.rendition.size, time_within(lfn), file.inode)


async def test_a_stranger_finds_an_empty_root_and_nothing_below(tmp_path: Path) -> None:
    """A known name and an invented one are refused in the same words."""
    async with open_registered(tmp_path) as (hospital, _):
        (series,) = hospital.series()
        assert await listed(hospital, ROOT, STRANGER) == []
        known = [PROJECT_LFN.parent, PROJECT_LFN, series.lfn, series.lfn / "0001.dcm"]
        for lfn in (*known, PROJECT_LFN / "sub-invented"):
            with pytest.raises(NoSuchFileError) as raised:
                await hospital.ask(LIST_PATH, ListDirectory(str(lfn)), STRANGER)
            assert str(raised.value) == f"there is no {lfn}, or it is not for this identity"


async def test_an_expired_proxy_lists_nothing(tmp_path: Path) -> None:
    """Even the reader's."""
    async with open_registered(tmp_path) as (hospital, _):
        with pytest.raises(NoSuchFileError):
            await hospital.ask(LIST_PATH, ListDirectory(str(ROOT)), principal(READER.dn, not_after=NOW))


async def test_hidden_directories_are_left_out_of_every_page(tmp_path: Path) -> None:
    """Whatever the page's size: no page but the last is empty, and the visible ones are all there."""
    clinic = Clinic(tmp_path)
    for series in range(1, 6):
        clinic.pacs.held += slices((1,), series=series)
    async with clinic.open() as hospital:
        await hospital.harvest()
        session = hospital.series()[0].lfn.parent
        for series in (1, 2, 4):
            await add_entry(hospital, session / f"00{series}-CT", READER, Right.NONE)
        assert await listed(hospital, session) == ["003-CT", "005-CT"]
        assert len(await listed(hospital, session, OWNER)) == 5
        with pytest.raises(NoSuchFileError):
            await hospital.ask(LIST_PATH, ListDirectory(str(session / "001-CT")))


async def test_what_was_told_a_moment_ago_is_decided_anew_when_anything_has_changed(tmp_path: Path) -> None:
    """Asked again in the same second: nobody else's answer, an answer after a change, and none after an entry's end."""
    async with open_registered(tmp_path) as (hospital, [guid, *_]):
        directory, described = hospital.series()[0].lfn, Describe(guid.octets)
        for _ in range(2):
            assert len(await listed(hospital, directory)) == 3
            assert isinstance(await hospital.told(DESCRIBE_PATH, described), FileDescription)
            await is_closed(hospital, directory, guid, STRANGER)
        await add_entry(hospital, directory, READER, Right.NONE)
        await is_closed(hospital, directory, guid, READER)
        await add_entry(hospital, directory, READER, Right.TRAVERSE, not_after=NOW + 1.5)
        assert len(await listed(hospital, directory)) == 3
        assert isinstance(await hospital.told(DESCRIBE_PATH, described), FileDescription)
        hospital.clinic.now += 1.5
        await is_closed(hospital, directory, guid, READER)


async def is_closed(hospital: OpenClinic, directory: Lfn, guid: Guid, who: Principal) -> None:
    """Make sure that somebody is told of neither a directory nor a file in it."""
    for path, message in ((LIST_PATH, ListDirectory(str(directory))), (DESCRIBE_PATH, Describe(guid.octets))):
        with pytest.raises(NoSuchFileError):
            await hospital.ask(path, message, who)


@pytest.mark.parametrize("limit", [-(2**63), -1, 0, 1, 2**63, 2**64 - 1])
async def test_any_limit_gives_a_page(tmp_path: Path, limit: int) -> None:
    """Negative and huge ones too: at least an entry, at most what a page holds."""
    async with open_registered(tmp_path) as (hospital, _):
        (series,) = hospital.series()
        page = await hospital.told(LIST_PATH, ListDirectory(str(series.lfn), limit=limit))
        assert isinstance(page, DirectoryPage)
        assert len(page.entries) == (1 if limit < 2 else 3)


async def test_a_file_is_no_directory_but_only_to_those_who_may_know_it(tmp_path: Path) -> None:
    """The reader is told what it is; the stranger that it is not there."""
    async with open_registered(tmp_path) as (hospital, _):
        lfn = hospital.series()[0].lfn / "0001.dcm"
        with pytest.raises(NotADirectoryFileError):
            await hospital.ask(LIST_PATH, ListDirectory(str(lfn)))
        with pytest.raises(NoSuchFileError):
            await hospital.ask(LIST_PATH, ListDirectory(str(lfn / "x")))


# Files


async def test_who_may_list_but_not_read_knows_the_file_and_is_denied_it(tmp_path: Path) -> None:
    """EACCES where the name is known, ENOENT where it is not; the grant of the file itself comes from its own ACL."""
    async with open_registered(tmp_path) as (hospital, [guid, *_]):
        await let_list(hospital, LISTER)
        assert isinstance(await hospital.told(DESCRIBE_PATH, Describe(guid.octets), LISTER), FileDescription)
        with pytest.raises(AccessDeniedError):
            await hospital.ask(f"{SEALED_PATH}{guid}", principal=LISTER)
        for path, message in ((f"{SEALED_PATH}{guid}", b""), (DESCRIBE_PATH, Describe(guid.octets))):
            with pytest.raises(NoSuchFileError):
                await hospital.ask(path, message, STRANGER)


async def test_a_closed_directory_in_the_middle_closes_what_is_below(tmp_path: Path) -> None:
    """The reader's right to the file does not help him past it."""
    async with open_registered(tmp_path) as (hospital, [guid, *_]):
        await add_entry(hospital, hospital.series()[0].lfn.parent, READER, Right.NONE)
        for path, message in ((f"{SEALED_PATH}{guid}", b""), (DESCRIBE_PATH, Describe(guid.octets))):
            with pytest.raises(NoSuchFileError):
                await hospital.ask(path, message)
        assert isinstance(await hospital.told(DESCRIBE_PATH, Describe(guid.octets), OWNER), FileDescription)


async def test_a_description_is_exact_and_says_where_the_file_is(tmp_path: Path) -> None:
    """NEARLINE before it was read, both afterwards."""
    async with open_registered(tmp_path) as (hospital, [guid, *_]):
        before = await hospital.told(DESCRIBE_PATH, Describe(guid.octets))
        octets = await hospital.read(guid)
        after = await hospital.told(DESCRIBE_PATH, Describe(guid.octets))
        assert isinstance(before, FileDescription)
        assert isinstance(after, FileDescription)
        assert (before.locality, after.locality) == ("NEARLINE", "ONLINE_AND_NEARLINE")
        assert (before.size, before.threshold, before.generation) == (len(octets), 2, 1)
        assert before.replicas == [f"srm://hospital.example.org:8443/mdm/{guid}"]
        assert octets[before.header_length - 12 :][:4] == bytes.fromhex("e07f1000")


async def test_a_sealed_object_has_its_exact_length_and_its_salt_as_etag(tmp_path: Path) -> None:
    """Both are told before the first byte."""
    async with open_registered(tmp_path) as (hospital, [guid, *_]):
        answer = await hospital.ask(f"{SEALED_PATH}{guid}")
        assert isinstance(answer, StreamReply)
        octets = b"".join([bytes(piece) async for piece in answer.chunks])
        size = hospital.hospital.store.read(lambda tx: tx.catalogue.file(guid)).rendition.size  # type: ignore[union-attr]
        assert len(octets) == answer.length == sealed_size(size)
        assert answer.etag == octets[:24].hex()
        upper = await hospital.ask(f"{SEALED_PATH}{str(guid).upper()}")
        assert isinstance(upper, StreamReply)
        assert upper.etag == answer.etag
        await upper.chunks.aclose()  # type: ignore[attr-defined]


async def test_a_bundle_brings_all_its_files_in_one_retrieval_and_says_what_is_not_for_the_caller(
    tmp_path: Path,
) -> None:
    """Each decided by itself, and each on record before its first byte."""
    async with open_registered(tmp_path) as (hospital, guids):
        recalls = hospital.clinic.pacs.recalls
        asked = [guid_of(77), *guids]
        answer = await hospital.ask(BUNDLE_PATH, AskBundle([guid.octets for guid in asked]))
        assert isinstance(answer, StreamReply)
        sent = b"".join([bytes(piece) async for piece in answer.chunks])
        assert hospital.clinic.pacs.recalls == recalls + 1
        for guid in guids:
            file = hospital.hospital.store.read(lambda tx, guid=guid: tx.catalogue.file(guid))  # type: ignore[misc]
            staged = hospital.hospital.staging.find(guid, file.generation)
            assert staged is not None
            assert staged.path.read_bytes()[56:] in sent
        assert NoSuchFileError.code.encode() in sent
        assert sorted(line["guid"] for line in hospital.audited()[-len(guids) :]) == sorted(map(str, guids))


@pytest.mark.parametrize("count", [0, MAX_BUNDLE + 1])
async def test_a_bundle_has_a_size(tmp_path: Path, count: int) -> None:
    """Nobody asks for a whole hospital at once."""
    async with open_registered(tmp_path, range(1, 2)) as (hospital, _):
        with pytest.raises(MalformedMessageError):
            await hospital.ask(BUNDLE_PATH, AskBundle([guid_of(1).octets] * count))


@pytest.mark.parametrize(
    "name", ["", "x", "../list", "%2e%2e", "0" * 36, f"{guid_of(1)}/", f"{guid_of(1)}.1", f"{{{guid_of(1)}}}", "é" * 36]
)
async def test_no_text_but_a_guid_names_an_object(tmp_path: Path, name: str) -> None:
    """Paths are no file names here."""
    async with open_registered(tmp_path, range(1, 2)) as (hospital, _):
        with pytest.raises(MalformedNameError):
            await hospital.ask(f"{SEALED_PATH}{name}")


async def test_an_unknown_guid_is_not_there(tmp_path: Path) -> None:
    """Nor is one of the wrong length a GUID."""
    async with open_registered(tmp_path, range(1, 2)) as (hospital, _):
        with pytest.raises(NoSuchFileError):
            await hospital.ask(DESCRIBE_PATH, Describe(guid_of(9).octets))
        for octets in (b"", b"x" * 15, b"x" * 17):
            with pytest.raises(MalformedNameError):
                await hospital.ask(DESCRIBE_PATH, Describe(octets))


async def test_a_place_is_told_to_whom_the_name_is_listed(tmp_path: Path) -> None:
    """With the numbers of the directories above; a stranger learns nothing."""
    async with open_registered(tmp_path) as (hospital, guids):
        await let_list(hospital, LISTER)
        asked = Locate([guid.octets for guid in (*guids, guid_of(9))])
        told = await hospital.told(LOCATE_PATH, asked, LISTER)
        assert isinstance(told, Located)
        *places, gap = told.places
        assert gap is None
        for guid, place in zip(guids, places, strict=True):
            assert place is not None
            lfn = Lfn.parse(place.lfn)
            assert place.node.guid == guid.octets
            above = [
                await hospital.told(LIST_PATH, ListDirectory(str(Lfn(lfn.parts[:n])))) for n in range(len(lfn.parts))
            ]
            assert place.above == [page.directory.inode for page in above if isinstance(page, DirectoryPage)]
        nothing = await hospital.told(LOCATE_PATH, asked, STRANGER)
        assert nothing == Located([None] * len(asked.guids))


async def test_a_quarantined_file_is_neither_listed_nor_described(tmp_path: Path) -> None:
    """Its name is gone for the owner too; a superseded one still opens by its GUID."""
    async with open_registered(tmp_path) as (hospital, [guid, other, _]):
        await hospital.hospital.store.write(lambda tx: tx.catalogue.quarantine([guid]))
        assert await listed(hospital, hospital.series()[0].lfn) == ["0002.dcm", "0003.dcm"]
        with pytest.raises(NoSuchFileError):
            await hospital.ask(DESCRIBE_PATH, Describe(guid.octets), OWNER)
        file = hospital.hospital.store.read(lambda tx: tx.catalogue.file(other))
        assert file is not None
        assert file.state is FileState.VISIBLE


# Totals


async def test_totals_count_what_the_caller_may_traverse_to(tmp_path: Path) -> None:
    """The reader's files; nothing for a stranger, wherever he asks."""
    async with open_registered(tmp_path) as (hospital, guids):
        size = sum([len(await hospital.read(guid)) for guid in guids])
        for lfn in (ROOT, PROJECT_LFN.parent, PROJECT_LFN, hospital.series()[0].lfn):
            assert await hospital.told(TOTALS_PATH, AskTotals(str(lfn))) == Totals(3, size)
            assert await hospital.told(TOTALS_PATH, AskTotals(str(lfn)), STRANGER) == Totals(0, 0)
        assert await hospital.told(TOTALS_PATH, AskTotals("/grid/medical/elsewhere")) == Totals(0, 0)
        assert await hospital.told(TOTALS_PATH, AskTotals("/grid/medical/am")) == Totals(0, 0)


# Changes


async def test_a_question_about_changes_waits_for_one(tmp_path: Path) -> None:
    """Nothing comes early; a change answers it at once, and names the directory."""
    async with open_registered(tmp_path) as (hospital, [guid, *_]):
        version = hospital.hospital.store.read(lambda tx: tx.feed.version())
        answers: list[Message] = []

        async def ask() -> None:
            answers.append(await hospital.told(CHANGES_PATH, AskChanges(version, 20.0)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(0.02)
            assert not answers
            await hospital.hospital.store.write(lambda tx: tx.catalogue.quarantine([guid]))
            hospital.hospital.feed.bell.ring()
            await until(lambda: bool(answers))
        (changes,) = answers
        assert isinstance(changes, Changes)
        assert (changes.version, changes.is_reset, len(changes.files)) == (version + 1, False, 1)


@pytest.mark.parametrize("wait", [0.0, -5.0, float("-inf"), float("nan")])
async def test_who_does_not_want_to_wait_is_answered_at_once(tmp_path: Path, wait: float) -> None:
    """Whatever he calls not waiting."""
    async with open_registered(tmp_path) as (hospital, _):
        version = hospital.hospital.store.read(lambda tx: tx.feed.version())
        with trio.fail_after(1):
            told = await hospital.told(CHANGES_PATH, AskChanges(version, wait))
        mark = hospital.hospital.store.read(lambda tx: tx.feed.mark(version))
    assert told == Changes(version, [], [], groups=[f"dn:{READER.dn}", f"feed:{mark.hex()}"])


async def test_an_endless_wait_has_an_end(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """Half a minute at most."""
    del autojump_clock
    hospital = Clinic(tmp_path)
    feed = Feed(hospital.store)
    begun = trio.current_time()
    assert await feed.changes(0, float("inf")) == Changes(0, [], [])
    assert trio.current_time() - begun == LONGEST_WAIT


@pytest.mark.parametrize("since", [-1, -(2**63), 10**6, 2**63 - 1, 2**64 - 1])
async def test_a_version_that_never_was_means_forget_everything(tmp_path: Path, since: int) -> None:
    """At once, however long the caller would have waited."""
    async with open_registered(tmp_path) as (hospital, _):
        with trio.fail_after(1):
            changes = await hospital.told(CHANGES_PATH, AskChanges(since, 20.0))
        assert isinstance(changes, Changes)
        assert changes.is_reset


async def test_a_mount_that_was_away_while_an_older_store_was_put_back_begins_anew(tmp_path: Path) -> None:
    """Also where the feed has outgrown the version that the mount has heard of: that was of a lost history."""
    for folder in ("lost", "restored"):
        (tmp_path / folder).mkdir()
    async with open_registered(tmp_path / "lost") as (hospital, [guid, *_]):
        await hospital.hospital.store.write(lambda tx: tx.catalogue.quarantine([guid]))
        heard = await hospital.told(CHANGES_PATH, AskChanges(0, 0.0))
        assert isinstance(heard, Changes)
        back = AskChanges(heard.version, 0.0, groups=heard.groups)
        told = await hospital.told(CHANGES_PATH, back)
        assert isinstance(told, Changes)
        assert not told.is_reset
        assert told.groups == heard.groups
    async with open_registered(tmp_path / "restored") as (hospital, guids):
        for guid in guids:
            told = await hospital.told(CHANGES_PATH, back)
            assert isinstance(told, Changes)
            assert told.is_reset, told.version
            await hospital.hospital.store.write(lambda tx, guid=guid: tx.catalogue.quarantine([guid]))  # type: ignore[misc]
        told = await hospital.told(CHANGES_PATH, back)
        assert isinstance(told, Changes)
        assert told.is_reset
        assert told.version > heard.version
        again = await hospital.told(CHANGES_PATH, AskChanges(told.version, 0.0, groups=told.groups))
        assert isinstance(again, Changes)
        assert not again.is_reset


# The hospital's own people


async def test_only_the_hospitals_own_certificate_starts_a_harvest(tmp_path: Path) -> None:
    """Neither reader nor stranger, whatever they send, and nothing of it is read."""
    clinic = Clinic(tmp_path, slices((1,)))
    async with clinic.open() as hospital:
        for path in (HARVEST_PATH, HARVEST_PROGRESS_PATH):
            for who in (READER, STRANGER, principal(f"{HOSPITAL}/CN=proxy")):
                with pytest.raises(AccessDeniedError):
                    await hospital.ask(path, b"\xc1", who)
        with pytest.raises(UnknownNameError):
            await hospital.ask(HARVEST_PROGRESS_PATH, AskHarvest(PROJECT), OWNER)
        with pytest.raises(UnknownNameError):
            await hospital.ask(HARVEST_PATH, StartHarvest("nothing"), OWNER)
        progress = await hospital.told(HARVEST_PATH, StartHarvest(PROJECT), OWNER)
        again = await hospital.told(HARVEST_PATH, StartHarvest(PROJECT), OWNER)
        assert isinstance(again, HarvestProgress)
        while not (isinstance(progress, HarvestProgress) and progress.is_over):
            await trio.lowlevel.checkpoint()
            progress = await hospital.told(HARVEST_PROGRESS_PATH, AskHarvest(PROJECT), OWNER)
        assert (progress.registered, clinic.pacs.recalls) == (1, 1)


async def test_a_project_that_is_over_is_not_harvested(tmp_path: Path) -> None:
    """Its last day is past."""
    clinic = Clinic(tmp_path, slices((1,)))
    clinic.now += 2 * 86_400
    async with clinic.open() as hospital:
        with pytest.raises(UnknownNameError, match="last day"):
            await hospital.ask(HARVEST_PATH, StartHarvest(PROJECT), OWNER)


# Messages that are none


BAD_TEXT = msgspec.msgpack.encode(ListDirectory("abc")).replace(b"abc", b"\xff\xfe\xfd")


@pytest.mark.parametrize("path", [LIST_PATH, DESCRIBE_PATH, TOTALS_PATH, CHANGES_PATH, HARVEST_PATH])
@pytest.mark.parametrize(
    "octets",
    [b"", b"\xc1", b"\x00", b"\xff" * 40, b"\x91" * 4000, msgspec.msgpack.encode({"lfn": 7, "guid": "x"}), BAD_TEXT],
)
async def test_a_message_that_is_none_is_told_so(tmp_path: Path, path: str, octets: bytes) -> None:
    """Never an incident."""
    async with Clinic(tmp_path).open() as hospital:
        with pytest.raises(MalformedMessageError):
            await hospital.ask(path, octets, OWNER)


@pytest.mark.parametrize("lfn", ["", "/", "grid", "/grid/medical/../etc", "/grid/medical//x", "/grid/medical/\n"])
async def test_a_name_that_is_none_is_told_so(tmp_path: Path, lfn: str) -> None:
    """In listings and totals alike."""
    async with Clinic(tmp_path).open() as hospital:
        for path, message in ((LIST_PATH, ListDirectory(lfn)), (TOTALS_PATH, AskTotals(lfn))):
            with pytest.raises(MalformedNameError):
                await hospital.ask(path, message)


async def test_every_route_refuses_a_stranger_or_tells_him_nothing(tmp_path: Path) -> None:
    """Whatever is answered names no inode, GUID, size or name that is there."""
    async with open_registered(tmp_path) as (hospital, [guid, *_]):
        messages: dict[str, Message | bytes] = {
            LIST_PATH: ListDirectory(str(PROJECT_LFN)),
            DESCRIBE_PATH: Describe(guid.octets),
            TOTALS_PATH: AskTotals(str(ROOT)),
            CHANGES_PATH: AskChanges(0, 0.0),
            GIVE_BACK_PATH: GiveBack(bytes(16)),
            HARVEST_PATH: StartHarvest(PROJECT),
            HARVEST_PROGRESS_PATH: AskHarvest(PROJECT),
            f"{SEALED_PATH}{guid}": b"",
            BUNDLE_PATH: AskBundle([guid.octets]),
            STAGED_PATH: AskBundle([guid.octets]),
            HEADERS_PATH: AskHeaders([guid.octets]),
            LOCATE_PATH: Locate([guid.octets]),
            TRANSFERS_PATH: AskTransfers([guid.octets]),
        }
        assert {path for _, path in hospital.face.routes} == {
            SEALED_PATH if path.startswith(SEALED_PATH) else path for path in messages
        }
        told = {}
        for path, message in messages.items():
            try:
                answer = await hospital.ask(path, message, STRANGER)
            except MdmfsError:
                continue
            if isinstance(answer, StreamReply):
                told[path] = b"".join([bytes(piece) async for piece in answer.chunks])
                continue
            assert isinstance(answer, Reply)
            told[path] = msgspec.msgpack.encode(answer.message)
        paths = {TOTALS_PATH, CHANGES_PATH, GIVE_BACK_PATH, BUNDLE_PATH, HEADERS_PATH, LOCATE_PATH, TRANSFERS_PATH}
        assert set(told) == paths
        assert NoSuchFileError.code.encode() in told[BUNDLE_PATH]
        assert not any(guid.octets in octets or b"sub-" in octets for octets in told.values())
