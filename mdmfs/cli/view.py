"""``mdmfs view``: look at images on a node without a screen."""

from __future__ import annotations

import pathlib
import sys

import click

from mdmfs.cli.output import is_json, tell
from mdmfs.daemon.backup import appearing
from mdmfs.demo.view import COLUMNS, MOST, TILE, Window, in_text, sheet, tiles_below


@click.command()
@click.argument("path", type=click.Path(exists=True, path_type=pathlib.Path))
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=pathlib.Path), help="Write a PNG.")
@click.option("--window", default="", metavar="CENTRE/WIDTH", help="As 40/400 (HU for CT). Default: the image's own.")
@click.option("--most", type=click.IntRange(1, 400), default=MOST, show_default=True, help="How many frames.")
@click.option("--columns", type=click.IntRange(1, 40), default=COLUMNS, show_default=True, help="In a row.")
@click.option(
    "--size", type=click.IntRange(16, 1024), default=TILE, show_default=True, help="Pixels of a frame's side."
)
def view(path: pathlib.Path, output: pathlib.Path | None, window: str, most: int, columns: int, size: int) -> None:
    """Show a contact sheet of PATH, a file, a series or a study: in the terminal, or as a PNG.

    Example: mdmfs view --window 40/400 ~/grid/amc/neuro/sub-6pyajauo6lm6cwpl -o sheet.png
    """
    if is_json() and output is None:
        message = "a picture in the terminal is no JSON: give --output"
        raise click.UsageError(message)
    drawn = sheet(tiles_below(path, most), window=Window.parse(window) if window else None, columns=columns, size=size)
    if output is None:
        sys.stdout.write(in_text(drawn, sys.stdout))
        return
    with appearing(output, may_replace=True) as file:
        drawn.save(file, format="PNG", optimize=True)
    tell({"file": output, "width": drawn.width, "height": drawn.height}, str(output))
