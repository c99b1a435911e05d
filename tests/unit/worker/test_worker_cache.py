"""The ciphertext cache: bounded, private, whole objects only, and nothing to repair after a crash."""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path

import pytest

from mdmfs.model.errors import IntegrityError, OutOfSpaceError, PeerUnreachableError
from mdmfs.model.names import Guid
from mdmfs.sealing.layout import sealed_size
from mdmfs.worker.cache.store import CiphertextCache, Room, Seal

SIZE = 1000
LENGTH = sealed_size(SIZE)


async def cache_of(folder: Path, limit: int = 10 * LENGTH) -> CiphertextCache:
    """Open a cache."""
    cache = CiphertextCache(folder, limit)
    await cache.load()
    return cache


async def put(cache: CiphertextCache, *, seal: Seal | None = None, guid: Guid | None = None) -> Guid:
    """Let one object arrive whole."""
    guid = guid or Guid.from_random(secrets.token_bytes(16))
    arriving = await cache.receive(guid, LENGTH)
    arriving.write(memoryview(guid.octets + bytes(LENGTH - 16)))
    arriving.note(LENGTH)
    cache.keep(arriving, seal or Seal(3, 2, secrets.token_bytes(24)))
    arriving.close()
    return guid


async def test_what_was_kept_is_there_after_a_restart_with_its_seal(tmp_path: Path) -> None:
    """The name is enough to know it."""
    seal = Seal(7, 3, secrets.token_bytes(24))
    guid = await put(await cache_of(tmp_path), seal=seal)
    again = await cache_of(tmp_path)
    found = again.open(guid, SIZE)
    assert found is not None
    ciphertext, known = found
    assert known == seal
    assert ciphertext.is_from_cache
    assert ciphertext.read(0, 16) == guid.octets
    ciphertext.close()
    assert again.used == LENGTH


async def test_everything_is_the_owners_alone(tmp_path: Path) -> None:
    """Also in a folder that was open to all before."""
    (tmp_path / "c").mkdir(mode=0o755)
    cache = await cache_of(tmp_path / "c")
    await put(cache)
    await cache.receive(Guid(bytes(16)), LENGTH)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "c").rglob("*") if path.is_file()}
    assert modes == {0o600}
    folders = [path for path in (tmp_path / "c").iterdir() if path.is_dir()]
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "c", *folders)} == {0o700}


async def test_what_had_not_arrived_is_dropped_at_the_start(tmp_path: Path) -> None:
    """But not what another mount is writing just now."""
    cache = await cache_of(tmp_path)
    (tmp_path / "arriving" / "left-by-a-crash").write_bytes(b"half")
    writing = await cache.receive(Guid(bytes(16)), LENGTH)
    await cache_of(tmp_path)
    assert [path.name for path in (tmp_path / "arriving").iterdir()] == [writing.path.name]
    fcntl.flock(writing.descriptor, fcntl.LOCK_UN)
    await cache_of(tmp_path)
    assert not list((tmp_path / "arriving").iterdir())
    writing.close()


@pytest.mark.parametrize("name", ["x", "a.b.c.d", f"{Guid(bytes(16))}.0.2.aabb", f"{Guid(bytes(16))}"])
async def test_what_nobody_named_so_is_removed(tmp_path: Path, name: str) -> None:
    """A stray file is no object."""
    await cache_of(tmp_path)
    (tmp_path / "complete" / name).write_bytes(b"stray")
    cache = await cache_of(tmp_path)
    assert not list((tmp_path / "complete").iterdir())
    assert cache.used == 0


@pytest.mark.parametrize("change", [-1, 1, -LENGTH])
async def test_an_object_of_another_length_is_not_opened(tmp_path: Path, change: int) -> None:
    """It is dropped, and fetched anew."""
    cache = await cache_of(tmp_path)
    guid = await put(cache)
    (path,) = (tmp_path / "complete").iterdir()
    os.truncate(path, LENGTH + change)
    assert cache.open(guid, SIZE) is None
    assert guid not in cache
    assert not path.exists()


async def test_an_object_cut_while_it_is_open_is_an_error_and_no_byte(tmp_path: Path) -> None:
    """The length was right when it was opened."""
    cache = await cache_of(tmp_path)
    found = cache.open(await put(cache), SIZE)
    assert found is not None
    os.truncate(found[0].path, 100)
    with pytest.raises(IntegrityError):
        found[0].read(50, 100)
    found[0].close()


