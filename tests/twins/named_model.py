"""A reference model of names: random changes on two mounts, and a dict that says what there must be afterwards.

The mount that makes a change shows it at once, the other one when its feed has brought it. Answers are lost on their
way now and then, and the question is asked again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import trio

from mdmfs.hospital.store import Store
from mdmfs.model.errors import (
    IsADirectoryFileError,
    MdmfsError,
    NameTakenError,
    NoSuchFileError,
    NotADirectoryFileError,
    NotEmptyError,
    RefusedNameError,
)
from mdmfs.model.names import Lfn
from mdmfs.wire.messages.names import NameChange
from tests.twins.clinic import PROJECT_LFN
from tests.twins.named import SERIES, Mounted, named_clinic

NAMES: Final = ("a", "b", "ü c")
SECONDS: Final = 5.0
DEPTH: Final = 5
SENSIBLE: Final = 0.8
"""So many changes speak of what is there."""
IMAGES: Final = {
    "sub-a": "directory",
    "sub-a/ses-1": "directory",
    "sub-a/ses-1/003-MR": "directory",
    **{f"sub-a/ses-1/003-MR/000{number}.dcm": "file" for number in (1, 2, 3)},
}


class Tree:
    """What users made, below the project: ``None`` for a collection, for an alias the LFN that it leads to."""

    def __init__(self) -> None:
        self.made: dict[tuple[str, ...], Lfn | None] = {}

    def walk(self, path: tuple[str, ...]) -> None:
        """Go to a collection; raises what is in the way."""
        for length in range(1, len(path) + 1):
            if path[:length] not in self.made:
                raise NoSuchFileError
            if self.made[path[:length]] is not None:
                raise NotADirectoryFileError

    def below(self, path: tuple[str, ...]) -> list[tuple[str, ...]]:
        """Name all that is below a collection."""
        return [other for other in self.made if len(other) > len(path) and other[: len(path)] == path]

    def expected(self) -> dict[str, str]:
        """Give what a mount must show: of an alias the path from its own directory."""
        found = dict(IMAGES)
        for path, target in self.made.items():
            found["/".join(path)] = "directory" if target is None else _path(target, PROJECT_LFN.parts + path[:-1])
        return found

    def apply(self, kind: NameChange, path: tuple[str, ...], other: tuple[str, ...] | Lfn | None) -> None:
        """Change a name; raises what a mount must."""
        self.walk(path[:-1])
        match kind:
            case NameChange.COLLECTION | NameChange.ALIAS:
                if path in self.made:
                    raise NameTakenError
                self.made[path] = other if isinstance(other, Lfn) else None
            case NameChange.RENAME:
                assert isinstance(other, tuple)
                self._rename(path, other)
            case _:
                self._remove(path, is_directory=kind is NameChange.REMOVE_COLLECTION)

    def _rename(self, old: tuple[str, ...], new: tuple[str, ...]) -> None:
        self.walk(new[:-1])
        if old not in self.made:
            raise NoSuchFileError
        if old == new:
            return
        is_directory = self.made[old] is None
        if is_directory and new[: len(old)] == old:
            raise RefusedNameError
        if new in self.made:
            if is_directory != (self.made[new] is None):
                raise NotADirectoryFileError if is_directory else IsADirectoryFileError
            self._remove(new, is_directory=is_directory)
        for path in [old, *self.below(old)]:
            self.made[new + path[len(old) :]] = self.made.pop(path)

    def _remove(self, path: tuple[str, ...], *, is_directory: bool) -> None:
        if path not in self.made:
            raise NoSuchFileError
        if is_directory != (self.made[path] is None):
            raise NotADirectoryFileError if is_directory else IsADirectoryFileError
        if self.below(path):
            raise NotEmptyError
        del self.made[path]


def _path(target: Lfn, directory: tuple[str, ...]) -> str:
    """Give a relative path, in another way than the code under test: by the longest way up that is needed."""
    ups = 0
    while target.parts[: len(directory)] != directory:
        directory, ups = directory[:-1], ups + 1
    return "/".join([*[".."] * ups, *target.parts[len(directory) :]]) or "."


def _paths(chance: random.Random) -> tuple[str, ...]:
    return tuple(chance.choice(NAMES) for _ in range(chance.randint(1, 3)))


Step = tuple[NameChange, tuple[str, ...], tuple[str, ...] | Lfn | None]


def steps(chance: random.Random, count: int, tree: Tree) -> Iterator[Step]:
    """Draw changes; some of them make no sense."""
    kinds = [*list(NameChange)[:5], NameChange.COLLECTION, NameChange.ALIAS, NameChange.RENAME]
    for _ in range(count):
        kind = chance.choice(kinds)
        there = sorted(tree.made)
        inside = [path for path in [(), *there] if tree.made.get(path) is None and len(path) < DEPTH]
        path = _paths(chance)
        if chance.random() < SENSIBLE and kind in {NameChange.COLLECTION, NameChange.ALIAS}:
            path = (*chance.choice(inside), chance.choice(NAMES))
        elif chance.random() < SENSIBLE and there:
            path = chance.choice(there)
        other: tuple[str, ...] | Lfn | None = None
        if kind is NameChange.ALIAS:
            targets = [SERIES, SERIES / "0001.dcm", PROJECT_LFN, Lfn((*PROJECT_LFN.parts, *_paths(chance)))]
            other = chance.choice(targets)
        if kind is NameChange.RENAME:
            other = (*chance.choice(inside), chance.choice(NAMES))
        yield kind, path, other


async def compare(folder: Path, seed: int, count: int, store: Store | None = None) -> int:
    """Make random changes on two mounts and compare after each; gives how many were made, of those asked for."""
    chance, tree, made = random.Random(seed), Tree(), 0  # noqa: S311 a test's chances
    async with (
        named_clinic(folder, store) as named,
        named.mount(folder, number=1) as one,
        named.mount(folder, number=2) as two,
    ):
        for kind, path, other in steps(chance, count, tree):
            mount, mirror = (one, two) if chance.random() < 0.5 else (two, one)
            mount.port.lost = int(chance.random() < 0.1)
            expected = _outcome(tree, kind, path, other)
            found = await _ask(mount, kind, path, other)
            assert found == expected, (seed, kind, path, other, found, expected, tree.made)
            mount.port.lost = 0
            made += found is None
            assert await mount.tree(PROJECT_LFN) == tree.expected(), (seed, kind, path, other)
            await _until_seen(mirror, tree)
    return made


def _outcome(
    tree: Tree, kind: NameChange, path: tuple[str, ...], other: tuple[str, ...] | Lfn | None
) -> type[MdmfsError] | None:
    try:
        tree.apply(kind, path, other)
    except MdmfsError as error:
        return type(error)
    return None


async def _ask(
    mount: Mounted, kind: NameChange, path: tuple[str, ...], other: tuple[str, ...] | Lfn | None
) -> type[MdmfsError] | None:
    lfn = Lfn((*PROJECT_LFN.parts, *path))
    aim = Lfn((*PROJECT_LFN.parts, *other)) if isinstance(other, tuple) else "" if other is None else str(other)
    try:
        await mount.change(kind, lfn, aim)
    except MdmfsError as error:
        return type(error)
    return None


async def _until_seen(mount: Mounted, tree: Tree) -> None:
    """Wait until the other mount shows the same, as it does within 2 s."""
    expected = tree.expected()
    with trio.move_on_after(SECONDS):
        while await mount.tree(PROJECT_LFN) != expected:  # noqa: ASYNC110 nothing tells what a mount was told
            await trio.sleep(0.002)
        return
    assert await mount.tree(PROJECT_LFN) == expected
