"""What is mounted where, as /proc/self/mountinfo tells it (proc(5)): no mount is touched for it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

FILE_SYSTEM: Final = "mdmfs"
KIND: Final = f"fuse.{FILE_SYSTEM}"
_PROC: Final = Path("/proc")
_OWNER: Final = re.compile(r"\buser_id=([0-9]+)")


@dataclasses.dataclass(frozen=True, slots=True)
class MountEntry:
    """One mount."""

    mountpoint: Path
    device: int
    """Its minor number, under which the kernel keeps the FUSE connection."""
    kind: str
    root: Path
    """Which directory of the file system it shows: of a bind mount, one below the root."""
    number: int
    """Of the mount itself, which it keeps wherever it is moved."""
    owner: int | None = None
    """Who mounted it, where that is FUSE: nobody else but root takes it away."""


def entries(process: str = "self") -> Iterator[MountEntry]:
    """Give all mounts that a process sees, in the order in which they were made; raises ``OSError`` for others'."""
    # the kernel writes any other sign than those four as it is, also what Python takes for the end of a line
    for line in os.fsdecode((_PROC / process / "mountinfo").read_bytes()).removesuffix("\n").split("\n"):
        fields = line.split(" ")
        minor = int(fields[2].partition(":")[2])
        root, mountpoint = (Path(_unescaped(field)) for field in fields[3:5])
        kind, _, options, *_ = fields[fields.index("-") + 1 :]
        owner = _OWNER.search(options)
        yield MountEntry(mountpoint, minor, kind, root, int(fields[0]), int(owner[1]) if owner else None)


def escaped(mountpoint: Path) -> str:
    """Write a place as the kernel does: blanks, line feeds and backslashes in octal digits, and nothing else."""
    text = str(mountpoint).replace("\\", "\\134")
    for character, octal in ((" ", "\\040"), ("\t", "\\011"), ("\n", "\\012")):
        text = text.replace(character, octal)
    return text


def entry_of(mountpoint: Path) -> MountEntry | None:
    """Find what is mounted there, the last of several; None where nothing is."""
    return next((entry for entry in reversed([*entries()]) if entry.mountpoint == mountpoint), None)


def now_at(mount: MountEntry) -> MountEntry | None:
    """Find a mount again: it may have been moved since, or a directory above it may have got another name."""
    return next((it for it in entries() if (it.number, it.device) == (mount.number, mount.device)), None)


def place_of(mountpoint: Path) -> Path:
    """Say what the kernel calls a mount point; nothing is asked of what is mounted there, which may hang."""
    named = Path(os.path.abspath(mountpoint))  # noqa: PTH100 as told
    above = Path(os.path.realpath(named.parent), named.name)
    return next((it for it in (named, above) if entry_of(it) is not None), None) or Path(os.path.realpath(above))


def still_seen_by(mount: MountEntry) -> int | None:
    """Name a process for which a mount is still there after it was unmounted here: it has mounts of its own.

    Containers and jobs with a mount namespace keep what was mounted before them (mount_namespaces(7)). Only processes
    that the caller may look at are found.
    """
    for process in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # gone meanwhile, or somebody else's
            if any(it.kind == KIND and it.device == mount.device for it in entries(process.name)):
                return int(process.name)
    return None


def _unescaped(text: str) -> str:
    """Undo the octal escapes."""
    for octal, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(octal, character)
    return text
