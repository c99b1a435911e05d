"""READs that are refused, so that the kernel asks for their pages one by one: what it reads ahead is asked by nobody.

It drops pages that were pushed without a word, and reads ahead from there: its READ begins in a header and goes on into
the pixels, of which a recall is the price. Of one that failed it asks again for each page that a program wants, alone
(Linux, mm/filemap.c, ``filemap_update_page``).
"""

from __future__ import annotations

import mmap
import os

from pyfuse3 import FileHandleT, FlagT


class PageByPage:
    """What was refused, by handle. None is refused twice, nor that of a single page, nor one past the page cache."""

    def __init__(self) -> None:
        self._direct: set[FileHandleT] = set()
        self._refused: dict[FileHandleT, int] = {}
        """Up to which byte."""

    def note_open(self, handle: FileHandleT, flags: FlagT) -> None:
        """Know of a handle: what is opened with O_DIRECT gets each answer itself, and not the kernel."""
        if flags & os.O_DIRECT:
            self._direct.add(handle)

    def note_closed(self, handle: FileHandleT) -> None:
        """Know that a handle has ended."""
        self._direct.discard(handle)
        self._refused.pop(handle, None)

    def refuses(self, handle: FileHandleT, offset: int, length: int, header_end: int) -> bool:
        """Tell whether to refuse a READ of a file of which only the bytes up to ``header_end`` are at hand.

        It begins in these, or where one that was refused ended: the kernel reads on ahead from there.
        """
        upto = self._refused.get(handle, header_end - 1)
        if length <= mmap.PAGESIZE or offset > upto or offset + length <= upto or handle in self._direct:
            return False
        self._refused[handle] = offset + length
        return True
