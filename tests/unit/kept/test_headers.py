"""Headers: made at registration, let out like files, without a recall; gone with the file or its key, and bounded."""

from __future__ import annotations

import functools
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
import structlog
import trio

from mdmfs.access.acl import Right
from mdmfs.hospital.health import health_of
from mdmfs.hospital.kept.escrow import verifier
from mdmfs.hospital.kept.headers import Beginning, Headers, KeptHeader
from mdmfs.hospital.kept.known import Origin
from mdmfs.hospital.keys import amends
from mdmfs.hospital.registration.ending import Ending, take_away
from mdmfs.hospital.release.outdated import forget_outdated_headers
from mdmfs.hospital.store import Store, Transaction
from mdmfs.model.errors import MalformedMessageError, StoreError
from mdmfs.model.identity import Principal
from mdmfs.model.names import Guid
from mdmfs.sealing.header import ObjectContext, Role
from mdmfs.sealing.layout import CHUNK_SIZE, PAGE_SIZE, SEGMENT_SIZE, plain_size, prefix_pieces
from mdmfs.sealing.unseal import unseal
from mdmfs.wire.keystores.keystores import Keystores
from mdmfs.wire.messages.files import HEADERS_PATH, MAX_HEADERS, AskHeaders, SealedHeader, SealedHeaders
from tests.twins.clinic import PROJECT_LFN, READER, SECONDS, STRANGER, Clinic, OpenClinic, add_entry, slices, until
from tests.twins.cutting import CuttingStore
from tests.twins.disk import no_room_behind
from tests.twins.key_tasks import rotate_now
from tests.twins.keystores import principal
from tests.twins.octets import octets
from tests.twins.records import guid_of

LISTER = principal("/DC=org/DC=demo/CN=lister")
DAY = 86_400.0
T = TypeVar("T")


class FollowedStore(CuttingStore):
    """A store where something happens behind each write of a file, before the writer goes on."""

    def __init__(self, store: Store, happen: Callable[[], Awaitable[object]]) -> None:
        super().__init__(store, sys.maxsize, is_kept=True)
        self._happen = happen

    async def write(self, act: Callable[[Transaction], T]) -> T:
        """Write, before."""
        before = self.read(lambda tx: tx.catalogue.files())
        written = await super().write(act)
        if self.read(lambda tx: tx.catalogue.files()) != before:
            await self._happen()
        return written


async def asked(hospital: OpenClinic, guids: Sequence[Guid], who: Principal = READER) -> list[SealedHeader]:
    """Ask for headers, as a mount does."""
    answer = await hospital.told(HEADERS_PATH, AskHeaders([guid.octets for guid in guids], "a test"), who)
    assert isinstance(answer, SealedHeaders)
    return answer.headers


async def opened(hospital: OpenClinic, guid: Guid, header: SealedHeader) -> bytes:
    """Unseal a header with the shares that the keystores give the reader."""
    file = hospital.hospital.store.read(lambda tx: tx.catalogue.file(guid))
    assert file is not None
    clients = {name: twin.as_seen_by(READER) for name, twin in hospital.clinic.keystores.items()}
    keystores = Keystores(clients, hospital.nursery)
    verify = verifier(guid, file.generation, file.key_check)
    async with keystores.collecting([guid], deadline=trio.current_time() + SECONDS) as gathering:
        with await gathering.key(guid, verify, threshold=header.threshold) as key:
            size = plain_size(len(header.sealed))
            return unseal(header.sealed, key, ObjectContext(Role.PREFIX, guid, header.generation, size))


async def test_a_header_is_what_the_file_begins_and_ends_with_and_costs_no_recall(tmp_path: Path) -> None:
    """Byte for byte, and recorded as a header."""
    async with Clinic(tmp_path, slices((1, 2, 3))).open() as hospital:
        await hospital.harvest()
        guids = list(hospital.files().values())
        before = hospital.clinic.pacs.recalls
        headers = await asked(hospital, guids)
        assert hospital.clinic.pacs.recalls == before
        told = hospital.audited()[-3:]
        assert [(line["event"], line["guid"], line["purpose"], line.get("ahead", False)) for line in told] == [
            ("header", str(guid), "a test", place > 0) for place, guid in enumerate(guids)
        ]
        for guid, header in zip(guids, headers, strict=True):
            file = hospital.hospital.store.read(lambda tx, guid=guid: tx.catalogue.file(guid))
            assert file is not None
            whole = await hospital.read(guid)
            pieces = prefix_pieces(len(whole), file.rendition.header_length)
            expected = b"".join(whole[piece.offset : piece.offset + piece.length] for piece in pieces)
            assert await opened(hospital, guid, header) == expected


