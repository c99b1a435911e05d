"""Staging from the worker's side: which files a name stands for, and the attribute that asks for them."""

from __future__ import annotations

import os
from typing import Any, cast

import pyfuse3
import pytest

from mdmfs.model.errors import NoSuchFileError, NotADirectoryFileError
from mdmfs.model.names import Lfn
from mdmfs.wire.messages.files import DirectoryPage, Node, NodeKind
from mdmfs.worker.callers.seat import OwnerOnly
from mdmfs.worker.filesystem import FileSystem
from mdmfs.worker.fuse.operations import MdmfsOperations
from mdmfs.worker.fuse.patience import SignalWatch
from mdmfs.worker.hospital.staging import files_below

ROOT = Lfn(("amc",))


class Tree:
    """A hospital of two directories, listed a name at a time."""

    def __init__(self) -> None:
        self.names = {ROOT: ["a", "b", "one.dcm"], ROOT / "a": ["two.dcm"], ROOT / "b": []}

    async def list_directory(self, lfn: Lfn, after: str) -> DirectoryPage:
        """Give the next name."""
        if lfn not in self.names:
            raise NotADirectoryFileError(str(lfn)) if lfn.name.endswith(".dcm") else NoSuchFileError(str(lfn))
        left = [name for name in self.names[lfn] if name > after]
        return DirectoryPage(_node(""), [_node(name) for name in left[:1]], len(left) <= 1, 1)


def _node(name: str) -> Node:
    kind = NodeKind.FILE if name.endswith(".dcm") else NodeKind.DIRECTORY
    return Node(name, 5, kind, 7, 0.0, bytes(16) if kind is NodeKind.FILE else b"")


async def test_a_directory_stands_for_all_files_below_it_and_a_file_for_itself() -> None:
    """Under the paths of their sealed objects; what is not there is told."""
    assert [it.path for it in await files_below(Tree(), ROOT)] == [
        "/grid/medical/amc/one.dcm.sealed",
        "/grid/medical/amc/a/two.dcm.sealed",
    ]
    assert [it.lfn for it in await files_below(Tree(), ROOT / "one.dcm")] == [ROOT / "one.dcm"]
    assert await files_below(Tree(), ROOT / "b") == []
    with pytest.raises(NoSuchFileError):
        await files_below(Tree(), ROOT / "c")
    with pytest.raises(NotADirectoryFileError):
        await files_below(Tree(), ROOT / "nothing.dcm")


async def test_aliases_stand_for_what_they_lead_to_once() -> None:
    """Images, directories and other aliases; nowhere, to themselves, and into another hospital they lead to nothing."""
    targets = {
        "1": ROOT / "a" / "two.dcm",
        "2": ROOT / "a",
        "3": ROOT / "mine" / "1",
        "4": ROOT / "mine",
        "5": ROOT / "gone" / "x.dcm",
        "6": Lfn(("umc", "x")),
        "7": ROOT / "one.dcm",
        "8": ROOT,
    }

    class Aliased(Tree):
        """The same, with a collection of aliases."""

        def __init__(self, *aliases: str) -> None:
            super().__init__()
            self.names[ROOT].insert(2, "mine")
            self.names |= {ROOT / "mine": sorted(aliases), ROOT.parent: [ROOT.name]}

        async def list_directory(self, lfn: Lfn, after: str) -> DirectoryPage:
            """Tell of aliases as a hospital does."""
            page = await super().list_directory(lfn, after)
            entries = [
                Node(node.name, 6, NodeKind.LINK, 9, 0.0, target=str(targets[node.name]), is_made=True)
                if node.name in targets
                else node
                for node in page.entries
            ]
            return DirectoryPage(page.directory, entries, page.is_last, 1)

    two, one = ROOT / "a" / "two.dcm", ROOT / "one.dcm"
    for aliases, expected in (
        ("1", [two]),
        ("2", [two]),
        ("123456", [two]),
        ("137", [two, one]),
        ("37", [one]),
        ("128", [two, one]),
    ):
        found = [it.lfn for it in await files_below(Aliased(*aliases), ROOT / "mine")]
        assert sorted(found) == expected, aliases


async def test_the_attribute_asks_for_staging_and_every_other_is_refused() -> None:
    """Whatever it is set to; the file's owner alone may."""
    asked: list[int] = []

    class Recording:
        async def stage(self, inode: int) -> None:
            asked.append(inode)

    class Caller:
        uid, gid, pid, umask = os.getuid(), os.getgid(), os.getpid(), 0

    class Other(Caller):
        uid = os.getuid() + 1

    over = MdmfsOperations(OwnerOnly(cast("FileSystem", Recording()), os.getuid(), os.getgid()), SignalWatch())
    inode, name = pyfuse3.InodeT(5), pyfuse3.XAttrNameT(b"user.mdmfs.stage")
    await over.setxattr(inode, name, b"1", cast("Any", Caller()))
    assert asked == [5]
    for other, who in ((b"user.mdmfs.locality", Caller()), (b"user.x", Caller()), (b"user.mdmfs.stage", Other())):
        with pytest.raises(pyfuse3.FUSEError):
            await over.setxattr(inode, pyfuse3.XAttrNameT(other), b"1", cast("Any", who))
    assert asked == [5]
