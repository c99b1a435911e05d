"""The three runs that are measured as well: a crowd that asks, a series registered, a series read cold."""

from __future__ import annotations

import random

import simpy

from tests.sim.figures import Figures
from tests.sim.stations import Station, Steps


def crowd(figures: Figures, workers: int, gap: float, seconds: float) -> float:
    """Give the questions per second of so many workers at one hospitald; both sides have a core of their own."""
    env, dice = simpy.Environment(), random.Random(7)  # noqa: S311 the same in each run
    asking, hospitald = Station(env, "workers"), Station(env, "hospitald")
    answered = 0

    def worker() -> Steps:
        nonlocal answered
        yield env.timeout(dice.uniform(0, gap))
        while True:
            yield from asking.serve(figures.asking)
            yield from hospitald.serve(figures.question)
            answered += 1
            yield env.timeout(dice.expovariate(1 / gap))

    for _ in range(workers):
        env.process(worker())
    env.run(seconds)
    return answered / seconds


def registered(figures: Figures, images: int) -> float:
    """Give the seconds that a series takes from the command until it is seen."""
    return _line(images, figures.register_begun, [figures.pacs, figures.register_elapsed])


def read_cold(figures: Figures, images: int) -> float:
    """Give the seconds that one reader needs for a series that nobody has read before."""
    return _line(images, figures.recall_begun, [figures.pacs, figures.recall_elapsed])


def _line(images: int, begun: float, costs: list[float], ahead: int = 32) -> float:
    """Send images through stations one behind the other, so many under way at a time."""
    env = simpy.Environment()
    stations = [Station(env, str(number)) for number in range(len(costs))]
    room = simpy.Resource(env, ahead)

    def image() -> Steps:
        with room.request() as turn:
            yield turn
            for station, cost in zip(stations, costs, strict=True):
                yield from station.serve(cost)

    def series() -> Steps:
        yield env.timeout(begun)
        yield simpy.AllOf(env, [env.process(image()) for _ in range(images)])

    env.run(env.process(series()))
    return float(env.now)
