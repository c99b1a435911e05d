"""A staged series through the mount from replicas, beside curl fetching the same bytes with the same credentials.

From Swift by S3 and from XRootD by HTTPS, and the hospital's CPU for it beside that of serving the bytes itself. The
ratio is the lowest of all parts of the bar: rates to 0.7 of curl's, and a tenth of the CPU to what replicas took. The
mount and curl take turns.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import trio

from mdmfs.cli.harvest import harvest_project
from mdmfs.demo.site import PROJECT, READER
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.model.names import Guid
from mdmfs.pki.tls import Credential
from mdmfs.pki.trust import TrustAnchors
from mdmfs.wire.messages.files import MAX_BUNDLE
from mdmfs.wire.peers import PeerJudge, open_client
from mdmfs.worker.configuration import MountConfiguration
from mdmfs.worker.hospital.remote import RemoteHospital
from tests.bench._chain import SLICE_BYTES, SLICES, Chain, chain, timed
from tests.bench._frame import Bench, Measured
from tests.twins.storage_elements import KEY, SECRET, SWIFT, XROOTD, swift, told_missing, xrootd

RATE = 0.7
"""Of curl's."""
CPU = 0.1
"""Of what serving the bytes takes."""
ROUNDS = 3
SECONDS = 300.0
_TICKS = os.sysconf("SC_CLK_TCK")


def measure() -> Measured:
    """Read from the hospital, then from each storage element, every time with a mount that has nothing yet."""
    if missing := told_missing(*SWIFT, XROOTD):
        sys.exit(missing)
    with tempfile.TemporaryDirectory() as folder, chain() as running:
        Path(folder).chmod(0o755)  # xrootd is not root
        running.processes.start_metadata()  # hospitald tries every 2 s to reach one that is away
        trio.run(harvest_project, HospitalConfiguration.read(running.site.hospital_file), PROJECT)
        _read(running)  # from the PACS
        own = _medians([_read(running) for _ in range(ROUNDS)])
        rows = [_row("the hospital itself", own)]
        parts = []
        plain = running.site.hospital_file.read_text(), _project_file(running).read_text()
        elements = {
            "swift": swift(Path(folder) / "swift"),
            "xrootd": xrootd(Path(folder) / "xrootd", running.site.pki),
        }
        for name, element in elements.items():
            with element as storage:  # one at a time: Swift takes a processor also for what nobody waits for
                _configure(running, name, storage.url, *plain)
                _read(running)  # and so have it published
                _wait_for_replicas(running)
                turls = trio.run(_turls, running)
                assert len(turls) == SLICES
                turns = [(_read(running), _curl(running, turls)) for _ in range(ROUNDS)]
            through, bare = (_medians(each) for each in zip(*turns, strict=True))
            rows += [_row(f"{name}, through the mount", through), _row(f"{name}, curl", bare)]
            parts += [bare[0] / through[0] / RATE, own[1] * CPU / through[1]]
    heading = (f"{SLICES} slices of 512 KiB from", "seconds", "MB/s", "hospitald's CPU, ms a file")
    return Measured(heading, rows, min(parts))


def _row(name: str, measured: tuple[float, float]) -> tuple[str, str, str, str]:
    seconds, cpu = measured
    return name, f"{seconds:.2f}", f"{SLICES * SLICE_BYTES / 1e6 / seconds:.0f}", f"{cpu / SLICES * 1e3:.2f}"


