"""A country: hospitals with their PACSs, keystores, replicas and a hundred thousand worker mounts, for some seconds.

Mounts ask and open independently of one another. An open of what the mount has not takes the key from k keystores and
the bytes from a replica, from the hospital's staging or, after a recall, from the PACS. Of several hospitald of one
hospital one recalls and registers, and the others answer readers (docs/adr/0025).
"""

from __future__ import annotations

import dataclasses
import random
import statistics
from typing import Final

import simpy

from tests.sim.figures import Figures
from tests.sim.stations import Station, Steps, arrivals

ASSOCIATIONS: Final = 2
"""At a PACS, at the same time."""
THRESHOLD: Final = 2
BUSY: Final = 0.7
"""A station above it is a bottleneck: an M/M/1 queue is then more than twice as long as what is being served."""


@dataclasses.dataclass(frozen=True)
class Country:
    """What there is, and what is asked of it per second by one mount."""

    name: str
    mounts: int
    hospitals: int = 10
    questions: float = 1 / 60
    opens: float = 1 / 60
    """Of images that the mount's own cache does not have."""
    cold: float = 0.02
    """Of these, the part for which the PACS is asked."""
    replicated: float = 0.0
    """Of the others, the part that comes from storage elements."""
    keystores: int = 3
    machines: int = 1
    """hospitald of one hospital, each on a core; where there are several, all but one answer readers."""
    keystore_machines: int = 1
    """keystored behind one name, each on a core."""
    registered: float = 0.0
    """Images a second that each hospital registers."""
    is_enough: bool = False
    """Whether docs/scale.md says that it has no bottleneck."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of it."""

    utilisation: dict[str, float]
    """Of the busiest station of each kind; above 1 is not possible: a queue grows instead."""
    median: float
    p99: float
    """Seconds of an open."""
    begun: int
    ended: int

    @property
    def bottleneck(self) -> str:
        """The busiest kind of station, where it is too busy."""
        kind = max(self.utilisation, key=lambda kind: self.utilisation[kind])
        return kind if self.utilisation[kind] > BUSY else "none"


def simulate(country: Country, figures: Figures, seconds: float, seed: int = 7) -> Outcome:
    """Let it run from an empty start."""
    run = _Run(country, figures, random.Random(seed))  # noqa: S311 the same in each run
    run.begin()
    run.env.run(seconds)
    kinds = {"PACS": run.pacss, "hospitald": [*run.working, *run.reading], "keystored": run.keystores}
    busiest = {kind: max(each.utilisation(seconds) for each in stations) for kind, stations in kinds.items()}
    hundredths = statistics.quantiles(run.took, n=100) if len(run.took) > 1 else [0.0] * 99
    return Outcome(busiest, hundredths[49], hundredths[98], run.begun, len(run.took))


class _Run:
    def __init__(self, country: Country, figures: Figures, dice: random.Random) -> None:
        self.env = simpy.Environment()
        self._country, self._figures, self._dice = country, figures, dice
        hospitals = range(country.hospitals)
        self.pacss = [Station(self.env, f"PACS {number}", ASSOCIATIONS) for number in hospitals]
        self.working = [Station(self.env, f"hospitald {number}", 1) for number in hospitals]
        others = country.machines - 1
        self.reading = [Station(self.env, f"readers' {number}", others) for number in hospitals] if others else []
        self.keystores = [
            Station(self.env, f"keystored {number}", country.keystore_machines) for number in range(country.keystores)
        ]
        self.took: list[float] = []
        self.begun = 0

    def begin(self) -> None:
        """Let everybody begin."""
        country, env = self._country, self.env
        for number in range(country.hospitals):
            rate = country.mounts / country.hospitals

            def question(number: int = number) -> Steps:
                yield from self._readers(number).serve(self._figures.question)

            def opening(number: int = number) -> Steps:
                yield from self._open(number)

            def registering(number: int = number) -> Steps:
                yield from self.pacss[number].serve(self._figures.slow_pacs)
                yield from self.working[number].serve(self._figures.register)

            env.process(arrivals(env, self._dice, rate * country.questions, question))
            env.process(arrivals(env, self._dice, rate * country.opens, opening))
            env.process(arrivals(env, self._dice, country.registered, registering))

    def _open(self, number: int) -> Steps:
        begun, figures, dice = self.env.now, self._figures, self._dice
        self.begun += 1
        asked = dice.sample(self.keystores, THRESHOLD)
        yield simpy.AllOf(self.env, [self.env.process(keystore.serve(figures.share)) for keystore in asked])
        if dice.random() < self._country.cold:
            yield from self.pacss[number].serve(figures.slow_pacs)
            yield from self.working[number].serve(figures.recall)
            if self.reading:
                yield from self.reading[number].serve(figures.staged)
        elif dice.random() < self._country.replicated:
            yield from self._readers(number).serve(figures.question)  # it decides and audits, others send
        else:
            yield from self._readers(number).serve(figures.staged)
        yield self.env.timeout(figures.mount)
        self.took.append(self.env.now - begun)

    def _readers(self, number: int) -> Station:
        return self.reading[number] if self.reading else self.working[number]


_OFTEN: Final = 0.1
_COHORT: Final = Country("a new cohort, half of it cold", 10_000, opens=0.6, cold=0.5, machines=8, keystore_machines=4)
COUNTRIES: Final = (
    Country("ten hospitals", 1_000, is_enough=True),
    Country("ten times the mounts", 10_000, is_enough=True),
    Country("a hundred times the mounts", 100_000),
    Country("and replicas for nine tenths", 100_000, replicated=0.9, is_enough=True),
    Country("who open six times as often", 100_000, opens=_OFTEN, replicated=0.9),
    Country("and 8 hospitald each", 100_000, opens=_OFTEN, replicated=0.9, machines=8),
    Country(
        "and 4 keystored a name", 100_000, opens=_OFTEN, replicated=0.9, machines=8, keystore_machines=4, is_enough=True
    ),
    _COHORT,
    dataclasses.replace(_COHORT, name="the same, staged ahead", cold=0.02, is_enough=True),
    Country("100 images/s are registered", 1_000, registered=100.0, is_enough=True),
    Country("130 images/s are registered", 1_000, registered=130.0),
)
"""One after the other: what is added is what the one before lacks."""
