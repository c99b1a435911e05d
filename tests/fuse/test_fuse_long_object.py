"""A long object through real processes: read while it arrives, in little memory; altered, it is an error."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from mdmfs.demo.site import READER
from tests.bench._long_object import FRAME_BYTES, long_object

FRAMES = 8


def test_a_long_object_is_read_while_it_arrives_and_refused_where_it_was_altered(tmp_path: Path) -> None:
    """Of 64 MiB the first pixels come before the PACS has read the last; nothing stays of an altered one."""
    with long_object(tmp_path, FRAMES) as long:
        with long.held_back():
            first = long.read_first_byte()
        assert first.sent <= long.pixels // 2
        assert long.read_all() > FRAMES * FRAME_BYTES
        assert long.cached()
        resident = [long.resident(name) for name in ("hospital", f"mount-{READER}")]
        assert max(resident) < 300 * 2**20
        long.alter_near_the_end()
        long.forget()
        with pytest.raises(OSError, match="Input/output") as refused:
            long.read_all()
        assert refused.value.errno == errno.EIO
        assert (long.staged(), long.cached()) == ([], [])
