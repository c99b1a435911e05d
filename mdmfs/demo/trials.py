"""The trials of ``mdmfs demo --check``: each tries one promise as a user, a program or an attacker would."""

from __future__ import annotations

import datetime as dt
import errno
import hashlib
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Final

import pydicom

from mdmfs.demo.damage import DAMAGES
from mdmfs.demo.eavesdrop import as_seen_by
from mdmfs.demo.ground import LEEWAY, Ground, copy_logs, eventually, expect, expect_refusal, files_with, program, run
from mdmfs.demo.patients import planted_octets
from mdmfs.demo.pki import make_pki
from mdmfs.demo.site import READER, STRANGER, Site, mountpoint_of
from mdmfs.pki.tls import client_context

CT_SHAPE: Final = "(512, 512, 60)"
OUTAGE: Final = frozenset({errno.EHOSTUNREACH, errno.ETIMEDOUT})

_READ_SERIES: Final = """
import sys
import SimpleITK
reader = SimpleITK.ImageSeriesReader()
reader.SetFileNames(reader.GetGDCMSeriesFileNames(sys.argv[1]))
print(reader.Execute().GetSize())
"""


def everything_opens(ground: Ground) -> str:
    """Read every file and compare with what was told before it was opened, and with what another process reads."""
    told = {path: (path.stat().st_size, _told_digest(path)) for path in ground.files()}
    for path, (size, digest) in told.items():
        octets = path.read_bytes()
        expect(len(octets) == size, f"{path} has {len(octets)} bytes and stat said {size}")
        expect(hashlib.sha256(octets).hexdigest() == digest, f"{path} is not what its SHA-256 says")
    listed = run("sha256sum", *map(str, told))
    expect(
        [line.split()[0] for line in listed.splitlines()] == [digest for _, digest in told.values()],
        "a second process reads something else",
    )
    return f"{len(told)} files, {sum(size for size, _ in told.values()) / 2**20:.0f} MiB"


def programs_work(ground: Ground) -> str:
    """Run programs that know nothing of mdmfs on the mount."""
    ct = ground.series("CT")
    size = run(sys.executable, "-c", _READ_SERIES, str(ct[0].parent)).strip()
    expect(size == CT_SHAPE, f"SimpleITK reads a volume of {size}")
    with tempfile.TemporaryDirectory() as folder:
        run("dcm2niix", "-o", folder, str(ct[0].parent))
        expect(any(pathlib.Path(folder).glob("*.nii*")), "dcm2niix wrote no volume")
    originals = _originals(ground.site)
    one_of_each = {path.parent: path for path in reversed(ground.files())}.values()
    for path in one_of_each:
        run("dcmdump", "-q", str(path))
        run("gdcminfo", str(path))
        with pydicom.dcmread(path, stop_before_pixels=True) as dataset:
            original = originals.get(_place_of(dataset))
        if original is not None:
            new = _violations(path) - _violations(original)
            expect(not new, f"dciodvfy has {len(new)} new errors for {path.name}: {sorted(new)[:2]}")
    return f"SimpleITK {size}, {len(one_of_each)} series without a new dciodvfy error"


def nothing_identifying(ground: Ground) -> str:
    """Search all that leaves the hospital for every identifier that was planted, in each encoding."""
    site = ground.site
    with tempfile.TemporaryDirectory() as folder:
        seen = pathlib.Path(folder)
        attributes = [f"{path}\n{_attributes(path)}" for path in ground.files()]
        (seen / "names").write_text("\n".join(attributes), encoding="utf-8", errors="surrogateescape")
        (seen / "wire").write_bytes(_heard(ground, READER))
        copy_logs(site, seen)
        for log in site.hospital_directory.glob("audit*.jsonl"):  # inside, and yet it names no patient
            shutil.copy(log, seen / log.name)
        zones = [seen, ground.mountpoint, site.state / "worker"]
        zones += [site.state / "metadata"]
        zones += [site.state / f"keystore-{number}" for number in range(1, len(site.ports.keystores) + 1)]
        planted = planted_octets()
        found = files_with(planted, zones)
    expect(not found, f"planted values in {found[:3]}")
    return (
        f"{len(planted)} values in none of files, names, attributes, caches, logs, audit log, wire, keystores, metadata"
    )


