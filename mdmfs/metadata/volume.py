"""Volumes: whether the disk below a directory is encrypted, as far as this machine can tell."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

ENCRYPTING: Final = frozenset({"ecryptfs", "fuse.cryfs", "fuse.encfs", "fuse.gocryptfs"})
"""File systems that encrypt by themselves."""
_CRYPT: Final = "CRYPT-"
"""What the device mapper's UUID of dm-crypt begins with, LUKS and plain."""
_FIELDS: Final = 3
"""After the dash in a line of mountinfo (proc(5)): type, source, options."""


def is_encrypted(directory: Path, *, root: Path = Path("/")) -> bool | None:
    """Ask whether all that a directory holds lies on dm-crypt, or on a file system that encrypts; None: not known.

    ``root`` is where /proc and /sys stand. A disk that encrypts itself tells nothing, nor does a virtual host.
    """
    here = next((it for it in (directory, *directory.parents) if it.exists()), Path("/")).resolve()
    device = here.stat().st_dev
    kind, source = _mount_of(here, root)
    if kind in ENCRYPTING:
        return True
    block = root / "sys" / "dev" / "block"
    numbers = f"{os.major(device)}:{os.minor(device)}"
    if not (block / numbers).exists() and source.startswith("/dev/") and Path(source).exists():
        device = Path(source).stat().st_rdev  # file systems such as btrfs have numbers of their own
        numbers = f"{os.major(device)}:{os.minor(device)}"
    return _is_crypt(block / numbers) if (block / numbers).exists() else None


def _is_crypt(device: Path) -> bool:
    """Look at a device, or, where it is made of others, at each of those."""
    try:
        if (device / "dm" / "uuid").read_text().startswith(_CRYPT):
            return True
    except OSError:
        pass
    if not (device / "slaves").is_dir() and (device / ".." / "slaves").is_dir():
        device = device / ".."  # a partition: the whole disk says what it is made of
    slaves = list((device / "slaves").iterdir()) if (device / "slaves").is_dir() else []
    return bool(slaves) and all(map(_is_crypt, slaves))


def _mount_of(path: Path, root: Path) -> tuple[str, str]:
    """Give type and source of the mount that a path is on."""
    found, longest = ("", ""), -1
    for line in os.fsdecode((root / "proc" / "self" / "mountinfo").read_bytes()).removesuffix("\n").split("\n"):
        before, _, after = line.partition(" - ")
        point, rest = before.split()[4].replace("\\040", " "), after.split(maxsplit=_FIELDS - 1)
        if path.is_relative_to(point) and len(point) >= longest and len(rest) == _FIELDS:
            found, longest = (rest[0], rest[1]), len(point)
    return found
