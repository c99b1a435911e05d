"""Strides: in which steps the files of a directory are opened one by one, and so which of them come next."""

from __future__ import annotations

import collections
import functools
from typing import Final, NamedTuple

import trio

from mdmfs.hospital.catalogue.records import FileRecord
from mdmfs.hospital.store import Store, Transaction
from mdmfs.model.errors import NoSuchFileError
from mdmfs.model.names import Guid

IDLE_SECONDS: Final = 5.0
"""A directory of which nothing was opened for so long is not being gone through."""
LONGEST_STRIDE: Final = 32
"""Whoever takes longer steps is taken to have no order."""
MOST_ROWS: Final = 256
"""Names that are read for what comes next, in the loop."""
FEWEST: Final = 7
"""Files that are expected after the second open; with each time that more are asked for, twice as many and one."""
MOST: Final = 31
MAX_DIRECTORIES: Final = 64


class _Walk(NamedTuple):
    """How far somebody has come in a directory."""

    name: str
    """Of the file opened last."""
    opened: float
    expected: int
    """How many files were expected when they were last asked for."""


class Strides:
    """The directories that are being gone through; those gone through last are remembered."""

    def __init__(self, store: Store) -> None:
        """Look names up in a store."""
        self._store = store
        self._walks: collections.OrderedDict[int, _Walk] = collections.OrderedDict()

    def step(self, file: FileRecord, *, is_expected: bool) -> list[Guid]:
        """Note that a file is opened; give those that come next, by the last step forward, in their order.

        None where it was expected, is the first of its directory for some time, or follows no order.
        """
        if not file.places:
            return []
        now, directory, name = trio.current_time(), file.places[0].parent, file.places[0].name
        walk = self._walks.pop(directory, None)
        if walk is None or now >= walk.opened + IDLE_SECONDS:
            walk = _Walk(name, now, 0)
        coming: list[Guid] = []
        if not is_expected and walk.name != name:
            wanted = min(max(2 * walk.expected + 1, FEWEST), MOST)
            coming = self._store.read(functools.partial(_following, directory, walk.name, name, wanted))
            walk = walk._replace(expected=len(coming))
        self._walks[directory] = walk._replace(name=name, opened=now)
        if len(self._walks) > MAX_DIRECTORIES:
            self._walks.popitem(last=False)
        return coming


def _following(directory: int, before: str, name: str, wanted: int, tx: Transaction) -> list[Guid]:
    """Give the files that follow a name in steps as long as the one that led to it; none where it is no step."""
    try:
        passed = tx.catalogue.list_page(directory, after=before, limit=LONGEST_STRIDE).nodes
    except NoSuchFileError:  # it has just been hidden
        return []
    stride = next((count for count, node in enumerate(passed, 1) if node.name == name), 0)
    if not stride:
        return []
    limit = min(stride * wanted, MOST_ROWS)
    coming = tx.catalogue.list_page(directory, after=name, limit=limit).nodes[stride - 1 :: stride]
    return [Guid(node.guid) for node in coming if node.guid]
