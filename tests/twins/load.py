"""Many workers at one hospital: each follows the feed, and looks at names now and then, as mounts do."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import statistics
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import trio

from mdmfs.model.errors import MdmfsError
from mdmfs.model.names import Guid, Lfn
from mdmfs.wire.messages import NodeKind
from mdmfs.worker.hospital import RemoteHospital
from mdmfs.worker.namespace.feed import JITTER, RETRY_SECONDS
from mdmfs.worker.staging import files_below

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


async def alone(hospital: RemoteHospital, names: Names, count: int, dice: random.Random) -> float:
    """Ask one question after the other, and give the median, in seconds."""
    return statistics.median([await _ask(hospital, names, dice) for _ in range(count)])


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

    ``happens`` runs when all have come in.
    """
    load = Load([[] for _ in hospitals])
    begun = trio.current_time()
    async with trio.open_nursery() as workers:
        async with trio.open_nursery() as arriving:
            for hospital in hospitals:
                arriving.start_soon(_arrive, hospital, names, dice, load, workers)
        load.arrived = trio.current_time() - begun
        for hospital, noted in zip(hospitals, load.seconds, strict=True):
            workers.start_soon(_work, hospital, names, dice, gap, load, noted)
        if happens is not None:
            workers.start_soon(happens)
        while not until(load):  # noqa: ASYNC110 any of many may end it
            await trio.sleep(LOOK_SECONDS)
        workers.cancel_scope.cancel()
    return load


async def _arrive(
    hospital: RemoteHospital, names: Names, dice: random.Random, load: Load, workers: trio.Nursery
) -> None:
    """Mount: list the root, follow the feed from that version on, and ask a first question over a second connection.

    Who is not answered asks again after one to five seconds, as ``mdmfs.worker.namespace.feed`` does.
    """
    while True:
        try:
            version = (await hospital.list_directory(Lfn(()), "")).version
            told = await hospital.changes(version, 0.0)
        except MdmfsError as error:
            load.failures[error.code] += 1
            await trio.sleep(dice.uniform(*RETRY_SECONDS))
        else:
            workers.start_soon(_follow, hospital, told.version, dice, load)
            break
    with contextlib.suppress(MdmfsError):
        await trio.lowlevel.checkpoint()  # the feed's question goes first
        await _ask(hospital, names, dice)


async def _follow(hospital: RemoteHospital, version: int, dice: random.Random, load: Load) -> None:
    """Ask for changes, one long question after the other; each waits as long as a mount's does."""
    while True:
        try:
            told = await hospital.changes(version, POLL_SECONDS * dice.uniform(*JITTER))
        except MdmfsError as error:
            load.failures[error.code] += 1
            await trio.sleep(dice.uniform(*RETRY_SECONDS))
        else:
            version = told.version
            load.waits += 1


async def _work(
    hospital: RemoteHospital, names: Names, dice: random.Random, gap: float, load: Load, noted: list[float]
) -> None:
    await trio.sleep(dice.uniform(0, gap))
    while True:
        try:
            noted.append(await _ask(hospital, names, dice))
        except MdmfsError as error:
            load.failures[error.code] += 1
        await trio.sleep(dice.expovariate(1 / gap))


async def _ask(hospital: RemoteHospital, names: Names, dice: random.Random) -> float:
    """List a directory or describe a file, and give the seconds."""
    begun = trio.current_time()
    if dice.random() < 0.5:
        page = await hospital.list_directory(dice.choice(names.directories), "")
        assert any(node.kind is NodeKind.FILE for node in page.entries)
    else:
        await hospital.describe(dice.choice(names.files))
    return trio.current_time() - begun
