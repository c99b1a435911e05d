"""How much memory a mount takes: the short form of ``./run bench memory``."""

from __future__ import annotations

import os
import random
from pathlib import Path

from tests.fuse.test_fuse_mount import mounted
from tests.twins.mixed_load import call_at_random, read_by_turns, resident_mib

FOLDER = "/grid/medical/amc/long"
FILES = 16
SIZE = 2**20 + 1
HANDLES = 500
CALLS = 50


def test_a_thousand_readers_and_a_mixed_load_take_no_more_and_no_more_memory(tmp_path: Path) -> None:
    """At most 256 MiB for the readers; and what each call of the load takes, it gives back."""
    chance = random.Random(7)  # noqa: S311 no secret
    with mounted(tmp_path, folders=[[FOLDER, FILES, SIZE]]) as mount:
        paths = sorted(mount.file(1, FOLDER).parent.iterdir())
        daemon = int(os.getxattr(mount.point, "user.mdmfs.pid"))
        before = resident_mib(daemon)
        peak = max(resident_mib(daemon) for _ in read_by_turns(paths, SIZE, HANDLES, 1, chance))
        assert peak - before <= 256
        marks = []
        for _ in range(3):
            for _ in range(CALLS):
                call_at_random(paths, SIZE, chance)
            marks.append(resident_mib(daemon))
        assert marks[2] - marks[0] <= 16
