"""What the trials are made on, and how each says that a promise does not hold."""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final

from mdmfs.demo.processes import Processes
from mdmfs.demo.site import READER, Site

LEEWAY: Final = 3.0
"""Seconds beyond the deadline that an answer may take on a busy machine."""
RECOVERY_SECONDS: Final = 15.0
PROGRAM_SECONDS: Final = 120.0


class BrokenPromiseError(Exception):
    """Something is not as promised."""


class Ground:
    """What the trials are made on."""

    def __init__(self, site: Site, processes: Processes, mountpoint: pathlib.Path) -> None:
        """Take a running site, mounted for the reader."""
        self.site = site
        self.processes = processes
        self.mountpoint = mountpoint

    def files(self) -> list[pathlib.Path]:
        """List every file on the mount."""
        found = [path for path in sorted(self.mountpoint.rglob("*")) if path.is_file()]
        expect(bool(found), "there is no file on the mount")
        return found

    def series(self, modality: str) -> list[pathlib.Path]:
        """List the files of the longest series of a modality."""
        by_series = collections.defaultdict(list)
        for path in self.files():
            if path.parent.name.endswith(f"-{modality}"):
                by_series[path.parent].append(path)
        expect(bool(by_series), f"there is no series of modality {modality} on the mount")
        return max(by_series.values(), key=len)

    @contextlib.contextmanager
    def unmounted(self) -> Iterator[None]:
        """Have no mount during the block, and a new one after it, with nothing in the kernel's caches."""
        self.processes.stop("mount-reader")
        try:
            yield
        finally:
            self.processes.start_mount(READER, self.mountpoint)

    def remount(self) -> None:
        """Forget everything that is not on disk."""
        with self.unmounted():
            pass


def expect(is_so: bool, otherwise: str) -> None:  # noqa: FBT001 reads like an assertion
    """Raise ``BrokenPromiseError`` if it is not so."""
    if not is_so:
        raise BrokenPromiseError(otherwise)


def expect_refusal(act: Callable[[], object], expected: frozenset[int] | set[int], *, within: float) -> str:
    """Expect an act to fail with one of these errnos in time; tell which and when."""
    begun = time.monotonic()
    try:
        act()
    except OSError as error:
        took = time.monotonic() - begun
        name = errno.errorcode.get(error.errno or 0, "?")
        expect(error.errno in expected, f"failed with {name}")
        expect(took <= within, f"failed with {name} only after {took:.1f} s")
        return f"{name} after {took:.1f} s"
    message = "it was let in"
    raise BrokenPromiseError(message)


def eventually(act: Callable[[], object]) -> float:
    """Try again until it works; tell after how many seconds."""
    begun = time.monotonic()
    while True:
        try:
            act()
        except OSError as error:
            if time.monotonic() - begun > RECOVERY_SECONDS:
                message = f"does not recover: {error}"
                raise BrokenPromiseError(message) from error
            time.sleep(0.1)
        else:
            return time.monotonic() - begun


def run(*command: str) -> str:
    """Run one of Debian's programs, which has to succeed; give what it says."""
    done = subprocess.run(  # noqa: S603 programs of Debian
        [program(command[0]), *command[1:]],
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=PROGRAM_SECONDS,
        env={**os.environ, "LC_ALL": "C"},
    )
    expect(done.returncode == 0, f"{command[0]} ends with {done.returncode}: {done.stderr.strip()[:200]}")
    return done.stdout


def program(name: str) -> str:
    """Find a program that has to be installed."""
    found = shutil.which(name)
    expect(found is not None, f"{name} is not installed")
    return str(found)


def files_with(planted: Collection[bytes], zones: Sequence[pathlib.Path]) -> list[str]:
    """Name the files below some directories in which a planted value stands; what finds nothing was seen to find."""
    with tempfile.TemporaryDirectory() as folder:
        patterns, control = pathlib.Path(folder) / "patterns", pathlib.Path(folder) / "control"
        patterns.write_bytes(b"\n".join(sorted(planted)))
        control.write_bytes(b"\n".join(sorted(planted)) + b"\n")
        found = int(run("grep", "-c", "-a", "-F", "-f", str(patterns), str(control)))
        expect(found == len(planted), f"the search finds {found} of {len(planted)} planted values where they are")
        for zone in zones:
            expect(any(path.is_file() for path in zone.rglob("*")), f"there is nothing to search in {zone}")
        searched = subprocess.run(  # noqa: S603 grep
            [program("grep"), "-r", "-l", "-a", "-F", "-f", str(patterns), *map(str, zones)],
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, "LC_ALL": "C"},
        )
    expect(searched.returncode in {0, 1}, f"the search fails: {searched.stderr[:200]}")
    return searched.stdout.splitlines()


def copy_logs(site: Site, to: pathlib.Path) -> None:
    """Take the logs of everything but the PACS, which is no part of mdmfs."""
    for log in site.logs.glob("*.log"):
        if log.stem != "pacs":
            shutil.copy(log, to / log.name)
