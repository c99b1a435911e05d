"""The frames of a bundle: each file's own, whatever becomes of the others, and nothing of what is inside."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import msgspec
import pytest
import structlog.testing
import trio
from trio.testing import wait_all_tasks_blocked

from mdmfs.hospital.kept.staging import Staging
from mdmfs.hospital.release.arrivals import Released
from mdmfs.hospital.release.bundles import frames
from mdmfs.model.errors import (
    AccessDeniedError,
    IntegrityError,
    MdmfsError,
    OutOfSpaceError,
    PacsUnreachableError,
    RecallFailedError,
    StoreError,
)
from mdmfs.sealing.layout import HEADER_SIZE
from mdmfs.wire.messages.files import SealedBeginning
from mdmfs.wire.messages.message import Failure
from tests.twins.octets import octets
from tests.twins.records import guid_of

HEAD = struct.Struct(">BHI")
SIZE = HEADER_SIZE + 1000
SEALED = octets(SIZE, "sealed")
INSIDE = "pacs.inside.example 10.1.2.3 AET_MAIN /var/lib/mdmfs"
LetOut = tuple[int, Released | MdmfsError] | None


async def written(*let_out: LetOut) -> bytes:
    """Write a bundle of two files."""

    async def released() -> AsyncGenerator[LetOut]:
        for one in let_out:
            await trio.lowlevel.checkpoint()
            yield one

    guids = [guid_of(number) for number in range(2)]
    return b"".join([bytes(piece) async for piece in frames(released(), guids)])


def read(bundle: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Read kind, place and contents of each frame."""
    while bundle:
        kind, place, length = HEAD.unpack_from(bundle)
        yield kind, place, bundle[HEAD.size : HEAD.size + length]
        bundle = bundle[HEAD.size + length :]


def descriptors() -> int:
    """Count what this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def staged(folder: Path, number: int) -> Released:
    """Stage a file."""
    staging = Staging(folder / "staging", 10**6)
    async with staging.writing(guid_of(number), 3, SIZE) as writer:
        await writer.write(lambda: SEALED)
    return Released(writer.staged, 2)


async def test_a_file_that_fails_takes_no_other_along(tmp_path: Path) -> None:
    """It says why in its place; a wait is told by nothing."""
    bundle = await written((1, AccessDeniedError("not for you")), None, (0, await staged(tmp_path, 0)))
    (kind, place, failure), (began, first, beginning), (went_on, second, body), (ended, *_) = read(bundle)
    assert (kind, place) == (3, 1)
    assert msgspec.msgpack.decode(failure, type=Failure).code == AccessDeniedError.code
    told = msgspec.msgpack.decode(beginning, type=SealedBeginning)
    assert (told.size, told.generation, told.threshold, told.salt) == (SIZE, 3, 2, SEALED[:24])
    assert (began, first, went_on, second, body, ended) == (1, 0, 2, 0, SEALED, 4)


@pytest.mark.parametrize("kind", [PacsUnreachableError, RecallFailedError, OutOfSpaceError, StoreError, IntegrityError])
async def test_no_frame_tells_what_is_inside_the_hospital(kind: type[MdmfsError]) -> None:
    """Addresses, AE titles and paths stay in its log."""
    with structlog.testing.capture_logs() as lines:
        ((number, place, failure), _) = read(await written((0, kind(INSIDE))))
    told = msgspec.msgpack.decode(failure, type=Failure)
    assert (number, place, told.code) == (3, 0, kind.code)
    assert str(guid_of(0)) in told.message
    assert not any(word in repr(told) for word in INSIDE.split())
    assert INSIDE in repr(lines)


async def test_a_copy_that_is_gone_or_breaks_off_ends_its_file_as_a_failure(tmp_path: Path) -> None:
    """Never as its end; the others follow."""
    gone, cut, whole = [await staged(tmp_path / str(number), 0) for number in range(3)]
    for released in (gone, cut):
        released.staged.hot = None
    gone.staged.path.unlink()
    with cut.staged.path.open("r+b") as file:
        file.truncate(HEADER_SIZE + 10)
    with structlog.testing.capture_logs():
        bundle = await written((0, gone), (0, cut), (1, whole))
    assert [(kind, place) for kind, place, _ in read(bundle)] == [
        (3, 0), (1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (4, 0),
    ]  # fmt: skip
    failures = [msgspec.msgpack.decode(told, type=Failure).code for kind, _, told in read(bundle) if kind == 3]
    assert failures == [StoreError.code, IntegrityError.code]
    assert str(tmp_path).encode() not in bundle


async def test_what_is_still_written_comes_as_it_is_there(tmp_path: Path, nursery: trio.Nursery) -> None:
    """That it may take a while is told by an empty piece, which is no frame."""
    staging, pieces = Staging(tmp_path / "staging", 10**6), list[bytes]()

    async def released() -> AsyncGenerator[LetOut]:
        await trio.lowlevel.checkpoint()
        yield 0, Released(writer.staged, 2)

    async def collect() -> None:
        pieces.extend([bytes(piece) async for piece in frames(released(), [guid_of(0)])])

    async with staging.writing(guid_of(0), 3, SIZE) as writer:
        await writer.write(lambda: SEALED[:-500])
        nursery.start_soon(collect)
        await wait_all_tasks_blocked()
        await writer.write(lambda: SEALED[-500:])
    await wait_all_tasks_blocked()
    assert b"" in pieces
    frames_read = list(read(b"".join(pieces)))
    assert [kind for kind, *_ in frames_read] == [1, 2, 2, 4]
    assert b"".join(contents for kind, _, contents in frames_read if kind == 2) == SEALED


async def test_who_stops_reading_leaves_nothing_open(tmp_path: Path) -> None:
    """Neither the copy, nor what brings the next ones."""
    ended, whole = [], await staged(tmp_path, 0)
    whole.staged.hot = None

    async def released() -> AsyncGenerator[LetOut]:
        try:
            await trio.lowlevel.checkpoint()
            yield 0, whole
        finally:
            ended.append(True)

    before = descriptors()
    async with contextlib.aclosing(frames(released(), [guid_of(0)])) as begun:
        assert await anext(begun)
        assert descriptors() == before + 1
    assert (ended, descriptors()) == ([True], before)
