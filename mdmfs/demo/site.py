"""A whole site in one folder: PKI, PACS, hospital, keystores and mounts, each with its configuration file."""

from __future__ import annotations

import dataclasses
import datetime as dt
import pathlib
import shutil
import socket
from collections.abc import Sequence
from typing import Final

from mdmfs.demo.patients import PlantedFile, included_patients, write_patients
from mdmfs.demo.pki import USERS, ThrowAwayPki, make_pki
from mdmfs.hospital.assembly import read_policy
from mdmfs.model.errors import ConfigurationError
from mdmfs.model.names import Lfn
from mdmfs.worker.fuse.mount import clean_up_stale

READER: Final = "reader"
STRANGER: Final = "stranger"
KEYSTORES: Final = 3
HOSPITAL: Final = "amc"
PROJECT: Final = "neuro"
POLICY: Final = "research"
PACS_TITLE: Final = "DEMOPACS"
_MARK: Final = ".mdmfs-demo"
_PATIENTS_MARK: Final = ".complete"


@dataclasses.dataclass(frozen=True, slots=True)
class Ports:
    """Where everything listens, on loopback."""

    hospital: int
    keystores: tuple[int, ...]
    pacs: int
    dicom: int
    """The hospital's own SCP."""
    metadata: int

    @classmethod
    def free(cls, keystores: int = KEYSTORES) -> Ports:
        """Find ports that are free now."""
        with_sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(keystores + 4)]
        numbers = [opened.getsockname()[1] for opened in with_sockets]
        for opened in with_sockets:
            opened.close()
        return cls(numbers[0], tuple(numbers[4:]), numbers[1], numbers[2], numbers[3])


@dataclasses.dataclass(frozen=True, slots=True)
class Site:
    """Where the files of a site are."""

    state: pathlib.Path
    ports: Ports
    pki: ThrowAwayPki
    deadline: float
    """Seconds that an open waits."""

    @property
    def pacs_directory(self) -> pathlib.Path:
        """Where our PACS keeps its images."""
        return self.state / "pacs"

    @property
    def hospital_file(self) -> pathlib.Path:
        """The hospital's configuration."""
        return self.state / "hospital" / "hospital.toml"

    @property
    def hospital_directory(self) -> pathlib.Path:
        """What the hospital keeps."""
        return self.state / "hospital" / "data"

    @property
    def metadata_file(self) -> pathlib.Path:
        """The metadata service's configuration."""
        return self.state / "metadata" / "metadata.toml"

    @property
    def logs(self) -> pathlib.Path:
        """Where the processes write."""
        return self.state / "logs"

    @property
    def project(self) -> Lfn:
        """The project's directory."""
        return Lfn((HOSPITAL, PROJECT))

    def keystore_file(self, number: int) -> pathlib.Path:
        """Give the configuration of a keystore, from 1."""
        return self.state / f"keystore-{number}" / "keystore.toml"

    def mount_file(self, user: str) -> pathlib.Path:
        """Give the configuration of a user's mount."""
        return self.state / "worker" / f"{user}.toml"

    def cache(self, user: str) -> pathlib.Path:
        """Give the folder where a user's mount keeps ciphertext."""
        return self.state / "worker" / f"{user}-cache"


def mountpoint_of(state: pathlib.Path, user: str) -> pathlib.Path:
    """Give the place of a user's mount: the reader's has the grid's own name."""
    return state / "grid" / ("medical" if user == READER else user)


def make_site(
    state: pathlib.Path, *, pacs: str, inclusion: pathlib.Path | None, deadline: float, spare: int = 0
) -> Site:
    """Make a new site in a folder of our own; what an earlier run left there goes, but for the PACS's images.

    ``pacs`` is ``AET@HOST:PORT`` of a real one, or empty for ours. ``spare`` is how many keystores may be started
    beyond those that hospital and mounts are told of. Raises ``ConfigurationError`` for a folder that no demonstration
    made.
    """
    _clear(state)
    keystores = KEYSTORES + spare
    pki = make_pki(state / "pki", keystores=keystores, now=dt.datetime.now(dt.UTC))
    site = Site(state, Ports.free(keystores), pki, deadline)
    site.logs.mkdir()
    _write_hospital(site, pacs or f"{PACS_TITLE}@127.0.0.1:{site.ports.pacs}", inclusion)
    _write(site.metadata_file, _metadata_toml(site))
    for number in range(1, keystores + 1):
        _write(site.keystore_file(number), _keystore_toml(site, number))
    for user in site.pki.users:
        _write(site.mount_file(user), _mount_toml(site, user))
    return site


