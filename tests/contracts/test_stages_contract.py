"""What every store promises of requests to stage files: kept whole, found again, forgotten whole."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

from mdmfs.hospital.ledger.stages import StageFile, StageRequest, StageState
from mdmfs.hospital.store import Store

ONE, TWO = b"1" * 16, b"2" * 16


@pytest.fixture
async def store(open_store: Callable[[], Store]) -> AsyncIterator[Store]:
    """Each store in turn, empty."""
    opened = open_store()
    yield opened
    await opened.aclose()


def request_of(request_id: bytes, count: int) -> StageRequest:
    """Make a request."""
    return StageRequest(request_id, "/CN=a", ["/vo"], "192.0.2.7", 1.0, count, count)


def files_of(count: int) -> list[StageFile]:
    """Make its files; more than one byte counts."""
    return [StageFile(number, f"/a/{number}", bytes(16), 7, 60.0, StageState.SUBMITTED) for number in range(count)]


async def test_a_request_is_found_again_with_its_files_in_order(store: Store) -> None:
    """And no other's."""
    await store.write(lambda tx: tx.stages.put(request_of(ONE, 300), files_of(300)))
    await store.write(lambda tx: tx.stages.put(request_of(TWO, 1), files_of(1)))
    assert store.read(lambda tx: tx.stages.get(ONE)) == request_of(ONE, 300)
    assert store.read(lambda tx: tx.stages.files(ONE)) == files_of(300)
    assert store.read(lambda tx: tx.stages.file(ONE, 299)) == files_of(300)[299]
    assert store.read(lambda tx: tx.stages.file(TWO, 1)) is None
    assert {it.id for it in store.read(lambda tx: tx.stages.all())} == {ONE, TWO}


async def test_a_change_of_one_file_leaves_the_others(store: Store) -> None:
    """Progress is written file by file."""
    await store.write(lambda tx: tx.stages.put(request_of(ONE, 3), files_of(3)))
    done = msgspec.structs.replace(files_of(3)[1], state=StageState.COMPLETED, finished=5.0)
    await store.write(lambda tx: tx.stages.put(msgspec.structs.replace(request_of(ONE, 3), left=2), [done]))
    expected = [files_of(3)[0], done, files_of(3)[2]]
    assert store.read(lambda tx: tx.stages.files(ONE)) == expected


async def test_what_is_forgotten_is_gone_whole(store: Store) -> None:
    """With all its files; forgetting twice is told."""
    for request_id in (ONE, TWO):
        await store.write(lambda tx, request_id=request_id: tx.stages.put(request_of(request_id, 3), files_of(3)))  # type: ignore[misc]
    assert await store.write(lambda tx: tx.stages.remove(ONE))
    assert not await store.write(lambda tx: tx.stages.remove(ONE))
    assert store.read(lambda tx: tx.stages.files(ONE)) == []
    assert store.read(lambda tx: tx.stages.get(ONE)) is None
    assert len(store.read(lambda tx: tx.stages.files(TWO))) == 3
