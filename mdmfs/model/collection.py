"""Names of collections of records: words with dots between them, ``followup`` and below it ``followup.oncology``."""

from __future__ import annotations

import re
from typing import Final

NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
"""Of an attribute, an attribute group, and of each word in a collection's name."""
MAX_DEPTH: Final = 8
"""Words of a collection's name."""


def is_collection_name(text: str) -> bool:
    """Ask whether a collection may be called so."""
    words = text.split(".")
    return len(words) <= MAX_DEPTH and all(NAME.fullmatch(word) for word in words)


def above(name: str) -> str:
    """Name the collection that one lies in; empty where it lies in its project itself."""
    return name.rpartition(".")[0]


def lineage(name: str) -> list[str]:
    """Name the collections that one lies in, the outermost first, and last itself."""
    words = name.split(".")
    return [".".join(words[: count + 1]) for count in range(len(words))]


def lies_within(name: str, other: str) -> bool:
    """Ask whether a collection is another one, or lies somewhere below it."""
    return name == other or name.startswith(f"{other}.")
