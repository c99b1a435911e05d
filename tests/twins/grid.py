"""A CA directory and a vomsdir as grids lay them out, and one handshake in memory against a server that uses them."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import shutil
import ssl
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from mdmfs.demo.pki import Authority, Issued, Validity
from mdmfs.pki.tls import ServerContexts, client_context, verified_chain
from mdmfs.pki.trust import Crls, TrustAnchors
from tests.twins import certificates as make
from tests.twins.attributes import HOST, VO, lsc_of, oneline

EVERYBODY = "/O=mdmfs demonstration/*"


@dataclasses.dataclass
class Grid:
    """Directories that can be changed while somebody reads them."""

    folder: Path

    @property
    def certificates(self) -> Path:
        """The CA directory."""
        return self.folder / "certificates"

    @property
    def vomsdir(self) -> Path:
        """The folders of the VOs."""
        return self.folder / "vomsdir"

    @property
    def anchors(self) -> TrustAnchors:
        """The CA directory, where a CA may have no list."""
        return TrustAnchors(self.certificates)

    def trust(self, authority: Authority, *allowed: str, policy: str | None = None, place: int = 0) -> None:
        """Add a CA with a signing policy; without patterns it may sign everything of the tests."""
        self.certificates.mkdir(parents=True, exist_ok=True)
        pem = authority.certificate.public_bytes(serialization.Encoding.PEM)
        (self.certificates / f"{hash_of(authority)}.{place}").write_bytes(pem)
        self.write_policy(authority, policy_of(authority, *allowed) if policy is None else policy)

    def distrust(self) -> None:
        """Take all CAs away, and leave what stands beside them."""
        for file in self.certificates.glob("*.[0-9]"):
            file.unlink()

    def write_policy(self, authority: Authority, text: str) -> None:
        """Replace a signing policy."""
        _replace(self.certificates / f"{hash_of(authority)}.signing_policy", text.encode())

    def write_crl(self, authority: Authority, octets: bytes) -> None:
        """Replace a revocation list, at once, as ``fetch-crl`` does."""
        _replace(self.certificates / f"{hash_of(authority)}.r0", octets)

    def write_lsc(self, text: str, vo: str = VO, host: str = HOST) -> None:
        """Replace an LSC file."""
        folder = self.vomsdir / vo
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / f"{host}.lsc", text.encode())

    def copied(self, folder: Path) -> Grid:
        """Copy everything, to change it."""
        shutil.copytree(self.folder, folder)
        return Grid(folder)


def make_grid(folder: Path, voms: Issued, authority: Authority | None = None) -> Grid:
    """Trust the tests' CA, or another, and one VOMS server."""
    grid = Grid(folder)
    grid.trust(authority or make.authority())
    grid.write_lsc(lsc_of(voms.leaf))
    return grid


def policy_of(authority: Authority, *allowed: str) -> str:
    """Write a signing policy."""
    patterns = " ".join(f'"{pattern}"' for pattern in allowed or (EVERYBODY,))
    name = oneline(authority.certificate.subject)
    return f"# for tests\naccess_id_CA X509 '{name}'\npos_rights globus CA:sign\ncond_subjects globus '{patterns}'\n"


def crl_of(
    authority: Authority,
    revoked: Sequence[x509.Certificate] = (),
    *,
    validity: Validity = make.VALID,
    more: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> bytes:
    """Sign a revocation list, as PEM."""
    builder = x509.CertificateRevocationListBuilder().issuer_name(authority.certificate.subject)
    builder = builder.last_update(validity.begin).next_update(validity.end)
    for one in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(one.serial_number).revocation_date(validity.begin)
        builder = builder.add_revoked_certificate(entry.build())
    for extension, is_critical in more:
        builder = builder.add_extension(extension, critical=is_critical)
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def hash_of(authority: Authority) -> str:
    """Ask OpenSSL for the name of a CA's files."""
    return _hash_of(authority.certificate.public_bytes(serialization.Encoding.PEM))


@functools.cache
def _hash_of(pem: bytes) -> str:
    told = subprocess.run(["openssl", "x509", "-noout", "-hash"], input=pem, check=True, capture_output=True)
    return told.stdout.decode().strip()


def contexts_of(grid: Grid, shown: Issued, *, crls: Crls = Crls.IF_PRESENT) -> ServerContexts:
    """Make the contexts of a server that uses these directories."""
    credential = shown.save(grid.folder, "server")
    return ServerContexts(credential, TrustAnchors(grid.certificates, crls), grid.vomsdir)


def shake_hands(
    contexts: ServerContexts, issued: Issued, folder: Path, authority: Authority | None = None
) -> list[bytes]:
    """Let somebody in over buffers, and give the chain that OpenSSL verified; raises ``ssl.SSLError``."""
    credential = issued.save_proxy(folder / "client")
    bundle = folder / "server-ca.pem"
    bundle.write_bytes((authority or make.authority()).certificate.public_bytes(serialization.Encoding.PEM))
    theirs = client_context(credential, TrustAnchors(bundle), check_hostname=False)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = theirs.wrap_bio(down, up, server_side=False)
    server = contexts().wrap_bio(up, down, server_side=True)
    waiting = [client, server]
    while waiting:
        for one in list(waiting):
            try:
                one.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(one)
    return verified_chain(server)


def past(hours: float) -> Validity:
    """End so many hours ago."""
    end = make.NOW - dt.timedelta(hours=hours)
    return Validity(end - dt.timedelta(days=1), end)


def future(hours: float) -> Validity:
    """Begin in so many hours."""
    begin = make.NOW + dt.timedelta(hours=hours)
    return Validity(begin, begin + dt.timedelta(days=1))


def _replace(file: Path, octets: bytes) -> None:
    new = file.with_name(f"{file.name}.new")
    new.write_bytes(octets)
    new.replace(file)
