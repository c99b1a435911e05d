"""Staging: readers follow a writer, room is made by the oldest, a crash leaves whole objects or none."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import trio
import trio.lowlevel
import trio.testing

from mdmfs.daemon.formats import MARK
from mdmfs.hospital.kept.staged import StagedObject
from mdmfs.hospital.kept.staging import HOT_BYTES, Staging
from mdmfs.model.errors import IntegrityError, OutOfSpaceError, RecallFailedError, StoreError
from mdmfs.model.names import Guid
from mdmfs.sealing.layout import HEADER_SIZE, Buffer
from tests.twins.clinic import until
from tests.twins.octets import octets
from tests.twins.records import guid_of

SIZE = HEADER_SIZE + 1000
BODY = octets(1000, "body")
SALT = b"s" * 24
HEADER = SALT + octets(32, "commitment")


async def stage(staging: Staging, number: int, *, generation: int = 1, size: int = SIZE) -> StagedObject:
    """Stage an object whole."""
    async with staging.writing(guid_of(number), generation, size) as writer:
        await writer.write(lambda: HEADER + octets(size - HEADER_SIZE, "body"))
    return writer.staged


async def read(staged: StagedObject, start: int = 0, stop: int | None = None) -> bytes:
    """Read an object, or a range."""
    reader = staged.open()
    try:
        return b"".join([piece async for piece in reader.octets(start, staged.size if stop is None else stop)])
    finally:
        reader.close()


def names(folder: Path) -> set[str]:
    """List what is on disk, but for the mark of the folder's format."""
    return {path.name for path in folder.iterdir()} - {MARK}


def found(staging: Staging, *numbers: int) -> list[int]:
    """Give those that are staged."""
    return [number for number in numbers if staging.find(guid_of(number), 1)]


async def test_whoever_hears_of_a_whole_object_cannot_spoil_it(tmp_path: Path) -> None:
    """What he raises is his own: the object stays, and those who read it come to its end."""
    staging = Staging(tmp_path / "staging", 10**6)

    def hear(guid: Guid) -> None:
        raise ZeroDivisionError(str(guid))

    staging.on_whole = hear
    with pytest.raises(ZeroDivisionError):
        await stage(staging, 1)
    staged = staging.find(guid_of(1), 1)
    assert staged is not None
    assert staged.settled.is_set()
    assert await read(staged) == HEADER + BODY


async def test_what_was_staged_is_read_again(tmp_path: Path) -> None:
    """Whole and in ranges; the folder and the files are nobody else's."""
    staging = Staging(tmp_path / "staging", 10**6)
    staged = await stage(staging, 1)
    assert await read(staged) == HEADER + BODY
    assert await read(staged, 60, 200) == (HEADER + BODY)[60:200]
    assert staging.find(guid_of(1), 1) is staged
    assert (tmp_path / "staging").stat().st_mode & 0o777 == 0o700
    assert staged.path.stat().st_mode & 0o777 == 0o600
    assert names(tmp_path / "staging") == {f"{guid_of(1)}.1"}


async def test_a_reader_follows_the_writer_and_is_given_nothing_before_its_time(tmp_path: Path) -> None:
    """Bytes come as they are written, the last with the end."""
    staging = Staging(tmp_path, 10**6)
    got, pieces = bytearray(), []

    async def follow(staged: StagedObject) -> None:
        reader = staged.open()
        async for piece in reader.octets(0, staged.size):
            got.extend(piece)
            pieces.append(len(piece))
        reader.close()

    async with trio.open_nursery() as nursery, staging.writing(guid_of(1), 1, SIZE) as writer:
        nursery.start_soon(follow, writer.staged)
        await trio.testing.wait_all_tasks_blocked()
        assert not got
        await writer.write(lambda: HEADER + BODY[:400])
        await until(lambda: len(got) == HEADER_SIZE + 400)
        await writer.write(lambda: BODY[400:])
    assert bytes(got) == HEADER + BODY
    assert pieces == [HEADER_SIZE + 400, 0, 600]  # an empty one says that the next may take a while
    assert writer.staged.salt == SALT


