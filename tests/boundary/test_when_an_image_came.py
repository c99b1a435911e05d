"""When an image came: a hospital whose clock stands on a planted day tells nobody outside of that day."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
import trio

from mdmfs.access.acl import Right
from mdmfs.hospital.dav.face import DavFace
from mdmfs.hospital.dav.target import path_of
from mdmfs.hospital.deid.policy import Policy
from mdmfs.hospital.keys import amends
from mdmfs.hospital.ledger.records import METADATA
from mdmfs.hospital.metadata.outgoing import Wrapped
from mdmfs.model.names import Guid, Lfn
from mdmfs.wire.messages.files import (
    CHANGES_PATH,
    DESCRIBE_PATH,
    HEADERS_PATH,
    LIST_PATH,
    LOCATE_PATH,
    TOTALS_PATH,
    TRANSFERS_PATH,
    AskChanges,
    AskHeaders,
    AskTotals,
    AskTransfers,
    Describe,
    DirectoryPage,
    ListDirectory,
    Locate,
    NodeKind,
)
from mdmfs.wire.service import Reply, Request, Service, StreamReply
from mdmfs.wire.stream import Address
from tests.twins.clinic import PROJECT_LFN, READER, Clinic, OpenClinic, add_entry, slice_of
from tests.twins.store import MemoryStore

PLANTED = dt.datetime(2031, 7, 19, 13, 37, 11, 250_000, tzinfo=dt.UTC)
"""When everything is registered, on no day that an image tells."""
DAY_SECONDS = 86_400
WRITTEN = re.compile(rb"2031-?07-?19|19 Jul 2031|Jul 19,? 2031")
FOLDERS = {NodeKind.DIRECTORY}
ALIKE = dt.date(2018, 3, 12)
"""The Study Date of the images."""


def is_planted(number: float) -> bool:
    """Ask whether a number is a time of the planted day or of the days beside it, in whatever unit."""
    near = PLANTED.timestamp() - 2 * DAY_SECONDS, PLANTED.timestamp() + 2 * DAY_SECONDS
    return any(near[0] * unit <= number <= near[1] * unit for unit in (1, 10**3, 10**6, 10**9))


def leaks(told: object, where: str = "") -> Iterator[str]:
    """Name each place in what is told that tells the planted day."""
    if isinstance(told, dict):
        for key, value in told.items():
            yield from leaks(value, f"{where}.{key}")
    elif isinstance(told, (list, tuple)):
        for value in told:
            yield from leaks(value, f"{where}[]")
    elif isinstance(told, bytes | str):
        if WRITTEN.search(told if isinstance(told, bytes) else told.encode()):
            yield where
    elif isinstance(told, int | float) and is_planted(told):
        yield where


async def everything_told(hospital: OpenClinic) -> AsyncIterator[tuple[str, object]]:
    """Ask all that a reader's proxy can ask of names and files, and give what comes, with the question."""
    waiting, guids = [Lfn(())], list[bytes]()
    while waiting:
        lfn = waiting.pop()
        page = await hospital.told(LIST_PATH, ListDirectory(str(lfn)))
        assert isinstance(page, DirectoryPage)
        yield f"list {lfn}", msgspec.to_builtins(page, builtin_types=(bytes,))
        waiting += [lfn / node.name for node in page.entries if node.kind in FOLDERS]
        guids += [node.guid for node in page.entries if node.guid]
        for node in (page.directory, *page.entries):
            place = path_of(lfn if node is page.directory else lfn / node.name, node.kind)
            for method in ("PROPFIND", "HEAD"):
                yield f"{method} {place}", await web(hospital, method, place)
    assert guids
    for path, message in (
        (CHANGES_PATH, AskChanges(0, 0.0)),
        *((DESCRIBE_PATH, Describe(guid)) for guid in guids),
        (LOCATE_PATH, Locate(guids)),
        (TOTALS_PATH, AskTotals(str(PROJECT_LFN))),
        (TRANSFERS_PATH, AskTransfers(guids)),
        (HEADERS_PATH, AskHeaders(guids)),
    ):
        answer = await hospital.ask(path, message)
        if isinstance(answer, Reply):
            yield path, msgspec.to_builtins(answer.message, builtin_types=(bytes,))
        else:
            assert isinstance(answer, StreamReply)
            yield path, [dict(answer.headers), b"".join([bytes(piece) async for piece in answer.chunks])]


