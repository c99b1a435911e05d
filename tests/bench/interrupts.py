"""How soon a reader who waits in open or in read is free after Ctrl-C or SIGKILL.

There is no peer to measure beside: the ratio is the longest wait in seconds beside 0.3.
"""

from __future__ import annotations

import signal
import tempfile
import time
from pathlib import Path

from tests.bench._frame import Bench, Measured
from tests.fuse.test_fuse_mount import BIG_FOLDER, mounted
from tests.twins.waiting import OPEN, READ, start_reader, wait_until_in

ROUNDS = 20


def measure() -> Measured:
    """Let readers wait for what does not come, and kill them."""
    worst, rows = 0.0, []
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name, mounted(Path(name), deadline=300.0) as mount:
        for call, command in ((OPEN, "slow 600"), (READ, "stop_after 3000000")):
            mount.tell("slow 0")
            mount.tell(command)
            for number in (signal.SIGINT, signal.SIGKILL):
                waits = []
                for _ in range(ROUNDS):
                    reader = start_reader(mount.file(1, BIG_FOLDER))
                    wait_until_in(reader.pid, call)
                    begun = time.perf_counter()
                    reader.send_signal(number)
                    assert reader.wait(30) == -number
                    waits.append(time.perf_counter() - begun)
                worst = max(worst, *waits)
                rows.append((call, number.name, f"{sum(waits) / ROUNDS * 1e3:.0f}", f"{max(waits) * 1e3:.0f}"))
    return Measured(("blocked in", "signal", "mean ms", "worst ms"), rows, worst)


BENCH = Bench(measure, bar=0.3, at_most=True)
