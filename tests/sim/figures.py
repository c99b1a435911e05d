"""The measured costs that the model takes as given: seconds of an operation, each with how it was measured."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Final

import msgspec

FILE: Final = Path(__file__).with_name("figures.toml")


class Figures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds; of processor time where nothing else is said. An image is one of 512 KiB."""

    question: float
    """Of hospitald, for a question about names or a file."""
    asking: float
    """Of the bench that asks as many mounts do, for the same."""
    register: float
    """Of hospitald, for an image that is registered."""
    register_elapsed: float
    """On the clock, for an image of a series that is registered."""
    register_begun: float
    """On the clock, above that for a whole series."""
    recall: float
    """Of hospitald, for an image that is read cold."""
    recall_elapsed: float
    """On the clock, for an image of a series that one reader reads cold."""
    recall_begun: float
    """On the clock, above that for a whole series."""
    staged: float
    """Of hospitald, for an image that is staged."""
    pacs: float
    """Of the PACS, on the clock, for an image of a C-GET, from memory over loopback."""
    slow_pacs: float
    """The same where the one who receives is slow: as a PACS with disks behind a network may be."""
    share: float
    """Of a keystored, for the share of an image's key."""
    mount: float
    """Of a mount, for an image that it fetches."""


def read() -> Figures:
    """Read the figures that are kept: those of ``./run bench simulator``."""
    tables = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return Figures(**{name: table["seconds"] for name, table in tables.items()})
