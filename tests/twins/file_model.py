"""A reference model of a mount's files: a state machine that compares ``worker/filesystem.py`` with a dict of bytes.

The machine (hypothesis) is the kernel and the programs above it: it looks up, lists, opens, reads and forgets, while
files come and go at the hospital, objects in the cache are damaged, keys expire, and the hospital or its wire fail. Any
byte that is read, or pushed into the page cache, must be the one in the dict; anything else must be an ``MdmfsError``.
"""

from __future__ import annotations

import contextlib
import queue
import random
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

import trio
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mdmfs.model.errors import AccessDeniedError, IntegrityError, MdmfsError, NoSuchFileError
from mdmfs.model.names import Guid
from mdmfs.sealing.layout import CHUNK_SIZE, PAGE_SIZE
from mdmfs.wire.keystores.keystores import Keystores
from mdmfs.wire.messages.files import NodeKind
from mdmfs.worker.afterwards import Afterwards
from mdmfs.worker.attributes import GUID_ATTRIBUTE
from mdmfs.worker.cache.store import CiphertextCache
from mdmfs.worker.changing import Changing
from mdmfs.worker.descriptions import Descriptions
from mdmfs.worker.filesystem import FileSystem
from mdmfs.worker.keys.ring import KeyRing
from mdmfs.worker.lease import Lease
from mdmfs.worker.namespace.feed import Feed
from mdmfs.worker.namespace.names import ROOT, Namespace
from mdmfs.worker.opening import AT_ONCE, Opener
from mdmfs.worker.prefetch.siblings import SiblingPrefetch
from mdmfs.worker.reading.parts import Parts
from tests.twins.hospital import ROOT as TOP
from tests.twins.hospital import TwinFile, TwinHospital, unreachable
from tests.twins.octets import octets
from tests.twins.pages import BusyKernel

DEADLINE: Final = 10.0
SECONDS: Final = 30.0
"""For one step; more is a hang."""
NAMES: Final = [f"{number:04}.dcm" for number in range(5)]
FOLDERS: Final = ["a", "b"]
SIZES: Final = [0, 1, PAGE_SIZE, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 5 * CHUNK_SIZE + 17, 40_000, AT_ONCE + 5]
OFFSETS: Final = st.integers(0, AT_ONCE + 10) | st.sampled_from([0, PAGE_SIZE, CHUNK_SIZE - 1, CHUNK_SIZE])
LENGTHS: Final = st.sampled_from([0, 1, 100, PAGE_SIZE, 8192, CHUNK_SIZE + 3, 131_072, 2**21])
PICKS: Final = st.integers(0, 2**32).map(random.Random)
"""Chances that are one draw, however often they are asked: GUIDs differ between two runs of the same steps."""

T = TypeVar("T")
Path_ = tuple[str, str]


class PageCache(BusyKernel):
    """A kernel's page cache that accepts right bytes only; its calls come from any thread."""

    def __init__(self, expected: dict[int, bytes]) -> None:
        super().__init__()
        self._expected = expected
        self.wrong: list[str] = []

    def store(self, inode: int, offset: int, octets: memoryview) -> None:
        """See ``Pages``."""
        if self._expected[inode][offset : offset + len(octets)] != octets:
            self.wrong.append(f"{len(octets)} wrong bytes were pushed at {offset} of inode {inode}")