async def test_an_object_of_which_nothing_is_verified_is_not_found(tmp_path: Path) -> None:
    """Before its first bytes nobody knows whether there will be any."""
    staging = Staging(tmp_path, 10**6)
    async with staging.writing(guid_of(1), 1, SIZE) as writer:
        assert staging.find(guid_of(1), 1) is None
        await writer.write(lambda: HEADER + BODY)
        assert staging.find(guid_of(1), 1) is writer.staged
    assert staging.find(guid_of(1), 2) is None


async def test_a_failure_reaches_every_reader_as_an_error_and_never_as_an_end(tmp_path: Path) -> None:
    """Those who have begun, those who wait, and those who open it later; nothing of it stays on disk."""
    staging = Staging(tmp_path, 10**6)
    failures = []

    async def follow(staged: StagedObject) -> None:
        with pytest.raises(RecallFailedError):
            await read(staged)
        failures.append(staged)

    async with trio.open_nursery() as nursery:
        with pytest.raises(RecallFailedError):  # noqa: PT012 the context is what fails
            async with staging.writing(guid_of(1), 1, SIZE) as writer:
                nursery.start_soon(follow, writer.staged)
                await writer.write(lambda: HEADER + BODY[:10])
                nursery.start_soon(follow, writer.staged)
                await trio.testing.wait_all_tasks_blocked()
                message = "the PACS broke off"
                raise RecallFailedError(message)
    assert len(failures) == 2
    with pytest.raises(RecallFailedError):
        writer.staged.open()
    assert (names(tmp_path), staging.find(guid_of(1), 1)) == (set(), None)


async def test_an_object_that_ends_early_is_dropped(tmp_path: Path) -> None:
    """A writer that leaves in order, but short, has staged nothing."""
    staging = Staging(tmp_path, 10**6)
    with pytest.raises(IntegrityError):
        async with staging.writing(guid_of(1), 1, SIZE) as writer:
            await writer.write(lambda: HEADER)
    assert names(tmp_path) == set()


async def test_a_cancelled_writer_leaves_nothing(tmp_path: Path) -> None:
    """Its readers get an error, its room is free again."""
    staging = Staging(tmp_path, 2 * SIZE)
    with trio.CancelScope() as scope:
        async with staging.writing(guid_of(1), 1, 2 * SIZE) as writer:
            await writer.write(lambda: HEADER)
            scope.cancel()
            await trio.sleep_forever()
    assert names(tmp_path) == set()
    with pytest.raises(IntegrityError):
        await writer.staged.wait_for(SIZE)
    await stage(staging, 2, size=2 * SIZE)


async def test_the_least_recently_used_makes_room(tmp_path: Path) -> None:
    """Three fit; a fourth takes the place of the one that nobody asked for lately."""
    staging = Staging(tmp_path, 3 * SIZE)
    for number in (1, 2, 3):
        await stage(staging, number)
    assert staging.find(guid_of(1), 1)
    await stage(staging, 4)
    assert found(staging, 1, 2, 3, 4) == [1, 3, 4]
    assert len(names(tmp_path)) == 3


async def test_what_cannot_fit_evicts_nothing(tmp_path: Path) -> None:
    """Larger than all of staging, or than what is not being written: refused, and the rest stays."""
    staging = Staging(tmp_path, 3 * SIZE)
    await stage(staging, 1)
    with pytest.raises(OutOfSpaceError):
        await stage(staging, 2, size=3 * SIZE + 1)
    async with staging.writing(guid_of(3), 1, SIZE) as writer:
        with pytest.raises(OutOfSpaceError):
            await stage(staging, 2, size=2 * SIZE + 1)
        assert found(staging, 1) == [1]
        await writer.write(lambda: HEADER)
        await writer.write(lambda: BODY)
    assert found(staging, 1, 3) == [1, 3]