def _medians(measured: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Give the medians of seconds and of CPU seconds."""
    seconds, cpu = zip(*measured, strict=True)
    return statistics.median(seconds), statistics.median(cpu)


def _read(running: Chain) -> tuple[float, float]:
    """Read the series with a mount that has nothing; gives seconds, and CPU seconds of hospitald meanwhile."""
    with contextlib.suppress(KeyError):
        running.processes.stop(f"mount-{READER}")
    _put_aside(running.site.cache(READER))
    running.processes.start_mount(READER, running.mountpoint)
    files = [str(path) for path in running.files()]
    assert len(files) == SLICES
    before = _cpu(running.processes.pid("hospital"))
    seconds = timed(lambda: subprocess.run(["cat", *files], stdout=subprocess.DEVNULL, check=True))
    return seconds, _cpu(running.processes.pid("hospital")) - before


def _put_aside(cache: Path) -> None:
    """Leave the mount nothing but the memory of the one before.

    Deleted files would make new ones dear for minutes on an ext4 without a journal; and kept whole they keep their
    pages: others may have gone back to a virtual machine's host, and the first write there took 1 ms of 512 KiB.
    """
    for path in cache.rglob("*"):
        if path.is_file():
            os.truncate(path, 0)
    if cache.exists():
        cache.rename(cache.with_name(f"{cache.name}-{time.monotonic_ns()}"))


def _cpu(pid: int) -> float:
    """Give the CPU seconds of a process and of those that it has started."""
    used = 0.0
    for each in _with_children(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        used += (int(fields[11]) + int(fields[12])) / _TICKS
    return used


def _with_children(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from _with_children(int(child))


def _project_file(running: Chain) -> Path:
    return running.site.hospital_file.parent / "projects" / f"{PROJECT}.toml"


def _configure(running: Chain, name: str, url: str, hospital: str, project: str) -> None:
    """Let hospitald start anew with one storage element."""
    keys = running.site.hospital_file.parent / "s3.toml"
    keys.touch(0o600)
    keys.write_text(f'access_key_id = "{KEY}"\nsecret_access_key = "{SECRET}"\n')
    kind = 'kind = "s3"\ncredentials = "s3.toml"' if url.startswith("http:") else 'kind = "webdav"'
    running.site.hospital_file.write_text(f'{hospital}\n[[storage]]\nname = "{name}"\nurl = "{url}"\n{kind}\n')
    _project_file(running).write_text(f'{project}\n[replicas]\nat = ["{name}"]\n')
    running.processes.stop("hospital")
    running.processes.start_hospital()


def _wait_for_replicas(running: Chain) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if len(trio.run(_turls, running)) == SLICES:
            return
        time.sleep(1)


async def _turls(running: Chain) -> list[str]:
    """Ask for the URLs as a mount does."""
    configuration = MountConfiguration.read(running.site.mount_file(READER))
    credential = Credential.of_proxy(configuration.path(configuration.credential.proxy))
    anchors = TrustAnchors(configuration.path(configuration.trust))
    client = open_client(
        f"127.0.0.1:{running.site.ports.hospital}", configuration.hospital.dn, credential, anchors, PeerJudge(anchors)
    )
    hospital = RemoteHospital(lambda: client, deadline=60, mount=secrets.token_bytes(16))
    guids = [Guid.parse(os.getxattr(path, "user.guid").decode()) for path in running.files()]
    turls = []
    for begin in range(0, len(guids), MAX_BUNDLE):
        answer = await hospital.transfers(guids[begin : begin + MAX_BUNDLE], [], are_ahead=True)
        turls += [it.turl for it in answer.transfers if it.turl]
    await client.aclose()
    return turls


def _curl(running: Chain, turls: list[str]) -> tuple[float, float]:
    """Fetch them one after the other over one connection, as a program reads files; gives what ``_read`` does."""
    options = ["--cacert", str(running.site.pki.anchors.path)]
    options += ["--cert", str(running.site.mount_file(READER).parent / f"../pki/{READER}.proxy")]
    asked = "".join(f'url = "{turl}"\noutput = "/dev/null"\n' for turl in turls)
    command = ["curl", "--silent", "--show-error", "--fail", *options, "--config", "-"]
    return timed(lambda: subprocess.run(command, input=asked.encode(), check=True)), 0.0


BENCH = Bench(measure, bar=1)
