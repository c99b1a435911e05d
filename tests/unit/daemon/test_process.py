"""A daemon that holds keys leaves no core file, and still finds its own files."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]

FORBID = """
import ctypes, resource
from mdmfs.daemon.process import forbid_core_dumps
_, hard = resource.getrlimit(resource.RLIMIT_CORE)
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
forbid_core_dumps()
print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""

DUMP = FORBID + "import os, sys; sys.stdout.flush(); os.chdir(sys.argv[1]); os.abort()"

READ_OWN_FILES = (
    FORBID
    + """
import os, sys
if os.geteuid() == 0:
    os.setuid(65534)
with open(sys.argv[1], "rb") as opened, open(f"/proc/self/fd/{opened.fileno()}", "rb") as again:
    print(again.read())
"""
)


def test_neither_limit_nor_kernel_lets_memory_out(tmp_path: Path) -> None:
    """The limit is zero, the process not dumpable, and an abort leaves nothing behind."""
    ended = _run(DUMP, str(tmp_path))
    assert ended.stdout == "(0, 0) 0\n"
    assert ended.returncode == -signal.SIGABRT
    assert list(tmp_path.iterdir()) == []


def test_a_daemon_without_root_still_reads_what_it_has_open() -> None:
    """Certificates are loaded again through /proc/self/fd, which then belongs to root."""
    ended = _run(READ_OWN_FILES, "/etc/hostname")
    assert ended.stdout == f"(0, 0) 0\n{Path('/etc/hostname').read_bytes()!r}\n", ended.stderr


def _run(program: str, argument: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, argument]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
