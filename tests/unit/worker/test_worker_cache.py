"""The ciphertext cache: bounded, private, whole objects only, and nothing to repair after a crash."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
import structlog.testing
import trio
import trio.testing

from mdmfs.model.errors import BusyError, ConfigurationError, IntegrityError, OutOfSpaceError, PeerUnreachableError
from mdmfs.model.names import Guid
from mdmfs.sealing.layout import sealed_size
from mdmfs.worker.cache.account import SLOTS, Account
from mdmfs.worker.cache.ciphertext import Ciphertext
from mdmfs.worker.cache.kept import Seal
from mdmfs.worker.cache.room import Room, SharedRoom
from mdmfs.worker.cache.store import CiphertextCache
from mdmfs.worker.reading.fetching import write_through
from tests.twins.descriptors import no_descriptors
from tests.twins.disk import no_locks

SIZE = 1000
LENGTH = sealed_size(SIZE)
QUEUED = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
"""So much the kernel tells one listener that does not listen."""


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


def descriptors() -> list[Path]:
    """Name what this process has open."""
    return sorted(Path("/proc/self/fd").iterdir())


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
    assert [str(path) for path in (tmp_path / "arriving").iterdir()] == [writing.path]
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


async def test_what_is_no_file_in_the_folders_is_left_alone_and_waited_for_by_nobody(tmp_path: Path) -> None:
    """A FIFO, a link to itself, a directory: by the name of an object and by any other; also in place of one."""
    first = await cache_of(tmp_path)
    seal = Seal(3, 2, secrets.token_bytes(24))
    swapped, kept = await put(first, seal=seal), await put(first)
    (tmp_path / "complete" / "lost+found").mkdir()
    (tmp_path / "complete" / f"{Guid(bytes(16))}.{seal}").mkdir()
    (tmp_path / "complete" / f"{Guid(b'l' * 16)}.{seal}").symlink_to(f"{Guid(b'l' * 16)}.{seal}")
    os.mkfifo(tmp_path / "arriving" / "fifo")
    cache = await cache_of(tmp_path)
    assert cache.used == 2 * LENGTH
    place = tmp_path / "complete" / f"{swapped}.{seal}"
    place.unlink()
    os.mkfifo(place)
    cache.read_ahead([swapped])
    assert cache.open(swapped, SIZE) is None
    found = cache.open(kept, SIZE)
    assert found is not None
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
    """And costs nothing of what is there."""
    cache = await cache_of(tmp_path, limit=LENGTH)
    guid = await put(cache)
    with pytest.raises(OutOfSpaceError, match="room for"):
        await cache.receive(Guid(bytes(16)), LENGTH + 1)
    assert guid in cache
    assert cache.used == LENGTH


async def test_what_arrives_is_not_let_go_for_what_arrives_next(tmp_path: Path) -> None:
    """Room that is taken counts from its first byte: else two large objects would fill the disk beside each other."""
    cache = await cache_of(tmp_path, limit=2 * LENGTH)
    await put(cache)
    arriving = [await cache.receive(Guid(bytes([number] * 16)), LENGTH) for number in range(2)]
    assert not cache.has_any
    with pytest.raises(OutOfSpaceError, match="what arrives takes it"):
        await cache.receive(Guid(bytes([2] * 16)), LENGTH)
    assert cache.used == 2 * LENGTH
    for ciphertext in arriving:
        cache.abandon(ciphertext)
        ciphertext.close()
    assert cache.used == 0
    await put(cache)


async def test_an_object_that_cannot_be_put_in_its_place_says_so_and_takes_no_room(tmp_path: Path) -> None:
    """Something of another kind lies there."""
    cache = await cache_of(tmp_path)
    guid, seal = Guid(bytes(16)), Seal(3, 2, bytes(24))
    in_its_way = tmp_path / "complete" / f"{guid}.{seal}"
    in_its_way.mkdir()
    arriving = await cache.receive(guid, LENGTH)
    arriving.write(memoryview(bytes(LENGTH)))
    arriving.note(LENGTH)
    with pytest.raises(OutOfSpaceError, match="cannot be put"):
        cache.keep(arriving, seal)
    cache.abandon(arriving)
    arriving.close()
    assert (cache.used, guid in cache, list((tmp_path / "arriving").iterdir())) == (0, False, [])


async def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    """An error of the disk is ENOSPC for the reader, and leaves the account right."""
    cache = await cache_of(tmp_path)
    (tmp_path / "arriving").rmdir()
    (tmp_path / "arriving").touch()
    with pytest.raises(OutOfSpaceError):
        await cache.receive(Guid(bytes(16)), LENGTH)
    assert cache.used == 0


async def test_a_cache_in_which_nothing_can_be_locked_leaves_nothing_behind(tmp_path: Path) -> None:
    """Neither a file, nor a descriptor, nor less room."""
    cache, before = await cache_of(tmp_path), descriptors()
    with no_locks(), pytest.raises(OutOfSpaceError, match="No locks"):
        await cache.receive(Guid(bytes(16)), LENGTH)
    assert descriptors() == before
    assert not list((tmp_path / "arriving").iterdir())
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
        await fuller.take(LENGTH, tmp_path)
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


# Several mounts of one user in one folder


async def mount_of(folder: Path, limit: int, floor: int = 0) -> CiphertextCache:
    """Open a cache as a mount does that shares its room with others."""
    cache = CiphertextCache(folder, limit, SharedRoom(folder, limit, floor))
    await cache.load()
    return cache


def read(cache: CiphertextCache, guid: Guid) -> bool:
    """Open an object, and tell whether it is there."""
    found = cache.open(guid, SIZE)
    if found is not None:
        found[0].close()
    return found is not None


def on_disk(folder: Path) -> int:
    """Add up what lies in a cache."""
    return sum(path.stat().st_size for part in ("complete", "arriving") for path in (folder / part).iterdir())


async def test_two_mounts_hold_to_one_limit_and_what_neither_has_opened_for_longest_goes(tmp_path: Path) -> None:
    """Whichever of them needs the room, and whosever the object was."""
    first, second = [await mount_of(tmp_path, 4 * LENGTH) for _ in range(2)]
    mine = [await put(first) for _ in range(3)]
    theirs = [await put(second)]
    assert read(first, mine[0])
    theirs.append(await put(second))
    assert on_disk(tmp_path) == 4 * LENGTH
    assert [read(first, guid) for guid in mine] == [True, False, True]
    theirs.append(await put(second))
    assert on_disk(tmp_path) == 4 * LENGTH
    assert [read(second, guid) for guid in theirs] == [False, True, True]
    mine.append(await put(first))
    assert read(first, mine[-1])
    assert on_disk(tmp_path) == 4 * LENGTH


async def test_what_one_mount_fetches_another_finds(tmp_path: Path) -> None:
    """Without looking for it, and until one of them lets it go."""
    first, second = [await mount_of(tmp_path, 4 * LENGTH) for _ in range(2)]
    guid, other = await put(first), await put(first)
    assert guid in second
    assert read(second, guid)
    assert second.used == 2 * LENGTH
    first.discard(other)
    assert not read(second, other)
    assert second.used == on_disk(tmp_path) == LENGTH


async def test_an_object_of_ones_own_is_not_given_up_for_anothers(tmp_path: Path) -> None:
    """Two mounts that fetch a file in the same moment have a sealing each: both can be read."""
    first, second = [await mount_of(tmp_path, 4 * LENGTH) for _ in range(2)]
    guid = await put(first)
    await put(second, guid=guid)
    unknown = Guid(bytes(16))
    assert [unknown in cache for cache in (first, second)] == [False, False]  # both have heard of the other's by now
    assert [read(cache, guid) for cache in (first, second)] == [True, True]


async def test_what_is_no_object_and_what_has_gone_again_is_not_found(tmp_path: Path) -> None:
    """Whoever put it there; nor is it taken away."""
    first, second = [await mount_of(tmp_path, 4 * LENGTH) for _ in range(2)]
    guid = await put(first)
    first.discard(guid)
    foreign = tmp_path / "complete" / f"{guid}.note"
    (tmp_path / "note").touch()
    (tmp_path / "note").rename(foreign)
    assert guid not in second
    assert foreign.exists()


async def test_an_odd_entry_hides_nothing_that_comes_behind_it(tmp_path: Path) -> None:
    """A link to itself is no object, and what is told of after it is heard of."""
    one, other = await mount_of(tmp_path, 10 * LENGTH), await mount_of(tmp_path, 10 * LENGTH)
    name = f"{Guid(b'l' * 16)}.{Seal(3, 2, secrets.token_bytes(24))}"
    (tmp_path / "complete" / name).symlink_to(name)
    guid = await put(one)
    assert guid in other


async def test_more_than_the_kernel_tells_of_is_fetched_again(tmp_path: Path) -> None:
    """Its queue has an end; what comes later is heard of once more."""
    first, second = [await mount_of(tmp_path, 4 * LENGTH) for _ in range(2)]
    early = await put(first)
    places = [tmp_path / "complete" / name for name in ("x", "y")]
    places[0].touch()
    for turn in range(QUEUED):
        places[turn % 2].rename(places[1 - turn % 2])
    lost = await put(first)
    for _ in range(QUEUED // 500):
        second.hear()
    assert [guid in second for guid in (lost, early)] == [False, True]
    assert await put(first) in second


async def test_what_others_let_go_is_not_remembered_for_ever(tmp_path: Path) -> None:
    """A mount knows what is there, however much has come and gone; also of what it fetched more than once."""
    first, second = [await mount_of(tmp_path, 4 * LENGTH) for _ in range(2)]
    mine, seal = Guid(bytes(16)), Seal(1, 2, bytes(24))
    for _ in range(20):
        await put(first, guid=mine, seal=seal)
        await put(second)
        first.discard(mine)
    await put(first, guid=mine, seal=seal)
    assert [Guid(bytes([1] * 16)) in cache for cache in (first, second)] == [False, False]
    assert first.used == second.used == on_disk(tmp_path)
    assert [read(cache, mine) for cache in (first, second)] == [True, True]


async def test_a_cache_that_somebody_removes_under_its_mounts_is_made_anew(tmp_path: Path) -> None:
    """People clean up. What was there is fetched again, what is being read is read on, what is gone counts no more."""
    folder = tmp_path / "cache"
    with structlog.testing.capture_logs() as logs:
        first, second = [await mount_of(folder, 4 * LENGTH) for _ in range(2)]
        for _ in range(2):
            await put(first)
        arriving = await first.receive(Guid(bytes(16)), LENGTH)
        shutil.rmtree(folder)
        arriving.write(bytes(LENGTH))
        arriving.note(LENGTH)
        first.keep(arriving, Seal(3, 2, bytes(24)))
        assert arriving.read(0, LENGTH) == bytes(LENGTH)
        arriving.close()
        guid = await put(second)
        await put(first)
        assert read(first, guid)
        for _ in range(5):
            await put(first)
    assert on_disk(folder) == 4 * LENGTH
    assert {str(log["event"]) for log in logs} == {"cache opened", "the cache was removed, and is made anew"}


async def test_objects_that_somebody_removes_by_hand_take_no_room(tmp_path: Path) -> None:
    """``rm complete/*``, or what tidies up old files: nobody gives their room back, and none of it may be lost."""
    first, second = [await mount_of(tmp_path, 4 * LENGTH) for _ in range(2)]
    for _ in range(3):
        for cache in (first, second):
            await put(cache)
            await put(cache)
        for path in (tmp_path / "complete").iterdir():
            path.unlink()
        arriving: list[Ciphertext] = []

        async def receive(number: int, arriving: list[Ciphertext] = arriving) -> None:
            arriving.append(await (first, second)[number % 2].receive(Guid(bytes([number] * 16)), LENGTH))

        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(receive, number)
        with pytest.raises(OutOfSpaceError):
            await second.receive(Guid(bytes(16)), LENGTH)
        for one in arriving:
            first.abandon(one)
            one.close()
    await put(first)
    assert second.used + first.used <= on_disk(tmp_path) == LENGTH


async def test_room_that_another_has_just_taken_is_no_room_that_is_lost(tmp_path: Path) -> None:
    """Who counts because nothing is left to let go sees that it is no file that is gone, and has none yet."""
    rooms = [SharedRoom(tmp_path, 4 * LENGTH) for _ in range(2)]
    caches = [CiphertextCache(tmp_path, room.limit, room) for room in rooms]
    for cache in caches:
        await cache.load()
    arriving = [await cache.receive(Guid(bytes(16)), 2 * LENGTH) for cache in caches]

    async def find_none(cache: CiphertextCache) -> None:
        with pytest.raises(OutOfSpaceError):
            await cache.receive(Guid(bytes(16)), 3 * LENGTH)

    async with trio.open_nursery() as nursery:
        for cache in caches * 3:
            nursery.start_soon(find_none, cache)
    assert [room.used for room in rooms] == [4 * LENGTH] * 2
    for one in arriving:
        one.close()


async def test_who_counts_while_an_object_has_room_and_no_file_yet_counts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file is made after its room is taken, and somebody else may count in between."""
    rooms = [SharedRoom(tmp_path, 4 * LENGTH) for _ in range(2)]
    cache = CiphertextCache(tmp_path, rooms[0].limit, rooms[0])
    await cache.load()
    lengthen, counted = os.ftruncate, list[int]()

    def lengthen_late(descriptor: int, length: int) -> None:
        rooms[1].count()
        counted.append(rooms[1].used)
        lengthen(descriptor, length)

    monkeypatch.setattr(os, "ftruncate", lengthen_late)
    arriving = await cache.receive(Guid(bytes(16)), 3 * LENGTH)
    assert counted == [3 * LENGTH]
    rooms[1].count()
    assert rooms[1].used == 3 * LENGTH
    cache.abandon(arriving)
    arriving.close()
    rooms[1].count()
    assert rooms[1].used == 0


async def test_room_that_is_taken_while_the_cache_is_made_anew_is_counted_to_the_end(tmp_path: Path) -> None:
    """What is taken and no file yet is so in the new account, too: else that counts less for as long as it serves."""
    is_counted = trio.Event()

    class SlowRoom(SharedRoom):
        async def let_go(self) -> bool:
            await is_counted.wait()
            return await super().let_go()

    room = SlowRoom(tmp_path, 4 * LENGTH)
    cache = CiphertextCache(tmp_path, room.limit, room)
    await cache.load()
    arriving = await cache.receive(Guid(bytes(16)), 4 * LENGTH)

    async def find_none() -> None:
        with pytest.raises(OutOfSpaceError):
            await room.take(3 * LENGTH, tmp_path)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(find_none)
        await trio.testing.wait_all_tasks_blocked()
        (tmp_path / "account").unlink()
        room.count()
        is_counted.set()
    room.count()
    assert room.used == 4 * LENGTH
    arriving.close()


async def test_an_account_that_somebody_has_cut_serves_on(tmp_path: Path) -> None:
    """Each mount writes its number again when it takes or gives; the next to start counts."""
    first, second = [await mount_of(tmp_path, 4 * LENGTH) for _ in range(2)]
    for _ in range(3):
        os.truncate(tmp_path / "account", 5)
        for cache in (first, second):
            assert read(cache, await put(cache))
    room = SharedRoom(tmp_path, 4 * LENGTH)
    await CiphertextCache(tmp_path, room.limit, room).load()
    assert room.used == on_disk(tmp_path)


@pytest.mark.parametrize("gone", ["", "complete", "arriving"])
async def test_a_cache_of_its_own_is_made_anew_too_also_where_some_of_the_disk_stays_free(
    tmp_path: Path, gone: str
) -> None:
    """As of one principal among many: it hears of nobody, and asks the folder how much is free."""
    folder = tmp_path / "principals" / "1"
    cache = CiphertextCache(folder, 4 * LENGTH, Room(4 * LENGTH, 1))
    await cache.load()
    await put(cache)
    shutil.rmtree(folder / gone)
    guids = [await put(cache) for _ in range(2)]
    assert read(cache, guids[-1])
    assert cache.used == on_disk(folder)


async def test_many_who_find_a_folder_gone_lose_nothing_that_is_there(tmp_path: Path) -> None:
    """What tidies up empty folders takes that away; all who fetch find out at once, and each counts once."""
    room = SharedRoom(tmp_path, 40 * LENGTH)
    cache = CiphertextCache(tmp_path, room.limit, room)
    await cache.load()
    kept = [await put(cache) for _ in range(20)]
    (tmp_path / "arriving").rmdir()
    arriving: list[Ciphertext] = []

    async def receive(number: int) -> None:
        arriving.append(await cache.receive(Guid(bytes([number] * 16)), LENGTH))

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(receive, number)
    assert [read(cache, guid) for guid in kept] == [True] * 20
    for one in arriving:
        cache.abandon(one)
        one.close()
    assert room.used == cache.used == on_disk(tmp_path) == 20 * LENGTH


async def test_very_much_news_is_heard_a_part_at_a_time(tmp_path: Path) -> None:
    """So that whoever opens a file meanwhile does not wait for all of it."""
    first, second = [await mount_of(tmp_path, 10_000) for _ in range(2)]
    places = [tmp_path / "complete" / f"{Guid(bytes([n] * 16))}.1.2.{bytes(24).hex()}" for n in range(2)]
    places[0].touch()
    for turn in range(1500):
        places[turn % 2].rename(places[1 - turn % 2])
    guid = await put(first)
    looks = 1
    while guid not in second:
        looks += 1
    assert 3 <= looks <= 6


async def test_where_the_kernel_does_not_tell_each_mount_works_alone(tmp_path: Path) -> None:
    """As one for many users does, which shares its folder with none."""
    room = SharedRoom(tmp_path, 4 * LENGTH)
    room.watch(tmp_path / "nothing")
    room.hear()
    deaf, other = await cache_of(tmp_path), await mount_of(tmp_path, 4 * LENGTH)
    guid = await put(other)
    assert guid not in deaf


async def test_a_mount_of_several_hospitals_hears_of_each_in_its_place(tmp_path: Path) -> None:
    """By one watch for all of them: a user may have few."""
    rooms = [SharedRoom(tmp_path, 4 * LENGTH) for _ in range(2)]
    first, second = [
        [CiphertextCache(tmp_path / "hospitals" / name, room.limit, room) for name in ("amc", "umc")] for room in rooms
    ]
    before = descriptors()
    for cache in (*first, *second):
        await cache.load()
    assert len(descriptors()) - len(before) == 2 * 2  # an account and a watch each
    guid = await put(first[1])
    assert [guid in cache for cache in second] == [False, True]
    for room in rooms:
        room.close()


async def test_a_mount_that_ends_watches_nothing(tmp_path: Path) -> None:
    """Its descriptor goes with its room."""
    before, room = descriptors(), SharedRoom(tmp_path, 4 * LENGTH)
    cache = CiphertextCache(tmp_path, room.limit, room)
    await cache.load()
    room.close()
    assert descriptors() == before
    assert Guid(bytes(16)) not in cache


async def test_what_arrives_at_one_mount_counts_for_the_other(tmp_path: Path) -> None:
    """Also before the first byte of it is there; and no more where it is given up."""
    first, second = [await mount_of(tmp_path, 2 * LENGTH) for _ in range(2)]
    arriving = [await first.receive(Guid(bytes([n]) * 16), LENGTH) for n in range(2)]
    with pytest.raises(OutOfSpaceError, match="what arrives"):
        await second.receive(Guid(bytes(16)), LENGTH)
    first.abandon(arriving[0])
    await put(second)
    assert on_disk(tmp_path) == 2 * LENGTH
    for one in arriving:
        one.close()


async def test_one_sealing_that_two_mounts_fetch_is_counted_once(tmp_path: Path) -> None:
    """The later one takes the place of the sooner, and both go on."""
    room = SharedRoom(tmp_path, 3 * LENGTH)
    first = CiphertextCache(tmp_path, room.limit, room)
    await first.load()
    second, seal = await mount_of(tmp_path, 3 * LENGTH), Seal(3, 2, bytes(24))
    guid = await put(first, seal=seal)
    await put(second, seal=seal, guid=guid)
    assert room.used == on_disk(tmp_path) == LENGTH
    second.discard(guid)
    assert not read(first, guid)
    assert room.used == on_disk(tmp_path) == 0


async def test_what_a_killed_mount_had_taken_is_free_again_when_the_next_one_starts(tmp_path: Path) -> None:
    """Its half object goes, and its account is put right by who counts next, whatever it says."""
    killed = await mount_of(tmp_path, 4 * LENGTH)
    guid = await put(killed)
    half = await killed.receive(Guid(bytes(16)), LENGTH)
    half.close()  # as the kernel does: with it the lock goes
    broken = Account(tmp_path)
    broken.add(2**40)
    broken.close()
    room = SharedRoom(tmp_path, 4 * LENGTH)
    again = CiphertextCache(tmp_path, room.limit, room)
    await again.load()
    assert room.used == on_disk(tmp_path) == LENGTH
    assert read(again, guid)


async def test_the_disk_that_is_to_stay_free_is_made_of_what_any_mount_has_kept(tmp_path: Path) -> None:
    """One that has nothing of its own lets go what the others have not opened for longest."""
    told = os.statvfs(tmp_path)
    first = await mount_of(tmp_path, 2**40)
    for _ in range(3):
        await put(first)
    second = await mount_of(tmp_path, 2**40, floor=told.f_blocks * told.f_frsize)
    with pytest.raises(OutOfSpaceError, match=r"cache\.free"):
        await second.receive(Guid(bytes(16)), LENGTH)
    assert on_disk(tmp_path) == 0


async def test_a_mount_of_several_hospitals_shares_the_room_with_one_of_a_single_one(tmp_path: Path) -> None:
    """Their objects lie in folders of their own below the same directory."""
    single = await mount_of(tmp_path, 3 * LENGTH)
    room = SharedRoom(tmp_path, 3 * LENGTH)
    joined = [CiphertextCache(tmp_path / "hospitals" / name, room.limit, room) for name in ("amc", "umc")]
    for cache in joined:
        await cache.load()
    guids = [await put(cache) for cache in (single, *joined)]
    assert room.used == 3 * LENGTH
    await put(joined[1])
    assert [read(cache, guid) for cache, guid in zip((single, *joined), guids, strict=True)] == [False, True, True]
    assert room.used == 3 * LENGTH


def test_an_account_has_a_number_for_each_of_many_mounts_and_then_says_what_to_do(tmp_path: Path) -> None:
    """A number that was let go is taken again."""
    accounts = [Account(tmp_path) for _ in range(SLOTS)]
    for account in accounts:
        account.add(3)
    assert accounts[7].total == 3 * SLOTS
    with pytest.raises(ConfigurationError, match=r"cache\.directory"):
        Account(tmp_path)
    accounts.pop().close()
    accounts.append(Account(tmp_path))
    assert accounts[-1].total == 3 * SLOTS
    for account in accounts:
        account.close()


_FILES: Final = """
import secrets, subprocess, sys
from pathlib import Path
import trio
from mdmfs.model.names import Guid
from mdmfs.worker.cache.kept import Seal
from mdmfs.worker.cache.store import CiphertextCache

folder = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=12", "none", str(folder)], check=True)

async def main():
    cache = CiphertextCache(folder, 2**30)
    await cache.load()
    for number in range(30):
        arriving = await cache.receive(Guid(number.to_bytes(16)), 100)
        cache.keep(arriving, Seal(0, 2, secrets.token_bytes(24)))
        arriving.close()
    print(Guid((29).to_bytes(16)) in cache, Guid((0).to_bytes(16)) in cache)

trio.run(main)
"""


def test_where_no_more_files_may_be_made_older_objects_leave_too(tmp_path: Path) -> None:
    """Quotas count files as well as bytes: who read anything new had ENOSPC from then on."""
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("nobody may mount anything here")
    done = subprocess.run(
        [*unshare, sys.executable, "-c", _FILES, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1:] == ["True False"], done.stderr


async def test_a_disk_that_fails_and_is_not_full_costs_the_cache_nothing(tmp_path: Path) -> None:
    """To let everything go would not help."""
    cache = CiphertextCache(tmp_path, 2**30)
    await cache.load()
    kept, arriving = await put(cache), Guid(bytes(16))
    place = await cache.receive(arriving, LENGTH)
    failing = Ciphertext(arriving, place.path, os.open(place.path, os.O_RDONLY), length=LENGTH, arrived=0)
    with pytest.raises(OutOfSpaceError):
        await write_through(failing, memoryview(bytes(LENGTH)), cache)
    assert kept in cache
    for one in (failing, place):
        one.close()


async def test_an_object_that_cannot_be_opened_for_want_of_a_descriptor_stays(tmp_path: Path) -> None:
    """A mount that has many files open would otherwise lose what it is asked for; and who opens more hears why."""
    cache = await cache_of(tmp_path)
    guid = await put(cache)
    with no_descriptors():
        assert cache.open(guid, SIZE) is None
        with pytest.raises(BusyError):  # the disk is not full
            await cache.receive(Guid(bytes(16)), LENGTH)
    found = cache.open(guid, SIZE)
    assert found is not None
    found[0].close()


async def test_a_cache_that_cannot_be_counted_for_want_of_a_descriptor_says_so(tmp_path: Path) -> None:
    """It is not the disk that is full, and nothing that nobody foresaw."""
    room = SharedRoom(tmp_path, LENGTH)
    cache = CiphertextCache(tmp_path, room.limit, room)
    await cache.load()
    arriving = await cache.receive(Guid(bytes(16)), LENGTH)
    with no_descriptors(), pytest.raises(BusyError, match="cannot be counted: Too many open files") as told:
        await cache.receive(Guid(bytes(16)), LENGTH)
    assert "LimitNOFILE" in told.value.what_to_do
    arriving.close()


def test_an_account_on_a_disk_that_fails_ends_nothing_and_is_right_when_it_works_again(tmp_path: Path) -> None:
    """What counts is in the feed and in transfers, and an error nobody expects there ends the mount."""
    account = Account(tmp_path)
    account.add(100)
    assert account.total == 100
    descriptor = account._descriptor  # noqa: SLF001 to put a full disk in its place
    kept, full = os.dup(descriptor), os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, descriptor)
    account.add(20)
    account.promise(7)
    assert account.total == 100
    os.dup2(kept, descriptor)
    account.add(3)
    assert account.total == 123
    for one in (kept, full):
        os.close(one)
    account.close()
