"""Two mounts of the same bytes: ours over the twin hospital, and gocryptfs; both can be mounted anew."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Protocol

import structlog
import trio

from mdmfs.daemon.process import collect_seldom
from mdmfs.demo.pki import delegate
from mdmfs.worker.cache.store import CiphertextCache
from mdmfs.worker.hospital.remote import RemoteHospital
from mdmfs.worker.lease import Lease
from mdmfs.worker.service import Mounting, serve_mount
from mdmfs.worker.serving import Ports, Site
from tests.bench._floor import EAGER
from tests.twins import certificates as make
from tests.twins.hospital import ROOT, TwinHospital
from tests.twins.hospital_service import HospitalOnTheWire
from tests.twins.octets import octets
from tests.twins.wire import calling, serving

LEASE_SECONDS = 3600.0
PASSWORD = "-extpass=echo bench"  # noqa: S105 nothing is secret in it
Folder = tuple[str, int, int]
"""Name, number of files, size of each."""


class MountOfBytes(Protocol):
    """A mount to measure."""

    root: Path

    def mount(self) -> None:
        """Mount; the kernel holds nothing of it yet."""

    def unmount(self) -> None:
        """Unmount."""


class Ours:
    """A mount of mdmfs in a process of its own; a cold reading fills its cache."""

    def __init__(self, process: subprocess.Popen[str], mountpoint: Path) -> None:
        self.root = mountpoint / "a"
        self._mountpoint = mountpoint
        self._process = process

    @property
    def pid(self) -> int:
        """The process that serves it, and has the twin hospital in it."""
        return self._process.pid

    def mount(self) -> None:
        """See ``MountOfBytes``."""
        self._tell("mount")

    def unmount(self) -> None:
        """See ``MountOfBytes``."""
        subprocess.run(["fusermount3", "-u", str(self._mountpoint)], check=True)
        self._expect("gone")

    def _tell(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        self._expect("ready")

    def _expect(self, word: str) -> None:
        out: IO[str] | None = self._process.stdout
        assert out is not None
        assert out.readline() == word + "\n"


class Gocryptfs:
    """A mount of gocryptfs, as Debian ships it."""

    def __init__(self, cipher: Path, mountpoint: Path) -> None:
        self.root = mountpoint
        self._cipher = cipher
        command = ["gocryptfs", "-init", "-q", "-scryptn=10", PASSWORD, str(cipher)]
        subprocess.run(command, check=True, capture_output=True)

    def mount(self) -> None:
        """See ``MountOfBytes``."""
        command = ["gocryptfs", "-q", PASSWORD, str(self._cipher), str(self.root)]
        subprocess.run(command, check=True, capture_output=True)

    def unmount(self) -> None:
        """See ``MountOfBytes``."""
        subprocess.run(["fusermount3", "-u", str(self.root)], check=True)


class Floor:
    """A mount of pyfuse3 that decides nothing: what names and opens cost at least."""

    def __init__(self, root: Path, shown: Sequence[Folder] | Path, *, is_eager: bool = False) -> None:
        """``shown`` are folders of empty files, or the files of a folder, then below ``COPIES``.

        ``is_eager``: it waits for requests as our mounts do.
        """
        self.root = root
        self._loop = [EAGER] if is_eager else []
        self._shown = str(shown) if isinstance(shown, Path) else json.dumps(shown)
        self._process: subprocess.Popen[str] | None = None

    def mount(self) -> None:
        """See ``MountOfBytes``."""
        command = [sys.executable, "-m", "tests.bench._floor", str(self.root), self._shown, *self._loop]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def unmount(self) -> None:
        """See ``MountOfBytes``."""
        subprocess.run(["fusermount3", "-u", str(self.root)], check=True)
        assert self._process is not None
        assert self._process.wait() == 0


@contextlib.contextmanager
def our_mount(folder: Path, folders: Sequence[Folder]) -> Iterator[Ours]:
    """Make a hospital with these folders below ``a``, and a mount of it that is not mounted yet."""
    mountpoint = folder / "ours"
    mountpoint.mkdir()
    scene = {"folders": folders, "mountpoint": str(mountpoint), "cache": str(folder / "cache")}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.bench._mounts", json.dumps(scene)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Ours(process, mountpoint)
        finally:
            assert process.stdin is not None
            process.stdin.close()


@contextlib.contextmanager
def both_mounts(folders: Sequence[Folder]) -> Iterator[tuple[Ours, Gocryptfs]]:
    """Make both, the bytes written to one and read once by the other; neither is mounted."""
    if shutil.which("gocryptfs") is None:
        sys.exit("this bench needs Debian's gocryptfs")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        for part in ("cipher", "theirs"):
            (folder / part).mkdir()
        theirs = Gocryptfs(folder / "cipher", folder / "theirs")
        theirs.mount()
        for part, count, size in folders:
            (theirs.root / part).mkdir()
            for number in range(1, count + 1):
                (theirs.root / part / f"{number:06}.dcm").write_bytes(octets(size, f"{part}{number}"))
        theirs.unmount()
        with our_mount(folder, folders) as ours:
            yield ours, theirs


def files_of(mount: MountOfBytes, folder: Folder) -> list[str]:
    """Name the files of a folder, as the shell does for ``cat *``."""
    path = mount.root / folder[0]
    files = sorted(str(path / name) for name in os.listdir(path))  # noqa: PTH208 it is what a shell does
    assert len(files) == folder[1]
    return files


def seconds_to_cat(files: Sequence[str]) -> float:
    """Read files one after the other, as ``cat`` does."""
    begun = time.perf_counter()
    subprocess.run(["cat", *files], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begun


async def _serve(scene: dict[str, str], hospital: TwinHospital) -> None:
    """Mount whenever a line says so, over real TLS, until the input ends."""
    shown, proxy = make.host("hospital"), delegate(make.person("jane"), make.VALID)
    async with (
        trio.open_nursery() as nursery,
        serving(HospitalOnTheWire(hospital).service(), shown=shown) as address,
        calling(address, proxy, expected=shown.dn) as client,
    ):
        keystores = await hospital.open_keystores(nursery)
        while await trio.to_thread.run_sync(sys.stdin.readline):
            cache = CiphertextCache(Path(scene["cache"]), 2**33)
            async with trio.open_nursery() as mounted:
                mountpoint = Path(scene["mountpoint"])

                async def serve(task_status: trio.TaskStatus[None], cache: CiphertextCache = cache) -> None:
                    await serve_mount(
                        [Site(Ports(RemoteHospital(lambda: client, deadline=60), lambda: keystores), cache, Lease())],
                        Mounting(root=ROOT, mountpoint=mountpoint, deadline=60),  # noqa: B023 it is used before the next round
                        task_status=task_status,
                    )

                await mounted.start(serve)
                _say("ready")
            _say("gone")
        nursery.cancel_scope.cancel()


def _say(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


def main() -> None:
    """Make what the argument describes, then serve."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    scene = json.loads(sys.argv[1])
    hospital = TwinHospital()
    hospital.lease = LEASE_SECONDS
    for part, count, size in scene["folders"]:
        for number in range(1, count + 1):
            hospital.add_file(f"{ROOT}/a/{part}/{number:06}.dcm", octets(size, f"{part}{number}"))
    collect_seldom()  # as a mount does; this one has a hospital in it
    trio.run(_serve, scene, hospital)


if __name__ == "__main__":
    main()