def fill_pacs(site: Site) -> Sequence[PlantedFile]:
    """Write the synthetic patients, unless an earlier run has."""
    mark = site.pacs_directory / _PATIENTS_MARK
    if not mark.exists():
        shutil.rmtree(site.pacs_directory, ignore_errors=True)
        written = write_patients(site.pacs_directory)
        mark.touch()
        return written
    return ()


def _clear(state: pathlib.Path) -> None:
    if state.exists() and any(state.iterdir()) and not (state / _MARK).exists():
        message = f"{state} is not empty and no demonstration made it"
        raise ConfigurationError(message, what_to_do="choose another --state")
    for user in USERS:
        clean_up_stale(mountpoint_of(state, user))
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    (state / _MARK).touch()
    for entry in state.iterdir():
        if entry.name in {_MARK, "pacs"} or entry.is_mount():
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _write(path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _write_hospital(site: Site, pacs: str, inclusion: pathlib.Path | None) -> None:
    folder = site.hospital_file.parent
    _write(site.hospital_file, _hospital_toml(site, pacs))
    _write(folder / "projects" / f"{PROJECT}.toml", _project_toml(site))
    listed = "".join(f"patient {one.patient_id}^^^{one.issuer}\n" for one in included_patients())
    _write(folder / "projects" / f"{PROJECT}.list", inclusion.read_text(encoding="utf-8") if inclusion else listed)


def _hospital_toml(site: Site, pacs: str) -> str:
    return f"""\
[hospital]
name = "{HOSPITAL}"
listen = "127.0.0.1:{site.ports.hospital}"
directory = "data"
projects = "projects"
recall_deadline = {site.deadline}

[tls]
{_tls_toml("hospital")}
[dicom]
listen = "127.0.0.1:{site.ports.dicom}"
settle = 0

[metadata]
address = "127.0.0.1:{site.ports.metadata}"
dn = "{site.pki.dns["metadata"]}"

[[pacs]]
name = "main"
address = "{pacs}"
issuer = "AMC"
{_keystore_peers(site)}"""


def _project_toml(site: Site) -> str:
    until = (dt.datetime.now(dt.UTC) + dt.timedelta(days=30)).date()
    return f"""\
name = "{PROJECT}"
purpose = "to show mdmfs at work on synthetic patients"
legal_reference = "none needed: nobody here exists"
policy = "{POLICY}"
pacs = ["main"]
inclusion = "{PROJECT}.list"
until = {until}

[approval]
approver = "the demonstration"
date = {dt.datetime.now(dt.UTC).date()}
policy_digest = "{read_policy(POLICY).digest.hex()}"

[access]
owner = "{site.pki.dns["hospital"]}"
readers = ["{site.pki.dns["reader"]}"]
"""


def _keystore_toml(site: Site, number: int) -> str:
    name = f"keystore-{number}"
    return f"""\
[keystore]
name = "{name}"
listen = "127.0.0.1:{site.ports.keystores[number - 1]}"
directory = "shelf"
hospitals = ["{site.pki.dns["hospital"]}"]

[tls]
{_tls_toml(name)}"""


def _metadata_toml(site: Site) -> str:
    return f"""\
[metadata]
listen = "127.0.0.1:{site.ports.metadata}"
database = "data/metadata.sqlite"
hospital = "{site.pki.dns["hospital"]}"

[tls]
{_tls_toml("metadata")}"""


def _mount_toml(site: Site, user: str) -> str:
    return f"""\
trust = "../pki/ca.pem"

[mount]
deadline = {site.deadline}

[hospital]
address = "127.0.0.1:{site.ports.hospital}"
dn = "{site.pki.dns["hospital"]}"

[credential]
proxy = "../pki/{user}.proxy"

[cache]
directory = "{user}-cache"
size = "2 GiB"

[[metadata]]
name = "{HOSPITAL}"
address = "127.0.0.1:{site.ports.metadata}"
dn = "{site.pki.dns["metadata"]}"
{_keystore_peers(site)}"""


def _tls_toml(name: str) -> str:
    return f"""\
certificate = "../pki/{name}.pem"
key = "../pki/{name}.key"
trust = "../pki/ca.pem"
"""


def _keystore_peers(site: Site) -> str:
    return "".join(keystore_peer(site, number) for number in range(1, KEYSTORES + 1))


def keystore_peer(site: Site, number: int, port: int = 0) -> str:
    """Say in a configuration who a keystore is; another port than its own may lead to it."""
    return f"""
[[keystores]]
name = "keystore-{number}"
address = "127.0.0.1:{port or site.ports.keystores[number - 1]}"
dn = "{site.pki.dns[f"keystore-{number}"]}"
"""
