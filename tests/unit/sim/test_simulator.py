"""The simulator says what queueing theory says, finds the bottleneck that was put there; docs/scale.md quotes it."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest
import simpy

from tests.bench import scale
from tests.sim import figures, local
from tests.sim.country import COUNTRIES, Country, simulate
from tests.sim.figures import Figures
from tests.sim.stations import Station, Steps, arrivals

PAGE = (Path(__file__).parents[3] / "docs" / "scale.md").read_text(encoding="utf-8")
COSTS = Figures(
    question=0.001,
    asking=0.0001,
    register=0.01,
    register_elapsed=0.01,
    register_begun=0.1,
    recall=0.01,
    recall_elapsed=0.01,
    recall_begun=0.1,
    staged=0.002,
    pacs=0.004,
    slow_pacs=0.03,
    share=0.0005,
    mount=0.003,
)


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_a_station_queues_as_pollaczek_and_khinchine_say(load: float) -> None:
    """Random arrivals, constant service: the mean time in the queue is load / (2 (1 - load)) services."""
    env, dice, waited = simpy.Environment(), random.Random(3), []  # noqa: S311 the same in each run
    station = Station(env, "one")

    def job() -> Steps:
        begun = env.now
        yield from station.serve(1.0)
        waited.append(env.now - begun - 1.0)

    env.process(arrivals(env, dice, load, job))
    env.run(30_000)
    assert sum(waited) / len(waited) == pytest.approx(load / (2 * (1 - load)), rel=0.1)
    assert station.utilisation(30_000) == pytest.approx(load, rel=0.05)


def test_a_crowd_gets_what_the_slower_side_gives_and_no_more() -> None:
    """Few workers get what they ask for; many what a core bears."""
    assert local.crowd(COSTS, 5, 0.1, 20.0) == pytest.approx(5 / 0.1011, rel=0.05)
    assert local.crowd(COSTS, 1000, 0.1, 5.0) == pytest.approx(1 / COSTS.question, rel=0.05)


def test_a_series_goes_at_the_pace_of_the_slowest_step() -> None:
    """After its beginning."""
    assert local.read_cold(COSTS, 400) == pytest.approx(0.1 + 400 * 0.01, rel=0.02)


@pytest.mark.parametrize(
    ("country", "bottleneck"),
    [
        (Country("quiet", 100, hospitals=2), "none"),
        (Country("many ask", 10_000, hospitals=2, questions=0.3, opens=0.001), "hospitald"),
        (Country("nothing staged", 1000, hospitals=2, questions=0, opens=0.9, cold=1.0, machines=9), "PACS"),
        (Country("many hospitals", 20_000, hospitals=40, questions=0, opens=0.14, replicated=1.0), "keystored"),
    ],
)
def test_the_bottleneck_is_the_one_that_was_put_there(country: Country, bottleneck: str) -> None:
    """And what cannot be served is seen as unfinished."""
    outcome = simulate(country, COSTS, 2.0)
    assert outcome.bottleneck == bottleneck
    assert outcome.ended <= outcome.begun


def test_the_same_seed_gives_the_same_country() -> None:
    """And another one another."""
    country = Country("small", 500, hospitals=2)
    assert simulate(country, COSTS, 5.0) == simulate(country, COSTS, 5.0)
    assert simulate(country, COSTS, 5.0, seed=8) != simulate(country, COSTS, 5.0)


def test_the_page_has_the_measured_costs_and_the_simulated_countries() -> None:
    """The first country is simulated again, all the others are named."""
    for name, seconds in msgspec.structs.asdict(figures.read()).items():
        assert f"| `{name}` | {seconds * 1e3:.3f} ms |" in PAGE, name
    assert "| " + " | ".join(scale.row(COUNTRIES[0], scale.SECONDS)) + " |" in PAGE
    for country in COUNTRIES:
        assert f"| {country.name} | {country.mounts:,} |" in PAGE