async def test_discarding_does_not_disturb_who_reads(tmp_path: Path) -> None:
    """The open file outlives its name."""
    staging = Staging(tmp_path, 10**7)
    staged = await stage(staging, 1, size=3 * 2**20)
    reader = staged.open()
    pieces = reader.octets(0, staged.size)
    first = await anext(pieces)
    staging.discard(guid_of(1))
    assert names(tmp_path) == set()
    rest = [piece async for piece in pieces]
    reader.close()
    assert len(first) + sum(map(len, rest)) == staged.size
    with pytest.raises(StoreError):
        staged.open()


async def test_discarding_what_is_being_written_fails_it(tmp_path: Path) -> None:
    """A withdrawn file does not come back by being finished."""
    staging = Staging(tmp_path, 10**6)
    with pytest.raises(StoreError):  # noqa: PT012 the context is what fails
        async with staging.writing(guid_of(1), 1, SIZE) as writer:
            staging.discard(guid_of(1))
            await writer.write(lambda: HEADER + BODY)
    assert (names(tmp_path), found(staging, 1)) == (set(), [])


async def test_a_new_generation_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    """On disk too: what the old key opens is gone."""
    staging = Staging(tmp_path, 10**6)
    await stage(staging, 1, generation=1)
    await stage(staging, 1, generation=2)
    assert names(tmp_path) == {f"{guid_of(1)}.2"}
    assert staging.find(guid_of(1), 1) is None


async def test_a_restart_takes_over_whole_objects_and_nothing_else(tmp_path: Path) -> None:
    """Parts, strangers and objects too short to be any are dropped; of two generations the later one stays."""
    first = Staging(tmp_path, 10**6)
    for number in (1, 2):
        await stage(first, number)
    (tmp_path / f"{guid_of(3)}.1.part").write_bytes(HEADER + BODY)
    (tmp_path / f"{guid_of(4)}.1").write_bytes(HEADER[:10])
    (tmp_path / "stray").write_bytes(b"x")
    (tmp_path / f"{guid_of(2)}.2").write_bytes(HEADER + BODY)
    second = Staging(tmp_path, 10**6)
    assert names(tmp_path) == {f"{guid_of(1)}.1", f"{guid_of(2)}.2"}
    staged = second.find(guid_of(1), 1)
    assert staged is not None
    assert (staged.is_complete, staged.salt) == (True, SALT)
    assert await read(staged) == HEADER + BODY


async def test_what_was_withdrawn_while_nobody_ran_is_dropped_at_the_start(tmp_path: Path) -> None:
    """And what has another key by now: a file that was destroyed leaves no copy, in memory or on disk."""
    staging = Staging(tmp_path / "staging", 10**6)
    for number, generation in ((1, 1), (2, 1), (3, 2)):
        await stage(staging, number, generation=generation)
    again = Staging(tmp_path / "staging", 10**6)
    wanted = {(guid_of(1), 1), (guid_of(3), 1)}
    again.retain(lambda guid, generation: (guid, generation) in wanted)
    assert again.known() == [(guid_of(1), 1)]
    assert names(tmp_path / "staging") == {f"{guid_of(1)}.1"}
    assert again.octets == SIZE


async def test_what_is_pinned_makes_no_room(tmp_path: Path) -> None:
    """Who has staged it counts on it; what is not goes, though it was used since."""
    staging = Staging(tmp_path / "staging", 2 * SIZE)
    for number in (1, 2):
        await stage(staging, number)
    pinned = {guid_of(1)}
    staging.is_pinned = pinned.__contains__
    await stage(staging, 3)
    assert found(staging, 1, 2, 3) == [1, 3]
    pinned.add(guid_of(3))
    with pytest.raises(OutOfSpaceError, match="pinned"):
        await stage(staging, 4)
    assert found(staging, 1, 3, 4) == [1, 3]
    await stage(staging, 3, generation=2)  # in its own place
    assert found(staging, 1) == [1]


