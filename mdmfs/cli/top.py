"""``mdmfs top``: what a daemon does just now, from its metrics."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import pathlib
import time
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import click
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.live import Live
from rich.table import Table

from mdmfs.cli.mounted import find_place
from mdmfs.cli.output import is_json, tell
from mdmfs.daemon.configuration import read_tables
from mdmfs.model.errors import ConfigurationError, PeerUnreachableError
from mdmfs.wire.stream import Address

TIMEOUT: Final = 5.0
WIDE: Final = 200
"""Columns where no terminal says how many it has: whoever looks for a line in a pipe wants it whole."""
OURS: Final = "mdmfs_"
PROCESS: Final = {"process_cpu_seconds_total": "cpu_seconds", "process_resident_memory_bytes": "resident_bytes"}


class Figure(NamedTuple):
    """What one line of the view says: a gauge, or a counter, or how long something took."""

    value: float
    is_counter: bool


Look = Mapping[tuple[str, str], Figure]
"""Figures by name and labels."""


@click.command()
@click.argument("place")
@click.option("--every", type=click.FloatRange(min=0.1), default=2.0, show_default=True, help="Seconds between looks.")
@click.option("--count", type=click.IntRange(min=1), help="End after so many looks; else at Ctrl-C.")
def top(place: str, every: float, count: int | None) -> None:
    """Show what a daemon does just now: opens, recalls, waits, what its caches hold.

    PLACE is a path on a mount, the configuration of any daemon, or HOST:PORT of its metrics. Counts are shown with what
    they grew by in a second.

    Example: mdmfs top /grid/medical
    """
    address = find_metrics(place)
    looks = itertools.pairwise(_looks(address, every, count))
    with contextlib.suppress(KeyboardInterrupt):
        if is_json():
            for (before, then), (after, now) in looks:
                tell(_told(before, after, now - then))
            return
        console = Console()
        if not console.is_terminal:
            console.width = WIDE
            for (before, then), (after, now) in looks:
                console.print(table(str(address), before, after, now - then))
            return
        with Live(console=console, auto_refresh=False) as live:
            for (before, then), (after, now) in looks:
                live.update(table(str(address), before, after, now - then), refresh=True)


def find_metrics(place: str) -> Address:
    """Find where the metrics of a daemon are served; raises ``ConfigurationError`` where they are not."""
    path = pathlib.Path(place)
    if not path.exists():
        try:
            return Address.parse(place)
        except ConfigurationError as error:
            message = f"{place} is no path on a mount, no configuration and no HOST:PORT"
            raise ConfigurationError(message, what_to_do="name one of these") from error
    if path.is_file() and path.suffix == ".toml":
        file, told = path, _metrics_of(path)
    else:
        mount = find_place(place, None, otherwise="name a path on one, a configuration (*.toml) or HOST:PORT").whole
        file, told = pathlib.Path(mount.file), mount.mount.metrics
    if not told:
        message = f"{file} says nothing of metrics"
        raise ConfigurationError(message, what_to_do='set metrics = "127.0.0.1:9464" there, start its daemon anew')
    return Address.parse(told)


def _metrics_of(file: pathlib.Path) -> str:
    tables = read_tables(file).values()
    return next((str(table["metrics"]) for table in tables if isinstance(table, dict) and table.get("metrics")), "")


def _looks(address: Address, every: float, count: int | None) -> Iterator[tuple[Look, float]]:
    """Read the metrics again and again; gives one look more than ``count``, as rates need two."""
    for number in itertools.count():
        yield _look(address), time.monotonic()
        if number == count:
            return
        time.sleep(every)


def _look(address: Address) -> Look:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy has another loopback
    try:
        with direct.open(f"http://{address}/metrics", timeout=TIMEOUT) as answer:
            return read_figures(answer.read().decode("utf-8"))
    except (OSError, http.client.HTTPException, ValueError) as error:
        cause = getattr(error, "reason", error)
        reason = getattr(cause, "strerror", "") or type(cause).__name__
        message = f"there are no metrics at {address}: {reason}"
        raise PeerUnreachableError(message, what_to_do="see whether its daemon runs, and serves them there") from error


def read_figures(text: str) -> Look:
    """Read what is ours, and what the process takes, of a text in Prometheus's format."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = PROCESS.get(sample.name, sample.name.removeprefix(OURS))
            if (name == sample.name) or name.endswith(("_created", "_bucket")):
                continue
            labels = " ".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            is_counter = family.type in {"counter", "histogram"}
            found[name.removesuffix("_total"), labels] = Figure(sample.value, is_counter)
    return found


def _rate(before: Look, after: Look, key: tuple[str, str], seconds: float) -> float:
    known = before[key].value if key in before else 0.0
    return max(0.0, after[key].value - known) / seconds


def _told(before: Look, after: Look, seconds: float) -> dict[str, object]:
    figures = []
    for (name, labels), figure in after.items():
        told: dict[str, object] = {"name": name, "labels": labels, "value": figure.value}
        if figure.is_counter:
            told["per_second"] = _rate(before, after, (name, labels), seconds)
        figures.append(told)
    return {"figures": figures}


def table(title: str, before: Look, after: Look, seconds: float) -> Table:
    """Draw one look; counters that never counted are left out."""
    drawn = Table("", "", "now", "per second", title=title, title_justify="left", box=None)
    for column in drawn.columns[:2]:
        column.overflow = "fold"  # labels tell rows apart: none is cut off in a narrow terminal
    for column in drawn.columns[2:]:
        column.justify = "right"
    for (name, labels), figure in sorted(after.items()):
        if figure.value or not figure.is_counter:
            rate = _written(name, _rate(before, after, (name, labels), seconds)) if figure.is_counter else ""
            drawn.add_row(name.replace("_", " "), labels, _written(name, figure.value), rate)
    return drawn


def _written(name: str, value: float) -> str:
    if "bytes" in name:
        return f"{value / 2**20:,.1f} MiB"
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"