async def web(hospital: OpenClinic, method: str, path: str) -> object:
    """Ask as a program of the grid does; give headers and body."""

    async def body() -> bytes:
        await trio.lowlevel.checkpoint()
        return b""

    service = Service("hospital", DavFace(hospital.hospital, hospital.recalls).routes())
    request = Request(method, path, {"depth": "1"}, READER, Address("192.0.2.7", 1), body)
    answer = await service.answer(request)
    assert answer.status < 300 or (method, path[-1]) == ("HEAD", "/"), (method, path, answer)
    if isinstance(answer, StreamReply):
        octets = b"".join([bytes(piece) async for piece in answer.chunks]) if method == "PROPFIND" else b""
        return [dict(answer.headers), octets]
    return [dict(answer.headers), getattr(answer, "body", b"")]


def told_to_metadata(hospital: OpenClinic) -> list[object]:
    """Give what waits for the metadata service: messages, as it gets them, without versions of ACLs."""
    items = hospital.hospital.store.read(lambda tx: tx.outbox.peek(METADATA, limit=100))
    return [msgspec.msgpack.decode(msgspec.msgpack.decode(item.payload, type=Wrapped).message) for item in items]


def image(number: int, *, series: int = 1) -> object:
    """Make a slice with the date of a study."""
    made = slice_of(number, series=series)
    made.StudyDate = f"{ALIKE:%Y%m%d}"
    return made


POLICIES = {
    "shifted": Policy.parse('name = "s"\nheads = "agreement"\noptions = ["retain-modified-dates"]\n'),
    "removed": Policy.parse('name = "r"\nheads = "agreement"\n'),
}


@pytest.mark.parametrize("policy", list(POLICIES))
async def test_nothing_outside_tells_the_day_of_registration(tmp_path: Path, policy: str) -> None:
    """Not listings, headers, the feed or WebDAV, nor what the metadata service gets; whether dates move or go.

    Registered, added to, taken away in part, made anew: all of it on that day.
    """
    clinic = Clinic(tmp_path, [image(number, series=series) for series in (1, 2) for number in range(1, 4)])  # type: ignore[misc]
    clinic.now, clinic.until, clinic.has_metadata = PLANTED.timestamp(), PLANTED.date(), True
    clinic.store, clinic.policy = MemoryStore(clock=lambda: clinic.now), POLICIES[policy]
    async with clinic.open() as hospital:
        await hospital.harvest()
        clinic.now += 60
        clinic.pacs.held += [image(number, series=3) for number in range(1, 3)]  # type: ignore[misc]
        await hospital.harvest()
        guids = list(hospital.files().values())
        await hospital.hospital.store.write(lambda tx: amends.destroy(tx, guids[:1]))
        await hospital.hospital.store.write(lambda tx: tx.catalogue.quarantine(guids[1:4]))
        await hospital.hospital.store.write(lambda tx: tx.catalogue.show(guids[1:3]))
        await add_entry(hospital, PROJECT_LFN, READER, Right.READ | Right.TRAVERSE)
        asked = 0
        async for question, told in everything_told(hospital):
            asked += 1
            assert not list(leaks(told)), question
        assert asked > 50
        told_besides = told_to_metadata(hospital)
        assert told_besides
        assert not list(leaks(told_besides))


async def test_times_are_of_the_day_in_the_sessions_name(tmp_path: Path) -> None:
    """Of files, and of the directories above; what no date is told of has 1980."""
    clinic = Clinic(tmp_path, [image(number) for number in range(1, 4)])  # type: ignore[misc]
    async with clinic.open() as hospital:
        await hospital.harvest()
        (series,) = hospital.series()
        date = series.lfn.parts[-2].removeprefix("ses-")
        expected = dt.datetime.strptime(date, "%Y%m%d").replace(tzinfo=dt.UTC)
        assert expected.date() != ALIKE
        assert (ALIKE - expected.date()).days % 7 == 0
        shown = [
            hospital.hospital.store.read(lambda tx, guid=guid: tx.catalogue.file(guid)) for guid in everyone(hospital)
        ]
        assert {file.modified for file in shown if file} == {expected.timestamp()}
        places = [Lfn(series.lfn.parts[:length]) for length in range(len(series.lfn.parts) + 1)]
        nodes = [hospital.hospital.store.read(lambda tx, lfn=lfn: tx.catalogue.look_up(lfn)) for lfn in places]
        assert {node.modified for node in nodes if node} == {expected.timestamp()}


def everyone(hospital: OpenClinic) -> list[Guid]:
    """Give the GUIDs of all visible files."""
    return list(hospital.files().values())
