"""A site as a grid has it: users of a VO with VOMS proxies, a CA directory, and programs that know nothing of us."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import trio
from cryptography.hazmat.primitives import serialization

from mdmfs.cli.harvest import harvest_project
from mdmfs.cli.mounted import open_hospital
from mdmfs.demo.patients import write_patients
from mdmfs.demo.people import SAMPLES, Person
from mdmfs.demo.pki import Issued, delegate
from mdmfs.demo.processes import Processes, running
from mdmfs.demo.site import KEYSTORES, PROJECT, READER, Site, make_site
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.hospital.dicom.pacs import PacsAddress
from mdmfs.model.names import Guid
from mdmfs.wire.messages.files import DESCRIBE_PATH, Describe, FileDescription
from mdmfs.worker.configuration import MountConfiguration
from tests.twins import certificates as make
from tests.twins.attributes import VO, Ac, carrying
from tests.twins.grid import make_grid

GROUP: Final = f"/{VO}/neuro"
VOMS: Final = make.host("voms")
MEMBER: Final = make.person("member of the VO")
LISTER: Final = make.person("lister")
"""May enter every directory and read nothing."""
OUTSIDER: Final = make.person("outsider")
SECONDS: Final = 60.0


def voms_proxy() -> Issued:
    """Make a proxy of the member that says he is in the group."""
    return carrying([Ac(MEMBER.leaf, VOMS, [GROUP]).der()]).of(MEMBER)


@dataclasses.dataclass(frozen=True, slots=True)
class GridSite:
    """A site that runs."""

    site: Site
    processes: Processes
    folder: Path

    @property
    def url(self) -> str:
        """The root of the names, as WebDAV."""
        return f"https://localhost:{self.site.ports.hospital}/grid/medical"

    @property
    def anchors(self) -> Path:
        """The CA directory."""
        return self.folder / "certificates"

    def proxy(self, user: str) -> Path:
        """Where the proxy of ``member``, ``lister`` or ``outsider`` is."""
        return self.folder / f"{user}.proxy"

    def environment(self, user: str) -> Mapping[str, str]:
        """Say what programs of the grid look at."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("X509_", "BEARER"))}
        return ours | {
            "X509_USER_PROXY": str(self.proxy(user)),
            "X509_CERT_DIR": str(self.anchors),
            "GFAL_PYTHONBIN": "/usr/bin/python3",
            "HOME": str(self.folder),
        }

    def run(self, user: str, *command: str) -> subprocess.CompletedProcess[bytes]:
        """Run a program as somebody; what it says on standard error comes with its output."""
        return subprocess.run(
            command,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SECONDS,
            env=self.environment(user),
            cwd=self.folder,
        )

    def mdmfs(self, user: str, *typed: str) -> subprocess.CompletedProcess[bytes]:
        """Run a command of ours as somebody."""
        return self.run(user, sys.executable, "-m", "mdmfs.cli", *typed)

    def ask(self, user: str, method: str, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """Ask over HTTP as somebody, with Python's own client."""
        context = ssl.create_default_context(cafile=str(self.site.state / "pki" / "ca.pem"))
        context.load_cert_chain(self.proxy(user))
        port = self.site.ports.hospital
        connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=SECONDS)
        with contextlib.closing(connection):
            connection.request(method, path, headers=dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read()

    def mount_file(self, user: str) -> Path:
        """Give a mount's configuration for somebody; the ``hospital`` shows its own certificate."""
        text = self.site.mount_file(READER).read_text()
        before = 'proxy = "../pki/reader.proxy"'
        assert before in text
        after = f'proxy = "{self.proxy(user)}"'
        if user == "hospital":
            after = 'certificate = "../pki/hospital.pem"\nkey = "../pki/hospital.key"'
        file = self.site.mount_file(READER).with_name(f"{user}-grid.toml")
        file.write_text(text.replace(before, after).replace("reader-cache", f"{user}-grid-cache"))
        return file

    def digest(self, guid: Guid) -> bytes:
        """Give the SHA-256 that was registered of a file."""

        async def ask() -> bytes:
            client = open_hospital(MountConfiguration.read(self.mount_file("member")))
            deadline = trio.current_time() + SECONDS
            found = await client.call(DESCRIBE_PATH, Describe(guid.octets), FileDescription, deadline=deadline)
            await client.aclose()
            return found.sha256

        return trio.run(ask)


@contextlib.contextmanager
def grid_site(
    folder: Path, people: Sequence[Person] = (SAMPLES,), *, deadline: float = 20.0, pacs: Sequence[PacsAddress] = ()
) -> Iterator[GridSite]:
    """Run a PACS, keystores and a hospital that let the VO's group in, with everything registered.

    With ``pacs`` these are asked in place of our own, for all images of the patient ``TEST-1``.
    """
    inclusion = folder / "inclusion.list"
    inclusion.write_text("patient TEST-1^^^AMC\n")
    told = [f"{one.ae_title}@{one.host}:{one.port}" for one in pacs]
    first = told[0] if told else ""
    site = make_site(folder / "site", pacs=first, inclusion=inclusion if told else None, deadline=deadline)
    if told:
        _name_pacs(site, told)
    else:
        write_patients(site.pacs_directory, people)
    _let_the_vo_in(site, folder)
    proxies = {
        "member": voms_proxy(),
        "lister": delegate(LISTER, make.VALID),
        "outsider": delegate(OUTSIDER, make.VALID),
    }
    for name, issued in proxies.items():
        issued.save_proxy(folder / f"{name}.proxy")
    with running(site) as processes:
        if not told:
            processes.start_pacs()
        processes.start_keystores()
        processes.start_hospital()
        outcome = trio.run(harvest_project, HospitalConfiguration.read(site.hospital_file), PROJECT)
        assert outcome.failures == []
        assert outcome.registered
        yield GridSite(site, processes, folder)


def _name_pacs(site: Site, told: Sequence[str]) -> None:
    """Have the hospital and the project know several PACSs."""
    tables = [
        f'\n[[pacs]]\nname = "pacs-{number}"\naddress = "{address}"\nissuer = "AMC"\n'
        for number, address in enumerate(told)
    ]
    site.hospital_file.write_text(site.hospital_file.read_text() + "".join(tables[1:]))
    names = ["main", *(f"pacs-{number}" for number in range(1, len(told)))]
    project = site.hospital_file.parent / "projects" / f"{PROJECT}.toml"
    project.write_text(project.read_text().replace('pacs = ["main"]', f"pacs = {names!r}".replace("'", '"')))


def _let_the_vo_in(site: Site, folder: Path) -> None:
    """Trust the tests' CA beside the site's own, and the VO's server; let group and lister enter the project."""
    vomsdir = make_grid(folder / "grid", VOMS).vomsdir
    bundle = site.state / "pki" / "ca.pem"
    anchors = folder / "certificates"
    anchors.mkdir()
    (anchors / "site.pem").write_bytes(bundle.read_bytes())
    theirs = make.authority().certificate.public_bytes(serialization.Encoding.PEM)
    (anchors / "tests.pem").write_bytes(theirs)
    subprocess.run(["openssl", "rehash", str(anchors)], check=True, capture_output=True)
    bundle.write_bytes(bundle.read_bytes() + theirs)
    for file in (site.hospital_file, *(site.keystore_file(number) for number in range(1, KEYSTORES + 1))):
        text = file.read_text()
        trust = 'trust = "../pki/ca.pem"\n'
        assert text.count(trust) == 1
        file.write_text(text.replace(trust, f'{trust}vomsdir = "{vomsdir}"\n'))
    project = site.hospital_file.parent / "projects" / f"{PROJECT}.toml"
    text = project.read_text()
    readers = f'readers = ["{site.pki.dns["reader"]}"'
    assert readers in text
    project.write_text(text.replace(readers, f'groups = ["{GROUP}"]\n{readers}, "{LISTER.dn}"'))
