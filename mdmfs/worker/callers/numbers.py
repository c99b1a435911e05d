"""Inode numbers of a principal's own: what is his alone to the kernel, so that no page of it is ever another's.

Directories of the catalogue keep their number for everybody: a process stands in one whoever it is. Files, and all that
is virtual, are numbered for each principal (docs/adr/0014):

| bits | what |
|---|---|
| 62 | 1: a number of somebody's own |
| 61 | 1: virtual, from ``FIRST_INODE`` on |
| 41-60 | whose: principals are counted from 1, and none is given twice while a mount lives |
| 0-40 | the catalogue's number, as ``mdmfs.worker.numbered`` has it, or the virtual one counted from 0 |
"""

from __future__ import annotations

from typing import Final, NamedTuple

from mdmfs.model.errors import MdmfsError
from mdmfs.worker.numbered import FIRST_INODE

_OWN: Final = 1 << 62
_VIRTUAL: Final = 1 << 61
_SHIFT: Final = 41
_LOW: Final = (1 << _SHIFT) - 1
MAX_PRINCIPALS: Final = 1 << 20


class OwnNumber(NamedTuple):
    """What an inode number of somebody's own says."""

    principal: int
    inode: int
    """As his own file system counts."""


def own_number(principal: int, inode: int) -> int:
    """Give the number under which the kernel knows something of a principal's own."""
    is_virtual = inode >= FIRST_INODE
    low = inode - FIRST_INODE if is_virtual else inode
    if not (0 <= low <= _LOW and 0 < principal < MAX_PRINCIPALS):
        message = f"inode {inode} of principal {principal} is beyond what a mount for many users can number"
        raise MdmfsError(message)
    return _OWN | (_VIRTUAL if is_virtual else 0) | principal << _SHIFT | low


def parse_number(number: int) -> OwnNumber | None:
    """Read a number; None for that of a directory, which is everybody's."""
    if not number & _OWN:
        return None
    low = number & _LOW
    return OwnNumber(number >> _SHIFT & MAX_PRINCIPALS - 1, low + FIRST_INODE if number & _VIRTUAL else low)
