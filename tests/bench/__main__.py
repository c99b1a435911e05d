"""``./run bench NAME``: a peer and we do the same work in one run; a table, then the ratio beside its bar."""

from __future__ import annotations

import importlib
import pathlib
import sys

import click
from rich.console import Console
from rich.table import Table

from tests.bench._frame import Bench

NAMES = sorted(path.stem for path in pathlib.Path(__file__).parent.glob("[!_]*.py"))


@click.command()
@click.argument("names", nargs=-1, metavar=f"[{'|'.join(NAMES)}]...")
def main(names: tuple[str, ...]) -> None:
    """Measure beside a peer; without a name, list the names. ``deid-large`` is ``deid_large``."""
    if not names:
        click.echo("\n".join(NAMES))
        return
    names = tuple(name.replace("-", "_") for name in names)
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        message = f"no such bench: {', '.join(unknown)}; there are {', '.join(NAMES)}"
        raise click.UsageError(message)
    results = [measure(name) for name in names]
    sys.exit(0 if all(results) else 1)


def measure(name: str) -> bool:
    """Run one bench and print what came of it; tell whether its bar is met."""
    bench: Bench = importlib.import_module(f"tests.bench.{name}").BENCH
    measured = bench.measure()
    table = Table(*measured.heading)
    for row in measured.rows:
        table.add_row(*row)
    Console(width=120).print(table)
    click.echo(f"{name}: {measured.ratio:.2f} (bar {'<= ' if bench.at_most else ''}{bench.bar:g})")
    return measured.ratio <= bench.bar if bench.at_most else measured.ratio >= bench.bar


if __name__ == "__main__":
    main(prog_name="./run bench")
