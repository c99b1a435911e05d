"""Many workers at one hospital: each follows the feed, and looks at names now and then, as mounts do."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import random
import statistics
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import trio

from mdmfs.model.errors import MdmfsError
from mdmfs.model.names import Guid, Lfn
from mdmfs.wire.messages.files import Changes, DirectoryPage, NodeKind
from mdmfs.worker.hospital.remote import RemoteHospital
from mdmfs.worker.hospital.staging import files_below
from mdmfs.worker.namespace.feed import JITTER, RETRY_SECONDS

LOOK_SECONDS = 0.1
POLL_SECONDS = 10.0
"""How long a question for changes waits at most: a third of a lease of 60 s would be 20 s, so this is the harder."""


@dataclasses.dataclass(frozen=True)
class Names:
    """What there is to ask about."""

    directories: Sequence[Lfn]
    files: Sequence[Guid]

    @classmethod
    async def below(cls, hospital: RemoteHospital, root: Lfn) -> Names:
        """Walk."""
        found = await files_below(hospital, root)
        return cls(sorted({file.lfn.parent for file in found}, key=str), [Guid(file.node.guid) for file in found])


@dataclasses.dataclass
class Load:
    """What came of it."""

    seconds: list[list[float]]
    """Of each worker, how long each of his questions took."""
    failures: Counter[str] = dataclasses.field(default_factory=Counter)
    waits: int = 0
    """Answers of the feed."""
    arrived: float = 0.0
    """Seconds until all had come in."""

    @property
    def asked(self) -> int:
        """How many questions were answered."""
        return sum(len(each) for each in self.seconds)

    def percentile(self, hundredths: int) -> float:
        """Of all questions, in seconds."""
        return statistics.quantiles((one for each in self.seconds for one in each), n=100)[hundredths - 1]

    def unfairness(self) -> float:
        """How much longer the worst served worker waits on average than the average one."""
        means = [statistics.mean(each) for each in self.seconds if each]
        return max(means) / statistics.mean(means)


async def crowd(
    hospitals: Sequence[RemoteHospital],
    names: Names,
    dice: random.Random,
    *,
    gap: float,
    until: Callable[[Load], bool],
    happens: Callable[[], Awaitable[None]] | None = None,
) -> Load:
    """Let all come in at once, as after a restart, and then each ask every ``gap`` seconds on average, until enough.

    With a gap of 0 each asks again as soon as it is answered. ``happens`` runs when all have come in.
    """
    load = Load([[] for _ in hospitals])
    mounts = [
        _Mount(hospital, names, dice, gap, load, noted) for hospital, noted in zip(hospitals, load.seconds, strict=True)
    ]
    begun = trio.current_time()
    async with trio.open_nursery() as workers:
        async with trio.open_nursery() as arriving:
            for mount in mounts:
                arriving.start_soon(mount.arrive, workers)
        load.arrived = trio.current_time() - begun
        for mount in mounts:
            workers.start_soon(mount.work)
        if happens is not None:
            workers.start_soon(happens)
        while not until(load):  # noqa: ASYNC110 any of many may end it
            await trio.sleep(LOOK_SECONDS)
        workers.cancel_scope.cancel()
    return load


@dataclasses.dataclass
class _Mount:
    """One worker of the crowd."""

    hospital: RemoteHospital
    names: Names
    dice: random.Random
    gap: float
    load: Load
    noted: list[float]
    held: dict[int, Lfn] = dataclasses.field(default_factory=dict)
    """The directories that it has listed, by inode."""

    async def arrive(self, workers: trio.Nursery) -> None:
        """List the root, follow the feed from that version on, and ask a first question over a second connection.

        Who is not answered asks again after one to five seconds, as ``mdmfs.worker.namespace.feed`` does.
        """
        while True:
            try:
                version = (await self._list(Lfn(()))).version
                told = await self.hospital.changes(version, 0.0)
            except MdmfsError as error:
                self.load.failures[error.code] += 1
                await trio.sleep(self.dice.uniform(*RETRY_SECONDS))
            else:
                workers.start_soon(self._follow, told)
                break
        with contextlib.suppress(MdmfsError):
            await trio.lowlevel.checkpoint()  # the feed's question goes first
            await self._ask()

    async def work(self) -> None:
        """Ask now and then, for ever."""
        if self.gap:
            await trio.sleep(self.dice.uniform(0, self.gap))
        while True:
            await self.ask_one()
            if self.gap:
                await trio.sleep(self.dice.expovariate(1 / self.gap))

    async def ask_one(self) -> None:
        """Ask a question, and note how long that took."""
        await self._note(self._ask)

    async def _follow(self, told: Changes) -> None:
        """Ask for what follows changes, one long question after the other, and list anew what is here of it."""
        while True:
            wait = POLL_SECONDS * self.dice.uniform(*JITTER)
            try:
                told = await self.hospital.changes(told.version, wait, groups=told.groups)
            except MdmfsError as error:
                self.load.failures[error.code] += 1
                await trio.sleep(self.dice.uniform(*RETRY_SECONDS))
            else:
                self.load.waits += 1
                for inode in told.directories:
                    if inode in self.held:
                        await self._note(functools.partial(self._list, self.held[inode]))

    async def _note(self, ask: Callable[[], Awaitable[object]]) -> None:
        begun = trio.current_time()
        try:
            await ask()
        except MdmfsError as error:
            self.load.failures[error.code] += 1
        else:
            self.noted.append(trio.current_time() - begun)

    async def _ask(self) -> None:
        """List a directory or describe a file."""
        if self.dice.random() < 0.5:
            page = await self._list(self.dice.choice(self.names.directories))
            assert any(node.kind is NodeKind.FILE for node in page.entries)
        else:
            await self.hospital.describe(self.dice.choice(self.names.files))

    async def _list(self, lfn: Lfn) -> DirectoryPage:
        page = await self.hospital.list_directory(lfn, "")
        self.held[page.directory.inode] = lfn
        return page