def open_files() -> int:
    """Count what this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_no_file_stays_open(tmp_path: Path) -> None:
    """Of what was staged, read, broken off or discarded."""
    staging = Staging(tmp_path, 10**6)
    before = open_files()
    for number in range(1, 4):
        await read(await stage(staging, number))
    with pytest.raises(IntegrityError):
        async with staging.writing(guid_of(4), 1, SIZE) as writer:
            await writer.write(lambda: HEADER)
    staging.discard(guid_of(1))
    assert open_files() == before


async def test_a_directory_that_is_gone_is_told_as_such(tmp_path: Path) -> None:
    """Not as a fault of the program; and where it was, the log tells and no reader hears."""
    staging = Staging(tmp_path / "staging", 10**6)
    shutil.rmtree(tmp_path / "staging")
    with pytest.raises(StoreError, match="No such file") as raised:
        await stage(staging, 1)
    assert str(tmp_path) in raised.value.told_here
    assert str(tmp_path) not in str(raised.value)


async def test_after_a_restart_of_the_machine_staging_begins_empty(tmp_path: Path) -> None:
    """Nothing is synced: what looks whole may be full of zeros. A restart of the program alone loses nothing."""
    await stage(Staging(tmp_path / "staging", 10**6, boot="one"), 1)
    mark = (tmp_path / "staging.boot").stat()
    assert found(Staging(tmp_path / "staging", 10**6, boot="one"), 1) == [1]
    assert (tmp_path / "staging.boot").stat().st_mtime_ns == mark.st_mtime_ns, "a full disk might not take it"
    assert found(Staging(tmp_path / "staging", 10**6, boot="two"), 1) == []
    assert names(tmp_path / "staging") == set()


async def test_what_was_sealed_last_is_read_from_memory_and_the_rest_from_disk(tmp_path: Path) -> None:
    """A reader gets the same bytes either way; no more is kept in memory than is allowed."""
    size = HOT_BYTES // 2
    staging = Staging(tmp_path, 10**9)
    objects = [await stage(staging, number, size=size) for number in range(1, 5)]
    assert [staged.hot is not None for staged in objects] == [False, False, True, True]
    for staged in objects:
        assert await read(staged) == HEADER + octets(size - HEADER_SIZE, "body")
        assert await read(staged, 10, 10**6) == (HEADER + octets(size - HEADER_SIZE, "body"))[10 : 10**6]
    staging.discard(guid_of(4))
    assert objects[3].hot is None


async def test_a_restart_with_less_room_evicts_at_the_next_write(tmp_path: Path) -> None:
    """The bound holds for what an earlier run has left, oldest first."""
    first = Staging(tmp_path, 10**6)
    for number in (1, 2, 3):
        await stage(first, number)
    second = Staging(tmp_path, 2 * SIZE)
    await stage(second, 4)
    assert len(names(tmp_path)) == 2


async def test_a_file_cut_behind_our_back_is_an_error_and_no_end(tmp_path: Path) -> None:
    """Whoever truncates staging gets nobody to take it for the whole."""
    staging = Staging(tmp_path, 10**6)
    await stage(staging, 1)
    staged = Staging(tmp_path, 10**6).find(guid_of(1), 1)
    assert staged is not None
    staged.path.write_bytes(HEADER)
    with pytest.raises(IntegrityError):
        await read(staged)


_FULL = """
import pathlib, resource, sys, trio
from mdmfs.hospital.kept.staging import Staging
from mdmfs.model.errors import MdmfsError
from mdmfs.model.names import Guid
async def main():
    folder = pathlib.Path(sys.argv[1])
    staging = Staging(folder, 10**9)
    try:
        async with staging.writing(Guid(bytes(16)), 1, 300_056) as writer:
            await writer.write(lambda: b"h" * 56 + bytes(300_000))
    except MdmfsError as error:
        print(type(error).__name__, [path.name for path in folder.iterdir() if path.name != "format"])
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
trio.run(main)
"""


def test_a_disk_that_takes_no_more_is_named_and_nothing_stays(tmp_path: Path) -> None:
    """A write that is cut short counts for nothing."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 100_000
    done = subprocess.run(
        [sys.executable, "-c", _FULL, str(tmp_path)], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.split(maxsplit=1) == ["StoreError", "[]\n"], done.stderr


async def test_a_full_disk_is_told_as_what_it_is(tmp_path: Path) -> None:
    """ENOSPC is no damage: the caller hears that there is no room."""
    staging = Staging(tmp_path, 10**6)
    (tmp_path / f"{guid_of(1)}.1.part").symlink_to("/dev/full")
    with pytest.raises(OutOfSpaceError):
        await stage(staging, 1)
    assert names(tmp_path) == set()


_SMALL_DISK = """
import pathlib, subprocess, sys, trio, trio.testing
from mdmfs.hospital.kept.staging import LOOK_SECONDS, Staging
from mdmfs.model.errors import OutOfSpaceError
from mdmfs.model.names import Guid
folder, size, written = pathlib.Path(sys.argv[1]), 2**21, []
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(folder)], check=True)
staging = Staging(folder / "staging", 10**9, left_free=3 * 2**20)
async def stage(number, size, is_awaited=False):
    try:
        async with staging.writing(Guid(bytes([number] * 16)), 1, size, is_awaited=is_awaited) as writer:
            written.append(number)
            await writer.write(lambda: b"h" * 56 + bytes(size - 56))
        print("whole")
    except OutOfSpaceError as error:
        print("sent" if number in written else error.place == str(folder / "staging"))
def left():
    print([number for number in range(9) if staging.find(Guid(bytes([number] * 16)), 1)])
async def main():
    global staging
    asked, staging = staging, Staging(folder / "little", 10**9, left_free=2**30)
    for number in range(5):
        await stage(number, size // 2 - 2**14)
    left()
    for number in range(5):
        staging.discard(Guid(bytes([number] * 16)))
    staging = asked; written.clear()
    for number in range(3):
        await stage(number, size)
    left()
    await stage(3, 10 * size)
    left()
    (folder / "filled").write_bytes(bytes(3 * 2**20))
    await stage(4, size)
    left()
    staging.discard(Guid(bytes([4] * 16)))
    subprocess.run(["dd", "if=/dev/zero", f"of={folder}/more", "bs=64k"], capture_output=True)
    await stage(5, 2**16 + 56)
    await stage(6, 2**16 + 56, is_awaited=True)
    (folder / "filled").unlink()
    staging.is_pinned = lambda guid: guid.octets[0] >= 7
    await stage(7, size)
    await stage(8, 2**16 + 56, is_awaited=True)
    (folder / "more").unlink()
    written.clear()
    async with staging.writing(Guid(bytes([1] * 16)), 1, 2 * size) as writer:
        await stage(2, 2 * size)
        await writer.write(lambda: b"h" * 56 + bytes(2 * size - 56))
    left()
    (folder / "filled").write_bytes(bytes(3 * 2**20))
    with trio.move_on_after(2 * LOOK_SECONDS):
        await staging.keep_room()
    left()
trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
"""


def test_old_objects_make_room_for_who_shares_the_disk_and_one_that_does_not_fit_is_refused_at_once(
    tmp_path: Path,
) -> None:
    """Else a full staging would stop the audit log, and all with it; and a reader was told of it in the middle.

    What goes to the disk after it was sent is sent even so; but nothing is pinned that would take the last bytes.
    A disk that has little left is halved, and what is on its way counts. Nor is it waited for the next that is staged.
    """
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("nobody may mount anything here")
    command = [*unshare, sys.executable, "-c", _SMALL_DISK, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    told = ["whole"] * 5 + ["[1, 2, 3, 4]"]
    told += ["whole"] * 3 + ["[1, 2]", "True", "[1, 2]", "whole", "[4]", "True"]
    told += ["sent", "True", "whole", "True", "[1, 8]", "[8]"]
    assert done.stdout.splitlines() == told, done.stderr


async def test_what_somebody_waits_for_is_read_before_it_is_on_disk(tmp_path: Path) -> None:
    """The disk comes behind the answer, and has it all the same."""
    staging = Staging(tmp_path, 10**6)
    async with staging.writing(guid_of(1), 1, SIZE, is_awaited=True) as writer:
        await writer.write(lambda: HEADER + BODY)
        assert names(tmp_path) == set()
        assert await read(writer.staged) == HEADER + BODY
    assert (tmp_path / f"{guid_of(1)}.1").read_bytes() == HEADER + BODY


async def test_what_somebody_waits_for_is_sent_before_it_is_written(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """To write it first would keep him waiting for nothing."""
    staging = Staging(tmp_path, 10**6)
    seen: list[bytes] = []

    async def follow(staged: StagedObject) -> None:
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        seen.append(await read(staged))

    async with trio.open_nursery() as nursery, staging.writing(guid_of(1), 1, SIZE, is_awaited=True) as writer:
        await writer.write(lambda: HEADER + BODY)
        nursery.start_soon(follow, writer.staged)
        await writer.give_way(until_sent=True)
        assert seen == [HEADER + BODY]


async def test_who_does_not_take_what_he_waited_for_holds_nothing_up(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The association behind it is not his."""
    staging = Staging(tmp_path, 10**6)
    async with staging.writing(guid_of(1), 1, SIZE, is_awaited=True) as writer:
        await writer.write(lambda: HEADER + BODY)
        await writer.give_way(until_sent=True)
    assert autojump_clock.current_time() < 1
    assert names(tmp_path) == {f"{guid_of(1)}.1"}


async def test_a_full_disk_takes_back_nothing_of_what_was_waited_for(tmp_path: Path) -> None:
    """Whoever has it reads it, begun or not; the next one hears that there is no room, and who wants it on disk."""
    staging = Staging(tmp_path, 10**6)
    (tmp_path / f"{guid_of(1)}.1.part").symlink_to("/dev/full")
    seen: list[bytes] = []
    had: list[StagedObject] = []

    async def stage_and_read() -> None:
        async with staging.writing(guid_of(1), 1, SIZE, is_awaited=True) as writer:
            await writer.write(lambda: HEADER + BODY)
            had.append(writer.staged)
            seen.append(await read(writer.staged))
            pieces.append(writer.staged.open().octets(0, SIZE))

    pieces: list[AsyncGenerator[Buffer]] = []
    with pytest.raises(OutOfSpaceError):
        await stage_and_read()
    seen.extend([bytes(await anext(pieces[0])), await read(had[0])])
    assert seen == [HEADER + BODY] * 3
    with pytest.raises(OutOfSpaceError):
        await had[0].wait_for(SIZE)
    assert staging.find(guid_of(1), 1) is None
    assert names(tmp_path) == set()


@pytest.mark.parametrize("is_withdrawn", [False, True])
async def test_what_is_in_memory_is_taken_back_where_it_is_not_the_disk_that_fails(
    tmp_path: Path, *, is_withdrawn: bool
) -> None:
    """Nobody knows that it is whole and may be let out."""
    staging = Staging(tmp_path, 10**6)
    had: list[StagedObject] = []

    async def stage_badly() -> None:
        async with staging.writing(guid_of(1), 1, SIZE, is_awaited=True) as writer:
            await writer.write(lambda: HEADER + BODY)
            had.append(writer.staged)
            pieces.append(writer.staged.open().octets(0, SIZE))
            if not is_withdrawn:
                message = "it is longer than it was registered"
                raise IntegrityError(message)
            staging.discard(guid_of(1))

    pieces: list[AsyncGenerator[Buffer]] = []
    kind = StoreError if is_withdrawn else IntegrityError
    with pytest.raises(kind):
        await stage_badly()
    with pytest.raises(kind):
        await anext(pieces[0])
    with pytest.raises(kind):
        had[0].open()