def stranger_gets_nothing(ground: Ground) -> str:
    """Mount as somebody without rights, who even knows the names."""
    known = [path.relative_to(ground.mountpoint) for path in ground.files()]
    place = mountpoint_of(ground.site.state, STRANGER)
    ground.processes.start_mount(STRANGER, place)
    try:
        seen = list(place.rglob("*"))
        expect(not seen, f"the stranger sees {seen[:3]}")
        for path in known:
            expect_refusal(lambda path=path: (place / path).read_bytes(), {errno.ENOENT}, within=LEEWAY)  # type: ignore[misc]
        expect(place.is_mount(), "the stranger's mount has gone, so that it shows nothing to anybody")
    finally:
        ground.processes.stop("mount-stranger")
    names = {part for path in known for part in path.parts}
    told = _names_in(as_seen_by(ground.site, STRANGER), names)
    expect(not told, f"the hospital tells the stranger {sorted(told)[:3]}")
    expect(_names_in(_heard(ground, READER), names) == names, "the hospital does not tell the reader every name either")
    return f"an empty directory; {len(known)} known names are not there"


def outsiders_get_nothing(ground: Ground) -> str:
    """Connect to every daemon without a certificate, and with one of another CA; the reader's own gets an answer."""
    ports = (ground.site.ports.hospital, ground.site.ports.metadata, *ground.site.ports.keystores)
    with tempfile.TemporaryDirectory() as folder:
        foreign = make_pki(pathlib.Path(folder), keystores=1, now=dt.datetime.now(dt.UTC)).users[READER]
        contexts = [
            client_context(None, ground.site.pki.anchors, check_hostname=False),
            client_context(foreign, ground.site.pki.anchors, check_hostname=False),
        ]
        reader = client_context(ground.site.pki.proxies[READER], ground.site.pki.anchors, check_hostname=False)
        for port in ports:
            for context in contexts:
                answer = _ask(port, context)
                expect(not answer, f"port {port} answered an outsider with {len(answer)} bytes")
            expect(_ask(port, reader).startswith(b"HTTP/1.1 "), f"port {port} does not answer the reader either")
    return f"{len(ports)} daemons answered with no byte, and the reader with more"


def damage_is_noticed(ground: Ground) -> str:
    """Damage the ciphertext in the worker's cache in every way that a disk or an attacker could."""
    path = ground.series("CT")[0]
    digest, guid = _told_digest(path), os.getxattr(path, "user.guid").decode()
    outcomes = []
    for name, damage in DAMAGES.items():
        path.read_bytes()
        with ground.unmounted():
            cached = next((ground.site.cache(READER) / "complete").glob(f"{guid}.*"), None)
            expect(cached is not None, "the file is not in the worker's cache")
            assert cached is not None  # noqa: S101 for the type checker
            whole = cached.read_bytes()
            expect(damage(whole) != whole, f"{name}: the ciphertext is as it was")
            cached.write_bytes(damage(whole))
        try:
            octets = path.read_bytes()
        except OSError as error:
            expect(error.errno == errno.EIO, f"{name}: {error}")
            outcomes.append(f"{name}: EIO")
        else:
            expect(hashlib.sha256(octets).hexdigest() == digest, f"{name}: wrong bytes came out")
            outcomes.append(f"{name}: fetched anew")
    return ", ".join(outcomes)


def keystores_may_fail(ground: Ground) -> str:
    """Stop one keystore, then two, then bring one back."""
    path, deadline = ground.series("CT")[-1], ground.site.deadline + LEEWAY
    ground.processes.stop("keystore-1")
    try:
        ground.remount()
        everything_opens(ground)
        ground.processes.stop("keystore-2")
        try:
            ground.remount()
            refused = expect_refusal(path.read_bytes, OUTAGE, within=deadline)
        finally:
            ground.processes.start_keystore(2)
        back = eventually(path.read_bytes)
    finally:
        ground.processes.start_keystore(1)
    return f"two stopped: {refused}; one back: read after {back:.1f} s"


