"""The CAs of the IGTF, as Debian packages them: real certificates and signing policies, none of ours."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from asn1crypto import pem

from mdmfs.model.errors import CredentialRefusedError
from mdmfs.model.identity import Dn
from mdmfs.pki.authorities import Authorities
from mdmfs.pki.certificate import Certificate
from mdmfs.pki.signing_policy import SigningPolicy
from mdmfs.pki.trust import TrustAnchors

UNPACKED = Path(__file__).parents[2] / ".cache" / "igtf" / "root" / "usr" / "share" / "igtf-policy"
PROFILES = ("classic", "mics", "iota")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Put the accredited CAs into one CA directory, as an installation would."""
    target: Path = tmp_path_factory.mktemp("igtf") / "certificates"
    for profile in PROFILES:
        shutil.copytree(UNPACKED / profile, target, dirs_exist_ok=True)
    return target


def certificate_of(file: Path) -> Certificate:
    """Read a CA."""
    _, _, der = pem.unarmor(file.read_bytes())
    return Certificate(der)


def test_every_ca_and_every_policy_is_read(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And each CA finds itself in its own policy under the DN that its certificate has."""
    Authorities.read(TrustAnchors(directory))
    assert not caplog.records
    named = sorted(directory.glob("*.pem"))
    assert len(named) == 83
    for file in named:
        ca = certificate_of(file)
        policy = SigningPolicy.parse(file.with_suffix(".signing_policy").read_text())
        assert policy.of(ca.subject) is not None, file.name
        assert not policy.allows(ca.subject, Dn.parse("/O=nobody/CN=jane")), file.name


def test_sub_cas_are_allowed_by_their_roots_and_by_no_other_root(directory: Path) -> None:
    """Every edge between two CAs of the set, by its signature, its name and its policy."""
    authorities = Authorities.read(TrustAnchors(directory))
    cas = [certificate_of(file) for file in sorted(directory.glob("*.pem"))]
    edges = [(below, above) for below in cas for above in cas if not below.is_self_issued and above.issued(below)]
    assert len(edges) > 20
    for below, above in edges:
        if above.is_self_issued:
            authorities.vet([below, above], 0.0)
    roots = [one for one in cas if one.is_self_issued]
    for below, above in edges:
        for other in roots:
            if other.subject not in {above.subject, below.subject} and other is not above:
                with pytest.raises(CredentialRefusedError):
                    authorities.vet([below, other], 0.0)
