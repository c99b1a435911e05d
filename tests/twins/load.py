"""Many workers at one hospital: each follows the feed, and looks at names now and then, as mounts do."""

from __future__ import annotations

import dataclasses
import random
import statistics
from collections import Counter
from collections.abc import Callable, Sequence

import trio

from mdmfs.model.errors import MdmfsError
from mdmfs.model.names import Guid, Lfn
from mdmfs.wire.messages import NodeKind
from mdmfs.wire.nursery import open_plain_nursery
from mdmfs.worker.hospital import RemoteHospital
from mdmfs.worker.staging import files_below

LOOK_SECONDS = 0.1
POLL_SECONDS = 10.0
AT_THE_DOOR = 32
"""Workers that shake hands at the same time: on one host a server bears no crowd of strangers."""


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
    hospitals: Sequence[RemoteHospital], names: Names, dice: random.Random, *, gap: float, until: Callable[[Load], bool]
) -> Load:
    """Let all ask at once, each every ``gap`` seconds on average once all have come in, until it is enough."""
    load = Load([[] for _ in hospitals])
    door = trio.CapacityLimiter(AT_THE_DOOR)
    async with trio.open_nursery() as workers:
        async with trio.open_nursery() as arriving:
            for hospital in hospitals:
                arriving.start_soon(_arrive, hospital, names, dice, door, load)
        for hospital, noted in zip(hospitals, load.seconds, strict=True):
            workers.start_soon(_follow, hospital, load)
            workers.start_soon(_work, hospital, names, dice, gap, load, noted)
        while not until(load):  # noqa: ASYNC110 any of many may end it
            await trio.sleep(LOOK_SECONDS)
        workers.cancel_scope.cancel()
    return load


async def _arrive(
    hospital: RemoteHospital, names: Names, dice: random.Random, door: trio.CapacityLimiter, load: Load
) -> None:
    async with door:
        try:
            async with open_plain_nursery() as both:  # at once, so that each has its connection
                both.start_soon(hospital.changes, 0, POLL_SECONDS)
                both.start_soon(_ask, hospital, names, dice)
        except MdmfsError as error:
            load.failures[error.code] += 1


async def _follow(hospital: RemoteHospital, load: Load) -> None:
    """Ask for changes, one long question after the other."""
    version = 0
    while True:
        try:
            told = await hospital.changes(version, POLL_SECONDS)
        except MdmfsError as error:
            load.failures[error.code] += 1
            await trio.sleep(1)
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
