"""Which READs are refused, so that the kernel asks page by page: what it reads ahead, and never a page alone."""

from __future__ import annotations

import mmap
import os

from pyfuse3 import FileHandleT, FlagT

from mdmfs.worker.fuse.page_by_page import PageByPage

PAGE = mmap.PAGESIZE
HEADER = 4 * PAGE
ONE, OTHER = FileHandleT(1), FileHandleT(2)


def test_what_begins_in_a_header_and_goes_beyond_is_refused_once() -> None:
    """And so is what goes on from there; each handle has its own."""
    reads = PageByPage()
    assert reads.refuses(ONE, 0, 8 * PAGE, HEADER)
    assert not reads.refuses(ONE, 0, 8 * PAGE, HEADER)
    assert reads.refuses(ONE, 8 * PAGE, 32 * PAGE, HEADER)
    assert not reads.refuses(ONE, 8 * PAGE, 32 * PAGE, HEADER)
    assert reads.refuses(OTHER, HEADER - PAGE, 8 * PAGE, HEADER)
    reads.note_closed(ONE)
    assert reads.refuses(ONE, 0, 8 * PAGE, HEADER)


def test_a_part_of_what_was_refused_is_not_refused() -> None:
    """However large the pages are that a kernel asks for then."""
    reads = PageByPage()
    assert reads.refuses(ONE, 0, 8 * PAGE, HEADER)
    assert not reads.refuses(ONE, 2 * PAGE, 6 * PAGE, HEADER)


def test_what_somebody_asks_for_is_not_refused() -> None:
    """Whatever begins behind the header, or is a page alone; and nothing of who reads past the page cache."""
    reads = PageByPage()
    assert not reads.refuses(ONE, HEADER, 8 * PAGE, HEADER)
    assert not reads.refuses(ONE, HEADER - PAGE // 2, PAGE, HEADER)
    reads.note_open(OTHER, FlagT(os.O_DIRECT))
    assert not reads.refuses(OTHER, 0, 8 * PAGE, HEADER)
    reads.note_closed(OTHER)
    assert reads.refuses(OTHER, 0, 8 * PAGE, HEADER)