def pacs_may_fail(ground: Ground) -> str:
    """Stop the PACS with one series cached at the worker and another nowhere."""
    cached, cold = ground.series("CT")[0], ground.series("MR")
    cached.read_bytes()
    guids = [os.getxattr(path, "user.guid").decode() for path in cold]
    with ground.unmounted():
        for guid in guids:
            for file in (ground.site.cache(READER) / "complete").glob(f"{guid}.*"):
                file.unlink()
        ground.processes.stop("hospital")
        shutil.rmtree(ground.site.hospital_directory / "staging")
        ground.processes.start_hospital()
    ground.processes.stop("pacs")
    try:
        cached.read_bytes()
        refused = expect_refusal(cold[0].read_bytes, OUTAGE, within=ground.site.deadline + LEEWAY)
        listed = run("ls", "-lR", str(ground.mountpoint)).count(".dcm")
        expect(listed == len(ground.files()), "ls -l does not list every file")
    finally:
        ground.processes.start_pacs()
    back = eventually(cold[-1].read_bytes)
    return f"cold file: {refused}; {listed} names listed; read {back:.1f} s after the PACS was back"


def mount_may_be_killed(ground: Ground) -> str:
    """Kill the mount's process and mount again at the same place."""
    path = ground.files()[0]
    digest = _told_digest(path)
    ground.processes.stop("mount-reader", signal.SIGKILL)
    expect_refusal(path.read_bytes, {errno.ENOTCONN, errno.ECONNABORTED}, within=LEEWAY)
    begun = time.monotonic()
    ground.processes.start_mount(READER, ground.mountpoint)
    took = time.monotonic() - begun
    expect(hashlib.sha256(path.read_bytes()).hexdigest() == digest, "another file after the new mount")
    return f"mounted again in {took:.1f} s, reads"


def _ask(port: int, context: ssl.SSLContext) -> bytes:
    """Send a request as whoever the context says, and give every byte that is answered."""
    try:
        with (
            socket.create_connection(("127.0.0.1", port), 5) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            secured.sendall(b"POST /v1/list HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n")
            return secured.recv(4096)
    except OSError:
        return b""


def _heard(ground: Ground, user: str) -> bytes:
    """Listen to what a user's worker is told, which is a good deal for one who may read."""
    heard = as_seen_by(ground.site, user)
    sizes = sum(path.stat().st_size for path in ground.files())
    expect(len(heard) > sizes, f"only {len(heard)} bytes were heard where files of {sizes} bytes were asked for")
    return heard


def _names_in(octets: bytes, names: set[str]) -> set[str]:
    return {name for name in names if name.encode() in octets}


def _told_digest(path: pathlib.Path) -> str:
    return os.getxattr(path, "user.mdmfs.sha256").decode()


def _attributes(path: pathlib.Path) -> str:
    return "\n".join(f"{name}={os.getxattr(path, name).decode()}" for name in os.listxattr(path))


def _originals(site: Site) -> dict[Sequence[str], pathlib.Path]:
    """Find the synthetic files by modality, series and instance number; none with a PACS that is not ours."""
    found = {}
    for path in site.pacs_directory.rglob("*.dcm") if site.pacs_directory.exists() else ():
        found[_place_of(pydicom.dcmread(path, stop_before_pixels=True))] = path
    return found


def _place_of(dataset: pydicom.Dataset) -> Sequence[str]:
    return tuple(str(dataset.get(keyword, "")) for keyword in ("Modality", "SeriesNumber", "InstanceNumber"))


def _violations(path: pathlib.Path) -> set[str]:
    done = subprocess.run(  # noqa: S603 dciodvfy
        [program("dciodvfy"), str(path)], check=False, capture_output=True, text=True, errors="replace"
    )
    return {line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")}
