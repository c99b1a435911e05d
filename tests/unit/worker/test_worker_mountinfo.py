"""What is mounted where: places whose names are anybody's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mdmfs.worker.fuse.mountinfo import entry_of, escaped

READS = """
import subprocess
import sys
from pathlib import Path
from mdmfs.worker.fuse.mountinfo import entry_of
place = Path(sys.argv[1])
place.mkdir()
subprocess.run(["mount", "-t", "tmpfs", "none", str(place)], check=True)
found = entry_of(place)
print(found.kind, found.mountpoint == place)
"""


@pytest.mark.parametrize("name", ["a b", "a\x0bb", "a\rb", "a\u2028b", "a\\b", "a\nb", "a\tb", "a#b"])
def test_a_place_may_have_any_name(tmp_path: Path, name: str) -> None:
    """The kernel writes some signs in octal digits, and no others."""
    typed = ["unshare", "--mount", "--", sys.executable, "-c", READS, str(tmp_path / name)]
    done = subprocess.run(typed, capture_output=True, text=True, check=False)
    assert done.stdout == "tmpfs True\n", done.stderr


def test_a_place_is_written_as_the_kernel_writes_it() -> None:
    """So that it can be compared in a shell."""
    assert escaped(Path("/a b\\c\td\ne#")) == "/a\\040b\\134c\\011d\\012e#"
    assert entry_of(Path("/nowhere/at all")) is None