async def test_the_objects_not_opened_for_longest_leave_first_also_after_a_restart(tmp_path: Path) -> None:
    """Opening counts, not arriving."""
    cache = await cache_of(tmp_path, limit=3 * LENGTH)
    first, second, third = [await put(cache) for _ in range(3)]
    for guid in (first, third):
        found = cache.open(guid, SIZE)
        assert found is not None
        found[0].close()
    again = await cache_of(tmp_path, limit=2 * LENGTH)
    assert [guid in again for guid in (first, second, third)] == [True, False, True]
    fourth = await put(again)
    assert [guid in again for guid in (first, third, fourth)] == [False, True, True]
    assert again.used == 2 * LENGTH


async def test_what_is_larger_than_the_cache_is_refused_by_name(tmp_path: Path) -> None:
    """And what was there may stay gone, but the account is right."""
    cache = await cache_of(tmp_path, limit=LENGTH)
    with pytest.raises(OutOfSpaceError, match="room for"):
        await cache.receive(Guid(bytes(16)), LENGTH + 1)
    assert cache.used == 0
    await put(cache)


async def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    """An error of the disk is ENOSPC for the reader, and leaves the account right."""
    cache = await cache_of(tmp_path)
    (tmp_path / "arriving").rmdir()
    with pytest.raises(OutOfSpaceError):
        await cache.receive(Guid(bytes(16)), LENGTH)
    assert cache.used == 0


async def test_readers_wait_for_what_is_arriving_and_hear_why_it_does_not(tmp_path: Path) -> None:
    """Bytes that came are given, others raise."""
    cache = await cache_of(tmp_path)
    arriving = await cache.receive(Guid(bytes(16)), LENGTH)
    arriving.write(memoryview(b"x" * 100))
    arriving.note(100)
    await arriving.wait_for(100)
    assert arriving.read(0, 100) == b"x" * 100
    arriving.fail(PeerUnreachableError("cut"))
    await arriving.wait_for(100)
    with pytest.raises(PeerUnreachableError):
        await arriving.wait_for(101)
    cache.abandon(arriving)
    arriving.close()
    assert cache.used == 0
    assert not list((tmp_path / "arriving").iterdir())


async def test_a_newer_object_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    """One object for each GUID, counted once."""
    cache = await cache_of(tmp_path)
    guid = await put(cache)
    await put(cache, guid=guid)
    assert len(list((tmp_path / "complete").iterdir())) == 1
    assert cache.used == LENGTH


async def test_room_can_be_made_until_nothing_is_left_to_drop(tmp_path: Path) -> None:
    """What a full disk is met with."""
    cache = await cache_of(tmp_path)
    await put(cache)
    assert cache.evict_one()
    assert not cache.evict_one()
    assert cache.used == 0
    assert not list((tmp_path / "complete").iterdir())


async def test_of_a_disk_that_others_fill_so_much_stays_free(tmp_path: Path) -> None:
    """What was not opened for longest goes first; where nothing is left to go, a sentence says what to do."""
    told = os.statvfs(tmp_path)
    room = Room(2**40, floor=0)
    cache = CiphertextCache(tmp_path, room.limit, room)
    await cache.load()
    kept = [await put(cache) for _ in range(3)]
    fuller = Room(2**40, floor=told.f_blocks * told.f_frsize)
    fuller.caches.add(cache)
    with pytest.raises(OutOfSpaceError, match=r"cache\.free"):
        fuller.make(LENGTH, tmp_path)
    assert not any(guid in cache for guid in kept)
    assert not list((tmp_path / "complete").iterdir())


async def test_two_mounts_of_one_user_do_each_other_no_harm_in_one_folder(tmp_path: Path) -> None:
    """What one lets go the other fetches anew, or reads on; the next one finds what both have kept."""
    first, second = await cache_of(tmp_path), await cache_of(tmp_path)
    guids = [await put(first), await put(second)]
    third = await cache_of(tmp_path)
    opened = [third.open(guid, SIZE) for guid in guids]
    first.discard(guids[0])
    assert first.open(guids[0], SIZE) is None
    assert third.open(guids[0], SIZE) is None
    assert third.used == LENGTH
    for found, guid in zip(opened, guids, strict=True):
        assert found is not None
        assert found[0].read(0, 16) == guid.octets
        found[0].close()
    await put(third, guid=guids[0])


async def test_a_folder_that_another_mount_empties_meanwhile_can_be_opened(tmp_path: Path) -> None:
    """A name that leads nowhere any more is none."""
    await put(await cache_of(tmp_path))
    (tmp_path / "complete" / f"{Guid(bytes(16))}.0.2.{bytes(24).hex()}").symlink_to("gone")
    assert (await cache_of(tmp_path)).used == LENGTH
