"""What simulated work goes through: stations with servers and queues, on SimPy's clock; nothing here knows mdmfs."""

from __future__ import annotations

import random
from collections.abc import Generator
from typing import Any, TypeAlias

import simpy

Steps: TypeAlias = Generator[simpy.Event, Any, None]


class Station:
    """So many servers behind one queue, first come first served; it notes how long they are busy."""

    def __init__(self, env: simpy.Environment, name: str, servers: int = 1) -> None:
        self._env = env
        self._servers = simpy.Resource(env, servers)
        self.name = name
        self.busy = 0.0
        """Seconds of all servers together."""

    def serve(self, seconds: float) -> Steps:
        """Wait for a server, then keep it for so long."""
        with self._servers.request() as turn:
            yield turn
            self.busy += seconds
            yield self._env.timeout(seconds)

    def utilisation(self, seconds: float) -> float:
        """Tell which part of its servers' time was used."""
        return self.busy / seconds / self._servers.capacity


def arrivals(env: simpy.Environment, dice: random.Random, rate: float, job: Any) -> Steps:  # noqa: ANN401 a function that begins a process
    """Begin jobs at a rate per second, each independent of the others (a Poisson process)."""
    while rate > 0:
        yield env.timeout(dice.expovariate(rate))
        env.process(job())