async def test_without_a_record_no_header_is_let_out(tmp_path: Path) -> None:
    """An audit log on a full disk stops these, too."""
    async with Clinic(tmp_path, slices((1,))).open() as hospital:
        await hospital.harvest()
        guids = list(hospital.files().values())
        with no_room_behind(tmp_path / "audit.jsonl"), pytest.raises(StoreError, match="nothing is released"):
            await asked(hospital, guids)
        (header,) = await asked(hospital, guids)
        assert header.sealed


async def test_who_may_not_read_a_file_gets_no_header_of_it(tmp_path: Path) -> None:
    """A stranger, who may only list, and whoever asks for what is not there: all get the same."""
    async with Clinic(tmp_path, slices((1, 2))).open() as hospital:
        await hospital.harvest()
        await add_entry(hospital, PROJECT_LFN, LISTER, Right.TRAVERSE)
        guids = list(hospital.files().values())
        recorded = len(hospital.audited())
        for who in (STRANGER, LISTER):
            assert await asked(hospital, [*guids, guid_of(77)], who) == [SealedHeader()] * 3
        assert len(hospital.audited()) == recorded
        with pytest.raises(MalformedMessageError):
            await asked(hospital, [guid_of(number) for number in range(MAX_HEADERS + 1)])


async def test_a_header_goes_with_its_file(tmp_path: Path) -> None:
    """When the project ends, the row too, not only the right to it."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    async with clinic.open() as hospital:
        await hospital.harvest()
        guids = list(hospital.files().values())
        assert all(header.sealed for header in await asked(hospital, guids))
        clinic.now += 2 * DAY
        ending = Ending(hospital.hospital)
        assert [await ending.look() for _ in range(2)] == [0, 2]
        assert not any(header.sealed for header in await asked(hospital, guids))
        kept = [(guid, 1) for guid in guids]
        assert not any(await hospital.hospital.headers.find(kept))
        await hospital.hospital.headers.flush()
        assert not any(await hospital.hospital.headers.find(kept))


async def test_a_header_under_an_old_key_is_none(tmp_path: Path) -> None:
    """After a rotation the file opens by a recall."""
    async with Clinic(tmp_path, slices((1, 2))).open() as hospital:
        await hospital.harvest()
        guids = list(hospital.files().values())
        rotate = functools.partial(rotate_now, hospital=hospital.hospital, guids=guids[:1])
        await hospital.hospital.store.write(rotate)
        headers = await asked(hospital, guids)
        assert [bool(header.sealed) for header in headers] == [False, True]


async def test_the_first_recall_under_a_new_key_makes_the_header_anew(tmp_path: Path) -> None:
    """Sealed under the new key, and known again when it arrives; it goes with the file as the first one would."""
    async with Clinic(tmp_path, slices((1, 2))).open() as hospital:
        await hospital.harvest()
        guid, other = hospital.files().values()
        headers = hospital.hospital.headers
        before = headers.origin(guid, 1)
        rotate = functools.partial(rotate_now, hospital=hospital.hospital, guids=[guid])
        await hospital.hospital.store.write(rotate)
        hospital.hospital.discard(guid)
        await headers.flush()
        hospital.hospital.outbox.ring()
        await hospital.deliver()
        assert not any(header.sealed for header in await asked(hospital, [guid]))
        whole = await hospital.read(guid)
        with trio.fail_after(SECONDS):
            while headers.lacks(guid, 2):  # noqa: ASYNC110 it is kept after the last byte has left
                await trio.sleep(0.01)
        (header,) = await asked(hospital, [guid])
        assert header.generation == 2
        file = hospital.hospital.store.read(lambda tx: tx.catalogue.file(guid))
        assert file is not None
        pieces = prefix_pieces(len(whole), file.rendition.header_length)
        expected = b"".join(whole[piece.offset : piece.offset + piece.length] for piece in pieces)
        assert await opened(hospital, guid, header) == expected
        after = headers.origin(guid, 2)
        assert before is not None
        assert after is not None
        assert after[0] == before[0]
        hospital.hospital.staging.discard(guid)
        assert await hospital.read(guid) == whole  # by way of the known header
        assert (await asked(hospital, [guid]))[0].sealed == header.sealed
        hospital.hospital.discard(guid)
        await headers.flush()
        assert [headers.lacks(guid, 2), headers.lacks(other, 1)] == [True, False]


async def test_a_header_that_had_no_room_on_the_disk_is_made_by_the_first_recall_once_it_has(tmp_path: Path) -> None:
    """Whoever opens a file until then waits for the PACS; the log tells once that the disk is full."""
    async with Clinic(tmp_path, slices((1, 2))).open() as hospital:
        headers = hospital.hospital.headers
        with structlog.testing.capture_logs() as logs:
            with no_room_behind(tmp_path / "headers" / "data.mdb"):
                await hospital.harvest()
                await headers.put([KeptHeader(guid_of(1), 1, octets(20_000, "1"))])
            guid, other = hospital.files().values()
            health = health_of(hospital.hospital)
            assert (health.files, health.headerless, health.is_header_room) == (2, 2, True)
            assert not any(header.sealed for header in await asked(hospital, [guid, other]))
            whole = await hospital.read(guid)
            with trio.fail_after(SECONDS):
                while headers.lacks(guid, 1):  # noqa: ASYNC110 it is kept after the last byte has left
                    await trio.sleep(0.01)
            await headers.flush()
        assert [one["event"] for one in logs if "header" in one["event"]] == [
            "headers cannot be kept or deleted",
            "headers are kept again",
        ]
        (header, none) = await asked(hospital, [guid, other])
        assert whole.startswith((await opened(hospital, guid, header))[:1000])
        assert not none.sealed
        assert health_of(hospital.hospital).headerless == 1


async def test_what_made_room_for_others_is_not_made_again(tmp_path: Path) -> None:
    """It would drive out another one, which the next recall would make."""
    async with Clinic(tmp_path, slices((1, 2))).open() as hospital:
        with no_room_behind(tmp_path / "headers" / "data.mdb"):
            await hospital.harvest()
        headers, guids = hospital.hospital.headers, list(hospital.files().values())
        kept = [KeptHeader(guid_of(number), 1, octets(20_000, str(number))) for number in range(590)]
        headers._limit = 600 * 20_480  # noqa: SLF001 a clinic has room for a million
        await headers.put(kept)
        assert not health_of(hospital.hospital).is_header_room
        for guid in (*guids, *guids):
            assert await hospital.read(guid)
            hospital.hospital.staging.discard(guid)
        assert all(headers.lacks(guid, 1) for guid in guids)


async def test_what_is_discarded_is_deleted_while_the_daemon_runs(tmp_path: Path) -> None:
    """Each time, and not at its next start."""
    headers, guids = Headers(tmp_path, 2**24), [guid_of(1), guid_of(2)]
    await headers.put([KeptHeader(guid, 1, octets(100, str(guid))) for guid in guids])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(headers.run)
        for guid in guids:
            headers.discard(guid)
            await until(lambda guid=guid: headers.lacks(guid, 1))  # type: ignore[misc]
        nursery.cancel_scope.cancel()
    headers.close()
    again = Headers(tmp_path, 2**24)
    assert not any(await again.find([(guid, 1) for guid in guids]))
    again.close()


def test_headers_are_the_hospitals_alone(tmp_path: Path) -> None:
    """Also where somebody has made their directory before; what is no directory is named."""
    (tmp_path / "headers").mkdir(mode=0o755)
    Headers(tmp_path / "headers", 2**20).close()
    assert (tmp_path / "headers").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "headers").glob("*.mdb")} == {0}
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file cannot be opened"):
        Headers(tmp_path / "file", 2**20)


async def test_headers_outlive_the_daemon_and_the_oldest_make_room(tmp_path: Path) -> None:
    """By order of registration; what was discarded does not come back."""
    headers = Headers(tmp_path, 600 * 20_480)
    for begin in range(0, 1000, 50):
        await headers.put(
            [KeptHeader(guid_of(number), 1, octets(20_000, str(number))) for number in range(begin, begin + 50)]
        )
    headers.discard(guid_of(999))
    await headers.flush()
    headers.close()
    headers = Headers(tmp_path, 600 * 20_480)
    found = await headers.find([(guid_of(number), 1) for number in range(1000)])
    kept = [number for number, sealed in enumerate(found) if sealed]
    assert 300 < len(kept) <= 600
    assert kept == list(range(kept[0], 999))
    assert all(found[number] == octets(20_000, str(number)) for number in kept)
    assert (tmp_path / "data.mdb").stat().st_blocks * 512 < 20 * 2**20
    headers.close()


@pytest.mark.parametrize(
    "size", [1, PAGE_SIZE, CHUNK_SIZE, CHUNK_SIZE + 1, SEGMENT_SIZE, SEGMENT_SIZE + 7, 2 * SEGMENT_SIZE]
)
@pytest.mark.parametrize("header_length", [1, 9_000, 100_000])
def test_a_beginning_is_kept_while_the_plaintext_goes_by(size: int, header_length: int) -> None:
    """In segments, whose memory serves again."""
    plain, length = octets(size, "plain"), min(header_length, size)
    beginning, buffer = Beginning(), memoryview(bytearray(SEGMENT_SIZE))
    for begin in range(0, size, SEGMENT_SIZE):
        segment = plain[begin : begin + SEGMENT_SIZE]
        buffer[: len(segment)] = segment
        beginning.feed(buffer[: len(segment)], length)
    pieces = prefix_pieces(size, length)
    assert beginning.octets(size, length) == b"".join(plain[it.offset : it.offset + it.length] for it in pieces)


def test_a_header_longer_than_a_segment_is_not_kept() -> None:
    """It is part of its file, and no more."""
    plain = octets(2 * SEGMENT_SIZE, "plain")
    beginning = Beginning()
    for begin in (0, SEGMENT_SIZE):
        beginning.feed(memoryview(plain)[begin : begin + SEGMENT_SIZE], SEGMENT_SIZE)
    assert beginning.octets(len(plain), SEGMENT_SIZE) == b""


async def test_what_another_daemon_has_taken_away_is_not_kept_here(tmp_path: Path) -> None:
    """It worked on the store meanwhile: sealed headers go at the start, and digests of unsealed ones."""
    clinic = Clinic(tmp_path, slices((1, 2, 3)))
    async with clinic.open() as hospital:
        await hospital.harvest()
        gone, renewed, left = hospital.files().values()
        await clinic.store.write(lambda tx: amends.destroy(tx, [gone]))
        await clinic.store.write(lambda tx: rotate_now(tx, hospital.hospital, [renewed]))
        kept = hospital.hospital.headers
        assert len(kept.page(9)) == 3
        assert kept.origin(gone, 1) is not None
        await forget_outdated_headers(hospital.hospital)
        assert kept.page(1) == kept.page(9) == [(left, 1)]
        assert kept.page(9, left) == []
        assert [kept.origin(guid, 1) is None for guid in (gone, renewed, left)] == [True, True, False]


@pytest.mark.parametrize("is_rotated", [False, True])
async def test_a_header_is_not_kept_whose_file_goes_before_it_is_written(tmp_path: Path, *, is_rotated: bool) -> None:
    """It is written after the file is committed; nobody would delete it before the daemon starts again."""
    clinic = Clinic(tmp_path, slices((1, 2)))
    async with clinic.open() as hospital:

        async def end() -> None:
            guids = [file.guid for file in clinic.store.read(lambda tx: tx.catalogue.files())]
            if is_rotated:
                await clinic.store.write(lambda tx: rotate_now(tx, hospital.hospital, guids))
            else:
                await take_away(hospital.hospital, guids)
            for guid in guids:
                hospital.hospital.discard(guid)
            await hospital.hospital.headers.flush()

        await hospital.over(FollowedStore(clinic.store, end)).harvest()
        await hospital.hospital.headers.flush()
        assert hospital.hospital.headers.page(9) == []


async def test_what_is_kept_without_an_origin_is_known_by_none(tmp_path: Path) -> None:
    """It is served all the same; one of another key says nothing about it."""
    headers = Headers(tmp_path, 10**6)
    await headers.put([KeptHeader(guid_of(1), 1, b"sealed"), KeptHeader(guid_of(2), 1, b"two", Origin(9, bytes(32)))])
    assert await headers.find([(guid_of(1), 1)]) == [b"sealed"]
    assert headers.origin(guid_of(1), 1) is None
    assert headers.origin(guid_of(2), 1) == (Origin(9, bytes(32)), b"two")
    assert headers.origin(guid_of(2), 2) is None
    await headers.put([KeptHeader(guid_of(2), 2, b"anew")])
    assert headers.origin(guid_of(2), 2) is None
    headers.close()