class World:
    """A hospital and a mount without FUSE, in a thread of their own; ``do`` carries one step out there."""

    def __init__(self, folder: Path) -> None:
        self.hospital = TwinHospital()
        self.contents: dict[int, bytes] = {}
        """What each inode that ever was must hold."""
        self.guids: dict[int, Guid] = {}
        self.pages = PageCache(self.contents)
        self.folder = folder
        self.cache: CiphertextCache
        self.ring: KeyRing
        self.files: FileSystem
        self._keystores: Keystores
        self._mounted: trio.CancelScope | None = None
        self._outer: trio.Nursery
        self._started: queue.Queue[trio.lowlevel.TrioToken] = queue.Queue()
        self._ended = trio.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._live,))
        self._thread.start()
        self._token = self._started.get(timeout=SECONDS)

    def do(self, step: Callable[[], Awaitable[T]]) -> T:
        """Carry a step out and give what it gives; one that hangs raises ``trio.TooSlowError``."""

        async def timed() -> T:
            with trio.fail_after(SECONDS):
                return await step()

        return trio.from_thread.run(timed, trio_token=self._token)

    def end(self) -> None:
        """End everything."""
        trio.from_thread.run_sync(self._ended.set, trio_token=self._token)
        self._thread.join(SECONDS)

    async def add(self, path: Path_, plaintext: bytes) -> None:
        """Register a file."""
        file = self.hospital.add_file(f"{TOP}/{path[0]}/{path[1]}", plaintext)
        self.contents[file.inode], self.guids[file.inode] = plaintext, file.guid
        await self.deposit(file)

    async def deposit(self, file: TwinFile) -> None:
        """Give the keystores a file's key."""
        await self.hospital.deposit(self._keystores, file)

    async def applied(self) -> None:
        """Wait until the mount says that it has applied all changes."""
        while self.hospital.applied < self.hospital.version:  # noqa: ASYNC110 the twin has no event for it
            await trio.sleep(0.001)

    async def mount(self) -> None:
        """Mount, instead of what is mounted: the cache on disk is all that stays."""
        self.pages.rest()
        if self._mounted is not None:
            self._mounted.cancel()
        self._mounted = await self._outer.start(self._serve)
        await self.applied()

    async def _live(self) -> None:
        async with trio.open_nursery() as self._outer:
            for folder in FOLDERS:
                self.hospital.make_directory(TOP / folder)
            self._keystores = await self.hospital.open_keystores(self._outer)
            await self.mount()
            self._started.put(trio.lowlevel.current_trio_token())
            await self._ended.wait()
            self._outer.cancel_scope.cancel()

    async def _serve(self, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        async with trio.open_nursery() as nursery:
            self.cache = CiphertextCache(self.folder, 2**23)
            await self.cache.load()
            self.ring, lease = KeyRing(lambda: self._keystores, deadline=DEADLINE), Lease(patience=0)
            namespace = Namespace(self.hospital, TOP)
            opener = Opener(Parts.around(self.hospital, self.cache, self.ring, self.pages, nursery), deadline=DEADLINE)
            prefetch = SiblingPrefetch(opener, nursery)
            descriptions = Descriptions(self.hospital)
            changing = Changing(self.hospital, namespace, lease)
            self.files = FileSystem(
                self.hospital,
                namespace,
                descriptions,
                opener,
                prefetch,
                self.pages,
                changing=changing,
                lease=lease,
                afterwards=Afterwards(self.pages),
            )
            self.hospital.applied = -1
            nursery.start_soon(Feed(self.hospital, namespace, self.files, lease).follow)
            nursery.start_soon(lease.keep, self.files, nursery)
            task_status.started(nursery.cancel_scope)
            await trio.sleep_forever()


class Handle:
    """A file or a directory that the kernel has open."""

    def __init__(self, number: int, inode: int) -> None:
        self.number = number
        self.inode = inode


class FileModel(RuleBasedStateMachine):
    """The file system beside a dict of bytes."""

    steps = 0
    """Taken by all machines so far."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(dir="/var/tmp")
        self._world = World(Path(self._folder.name))
        self._named: dict[Path_, TwinFile] = {}
        self._handles: list[Handle] = []
        self._lookups: dict[int, int] = {}
        self._directory: tuple[Handle, list[tuple[bytes, int]]] | None = None
        """An open directory, and what it held when reading it began: names with sizes."""
        self._spoiled: set[int] = set()
        """Inodes that were open when an object of theirs was damaged: what had just come is not asked for again."""

    def teardown(self) -> None:
        """See ``RuleBasedStateMachine``."""
        self._world.end()
        self._folder.cleanup()

    @invariant()
    def no_page_is_wrong(self) -> None:
        """Whatever was pushed into the page cache is what the file holds."""
        FileModel.steps += 1
        assert not self._world.pages.wrong

    # At the hospital

    @rule(folder=st.sampled_from(FOLDERS), name=st.sampled_from(NAMES), size=st.sampled_from(SIZES), seed=st.integers())
    def register(self, folder: str, name: str, size: int, seed: int) -> None:
        """Register a file; in place of another one of that name, where there is one."""
        path = (folder, name)

        async def step() -> None:
            if path in self._named:
                self._world.hospital.remove(f"{TOP}/{folder}/{name}")
            await self._world.add(path, octets(size, f"{path}{seed}"))
            await self._world.applied()

        self._world.do(step)
        self._named[path] = self._world.hospital.root.entries[folder].entries[name]

    @precondition(lambda self: self._named)
    @rule(pick=PICKS)
    def remove(self, pick: random.Random) -> None:
        """Take a file away: who has it open reads nothing of it any more."""
        path = pick.choice(sorted(self._named))
        gone = self._named.pop(path)

        async def step() -> None:
            self._world.hospital.remove(f"{TOP}/{path[0]}/{path[1]}")
            del self._world.hospital.files[gone.guid]
            await self._world.applied()

        self._world.do(step)

    @precondition(lambda self: self._named)
    @rule(pick=PICKS)
    def rotate(self, pick: random.Random) -> None:
        """Give a file another key; what is sealed with the old one is worth nothing any more."""
        file = self._named[pick.choice(sorted(self._named))]

        async def step() -> None:
            file.key, file.generation = pick.randbytes(32), file.generation + 1
            await self._world.deposit(file)

        self._world.do(step)

    @rule(has_headers=st.booleans(), is_reset=st.booleans())
    def change_ways(self, has_headers: bool, is_reset: bool) -> None:  # noqa: FBT001 hypothesis draws them
        """Give headers by themselves, or not; and let the feed say that it knows no more what changed."""

        async def step() -> None:
            self._world.hospital.has_headers = has_headers
            if is_reset:
                self._world.hospital.reset = True
                self._world.hospital.note([], [])
                await self._world.applied()

        self._world.do(step)

    # Names

    @rule(folder=st.sampled_from(FOLDERS), name=st.sampled_from([*NAMES, "none"]))
    def look(self, folder: str, name: str) -> None:
        """Look a name up: it is there if and only if it is registered, with its exact size."""
        file = self._named.get((folder, name))

        async def step() -> None:
            directory = await self._world.files.lookup(ROOT, folder.encode())
            self._count(directory.inode)
            try:
                node = await self._world.files.lookup(directory.inode, name.encode())
            except NoSuchFileError:
                assert file is None
                return
            self._count(node.inode)
            assert file is not None
            assert (node.inode, node.size, node.guid) == (file.inode, len(file.plaintext), file.guid.octets)
            assert (await self._world.files.attributes(node.inode)).size == len(file.plaintext)
            assert await self._world.files.attribute(node.inode, GUID_ATTRIBUTE) == str(file.guid).encode()

        self._world.do(step)

    @rule(folder=st.sampled_from(FOLDERS))
    def begin_to_list(self, folder: str) -> None:
        """Open a directory and begin to read it; it shows what it held now, whatever changes until it is closed."""

        async def step() -> Handle:
            directory = await self._world.files.lookup(ROOT, folder.encode())
            self._count(directory.inode)
            if self._directory is not None:
                self._world.files.close_directory(self._directory[0].number)
            handle = Handle(await self._world.files.open_directory(directory.inode), directory.inode)
            await self._world.files.read_directory(handle.number, 0)
            return handle

        held = [(name, file) for (where, name), file in self._named.items() if where == folder]
        self._directory = self._world.do(step), sorted((name.encode(), len(file.plaintext)) for name, file in held)

    @precondition(lambda self: self._directory)
    @rule(count=st.integers(1, 4), position=st.integers(1, len(NAMES)))
    def go_on_listing(self, count: int, position: int) -> None:
        """Read some entries, from any position."""
        assert self._directory is not None
        handle, expected = self._directory

        async def step() -> list[tuple[bytes, int]]:
            found = await self._world.files.read_directory(handle.number, position)
            return [(name, node.size) for _, (name, node, _) in zip(range(count), found, strict=False)]

        assert self._world.do(step) == expected[position : position + count]

    # Files

    @precondition(lambda self: self._named and len(self._handles) < 12)
    @rule(pick=PICKS)
    def open(self, pick: random.Random) -> None:
        """Open a file as the kernel does: look it up, then open its inode."""
        self._world.do(lambda: self._open(pick.choice(sorted(self._named))))

    @precondition(lambda self: self._named)
    @rule(folder=st.sampled_from(FOLDERS))
    def read_in_order(self, folder: str) -> None:
        """Read the files of a directory one after the other, whole: what comes next is fetched ahead."""

        async def step() -> None:
            for path in sorted(path for path in self._named if path[0] == folder):
                await self._open(path)
                handle = self._handles.pop()
                await self._check(handle, 0, 2**21)
                self._world.files.close_file(handle.number)

        self._world.do(step)

    @precondition(lambda self: self._handles)
    @rule(pick=PICKS, offset=OFFSETS, length=LENGTHS)
    def read(self, pick: random.Random, offset: int, length: int) -> None:
        """Read a range, behind the end too."""
        self._world.do(lambda: self._check(pick.choice(self._handles), offset, length))

    @precondition(lambda self: self._handles)
    @rule(pick=PICKS, ranges=st.lists(st.tuples(OFFSETS, LENGTHS), max_size=6))
    def read_at_the_same_time(self, pick: random.Random, ranges: list[tuple[int, int]]) -> None:
        """Read several ranges of several files at once."""

        async def step() -> None:
            async with trio.open_nursery() as nursery:
                for offset, length in ranges:
                    nursery.start_soon(self._check, pick.choice(self._handles), offset, length)

        self._world.do(step)

    @precondition(lambda self: self._handles)
    @rule(pick=PICKS)
    def close(self, pick: random.Random) -> None:
        """Close a handle."""
        closed = self._handles.pop(pick.randrange(len(self._handles)))

        async def step() -> None:
            self._world.files.close_file(closed.number)

        self._world.do(step)
        self._spoil(())

    @rule()
    def rest(self) -> None:
        """Ask for nothing for a moment: what was left of opens and closes is done."""

        async def step() -> None:
            self._world.pages.rest()

        self._world.do(step)

    @rule()
    def forget(self) -> None:
        """Let the kernel forget every inode that is not open."""

        async def step() -> None:
            kept = self._open_inodes() | ({self._directory[0].inode} if self._directory is not None else set())
            for inode in [inode for inode in self._lookups if inode not in kept]:
                self._world.files.forget(inode, self._lookups.pop(inode))

        self._world.do(step)

    # What goes wrong

    @rule(pick=PICKS, is_cut=st.booleans())
    def damage_the_cache(self, pick: random.Random, is_cut: bool) -> None:  # noqa: FBT001 hypothesis draws it
        """Flip a bit of an object in the cache, or cut it."""
        objects = sorted(path for path in (self._world.folder / "complete").iterdir() if path.stat().st_size)
        if objects:
            path = pick.choice(objects)
            sealed = bytearray(path.read_bytes())
            sealed[pick.randrange(len(sealed))] ^= 1 << pick.randrange(8)
            path.write_bytes(sealed[: pick.randrange(len(sealed))] if is_cut else sealed)
            guid = Guid.parse(path.name.partition(".")[0])
            self._spoil([inode for inode in self._open_inodes() if self._world.guids[inode] == guid])

    @rule()
    def evict(self) -> None:
        """Drop the object that was not opened for longest."""

        async def step() -> None:
            self._world.cache.evict_one()

        self._world.do(step)

    @rule()
    def let_keys_expire(self) -> None:
        """Let no share be held any more."""

        async def step() -> None:
            self._world.ring.forget_all()

        self._world.do(step)

    @precondition(lambda self: self._named)
    @rule(pick=PICKS, offset=OFFSETS, damage=st.sampled_from(["dead", "flip", "cut"]))
    def read_in_an_outage(self, pick: random.Random, offset: int, damage: str) -> None:
        """Open and read with a hospital that is away, or whose wire damages what it brings: right bytes or an error."""
        path, hospital = pick.choice(sorted(self._named)), self._world.hospital

        async def step() -> None:
            self._spoil([self._named[path].inode])
            with contextlib.suppress(MdmfsError):
                if damage == "dead":
                    hospital.failure = unreachable
                else:
                    hospital.damage = _flip if damage == "flip" else _cut
                await self._open(path)
                handle = self._handles.pop()
                try:
                    await self._check(handle, offset, 5000)
                finally:
                    self._world.files.close_file(handle.number)

        try:
            self._world.do(step)
        finally:
            hospital.failure, hospital.damage = None, bytes

    @rule()
    def mount_again(self) -> None:
        """Lose the mount and all that it remembers but the cache, and mount again."""
        self._world.do(self._world.mount)
        self._handles.clear()
        self._lookups.clear()
        self._directory = None
        self._spoil(())

    # How

    def _open_inodes(self) -> set[int]:
        return {handle.inode for handle in self._handles}

    def _spoil(self, inodes: Iterable[int]) -> None:
        """Let handles of these inodes, until all of them are closed, fail instead of giving right bytes."""
        self._spoiled = self._spoiled.union(inodes) & self._open_inodes()

    def _count(self, inode: int) -> None:
        self._lookups[inode] = self._lookups.get(inode, 0) + 1

    async def _open(self, path: Path_) -> None:
        files = self._world.files
        directory = await files.lookup(ROOT, path[0].encode())
        self._count(directory.inode)
        node = await files.lookup(directory.inode, path[1].encode())
        self._count(node.inode)
        assert node.kind is NodeKind.FILE
        number = files.open_file_at_once(node.inode) or await files.open_file(node.inode)
        self._handles.append(Handle(number, node.inode))

    async def _check(self, handle: Handle, offset: int, length: int) -> None:
        """Read, and compare; a file that was taken away is refused."""
        try:
            found: bytes | memoryview | None = self._world.files.read_at_once(handle.number, offset, length)
            if found is None:
                found = await self._world.files.read(handle.number, offset, length)
        except AccessDeniedError:
            assert handle.inode not in {file.inode for file in self._named.values()}
        except IntegrityError:
            assert handle.inode in self._spoiled
        else:
            assert found == self._world.contents[handle.inode][offset : offset + length]


def _flip(sealed: bytes) -> bytes:
    """Damage an object on its way, at its end."""
    return sealed[:-20] + bytes([sealed[-20] ^ 1]) + sealed[-19:]


def _cut(sealed: bytes) -> bytes:
    """Lose the end of an object on its way."""
    return sealed[: len(sealed) // 2]
