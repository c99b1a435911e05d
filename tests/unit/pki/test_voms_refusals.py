"""Attribute certificates with one thing wrong, and those that RFC 5755 lets a server make otherwise than VOMS does."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from asn1crypto import cms, core
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from mdmfs.demo.pki import Issued, delegate, name_of
from mdmfs.pki.authorities import Authorities
from mdmfs.pki.proxy import prove
from mdmfs.pki.voms import AC_CERTIFICATES, AUTHORITY_KEY, NO_REVOCATION, VomsDirectory
from tests.twins import certificates as make
from tests.twins.attributes import VO, Ac, carrying, dn_of
from tests.twins.grid import Grid, make_grid

Bend = Callable[[dict[str, Any]], object]


def server(extension: x509.ExtensionType) -> Issued:
    """Certify a VOMS server with this extension."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(
        ROOT.subject, name_of("hosts", "voms"), key.public_key(), 4710, make.VALID.begin, make.VALID.end
    ).add_extension(extension, critical=False)
    return Issued((builder.sign(make.authority().key, hashes.SHA256()),), key)


ROOT = make.authority().certificate
JANE = make.person("jane")
VOMS = server(x509.SubjectKeyIdentifier(b"as the CA chose it"))
USAGES = ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"]
USAGES += ["key_cert_sign", "crl_sign", "encipher_only", "decipher_only"]
AGREES = server(x509.KeyUsage(**{usage: usage == "key_agreement" for usage in USAGES}))
PROXY = delegate(VOMS, make.VALID)
DIGEST = {"digested_object_type": "public_key", "digest_algorithm": {"algorithm": "sha256"}, "object_digest": b"x"}
DNS = asn1_x509.GeneralName("dns_name", "jane")


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    """Know one VOMS server."""
    return make_grid(tmp_path, VOMS)


def fqans(grid: Grid, ac: bytes) -> list[str]:
    """Give the FQANs that a proxy with this AC brings."""
    chain = prove(make.chain_of(carrying([ac]).of(JANE)))
    directory = VomsDirectory(grid.vomsdir, frozenset({"hospital.example.org"}))
    grants = directory.grants_of(chain, Authorities.read(grid.anchors), make.NOW.timestamp())
    return [str(fqan) for grant in grants for fqan in grant.fqans]


def holder(**fields: object) -> Bend:
    """Name the holder by these fields alone."""
    return lambda told: told.update(holder=cms.Holder(fields))


def of_jane(**fields: object) -> dict[str, object]:
    """Name her certificate, but for these fields."""
    return {"issuer": [dn_of(ROOT)], "serial": JANE.leaf.serial_number, **fields}


def issuer(**fields: object) -> Bend:
    """Name the issuer by DN and these fields too."""
    form = {"issuer_name": [dn_of(VOMS.leaf)], **fields}
    return lambda told: told.update(issuer=cms.AttCertIssuer("v2_form", cms.V2Form(form)))


def ends(name: str) -> Bend:
    """Have the AC begin or end in a local time that nobody knows."""
    local = core.GeneralizedTime.load(b"\x18\x0e20990101000000")
    return lambda told: told["att_cert_validity_period"].update({name: local})


def key_told(**fields: object) -> dict[str, tuple[bool, bytes]]:
    """Name the issuer's key so."""
    return {AUTHORITY_KEY: (False, asn1_x509.AuthorityKeyIdentifier(fields).dump())}


@pytest.mark.parametrize(
    ("bent", "reason"),
    [
        ({"bend": lambda told: told.update(version="v1")}, "version or serial number"),
        ({"bend": lambda told: told.update(serial_number=1 << 160)}, "version or serial number"),
        ({"bend": holder(object_digest_info=DIGEST, entity_name=[dn_of(JANE.leaf)])}, "does not name its holder"),
        ({"bend": lambda told: told.update(holder=cms.Holder.load(b"0\x00"))}, "does not name its holder"),
        ({"bend": holder(base_certificate_id=of_jane(serial=4711))}, "another certificate"),
        ({"bend": holder(base_certificate_id=of_jane(issuer=[dn_of(VOMS.leaf)]))}, "another certificate"),
        ({"bend": holder(base_certificate_id=of_jane(issuer_uid=b"x"))}, "another certificate"),
        ({"bend": holder(base_certificate_id=of_jane(), entity_name=[dn_of(VOMS.leaf)])}, "another holder"),
        ({"bend": holder(entity_name=[dn_of(JANE.leaf), dn_of(JANE.leaf)])}, "other than one DN"),
        ({"bend": holder(entity_name=[DNS])}, "other than one DN"),
        ({"bend": ends("not_before_time")}, "not in UTC"),
        ({"bend": ends("not_after_time")}, "not in UTC"),
        ({"bend": lambda told: told["extensions"].append(told["extensions"][1])}, "an extension twice"),
        ({"more": {"1.2.3.4": (True, b"\x05\x00")}}, "critical extension"),
        ({"without": frozenset({NO_REVOCATION})}, "lacks the extensions"),
        ({"without": frozenset({AUTHORITY_KEY})}, "lacks the extensions"),
        ({"targets": ["elsewhere.example.org"]}, "other hosts"),
        ({"targets": []}, "other hosts"),
        ({"fqans": []}, "no FQAN, or one of another VO"),
        ({"fqans": [f"/{VO}", f"/{VO}.evil"]}, "no FQAN, or one of another VO"),
        ({"without": frozenset({AC_CERTIFICATES})}, "came without its issuer's certificate$"),
        ({"shown": ()}, "came without its issuer's certificate, or with too many"),
        ({"shown": (VOMS.leaf,) * 17}, "came without its issuer's certificate, or with too many"),
        ({"shown": (ROOT,)}, "may not sign it"),
        ({"shown": (PROXY.leaf,)}, "may not sign it"),
        ({"shown": (AGREES.leaf,)}, "may not sign it"),
        ({"bend": lambda told: told.update(issuer=cms.AttCertIssuer("v1_form", [dn_of(VOMS.leaf)]))}, "by a DN"),
        ({"bend": issuer(base_certificate_id=of_jane())}, "by a DN"),
        ({"bend": issuer(object_digest_info=DIGEST)}, "by a DN"),
        ({"bend": issuer(issuer_name=[dn_of(ROOT)])}, "names another issuer"),
        ({"more": key_told(key_identifier=b"another")}, "names another key"),
        ({"more": key_told(authority_cert_issuer=[dn_of(ROOT)], authority_cert_serial_number=4711)}, "another key"),
        (
            {
                "more": key_told(
                    authority_cert_issuer=[dn_of(JANE.leaf)], authority_cert_serial_number=VOMS.leaf.serial_number
                )
            },
            "another key",
        ),
        ({"signed_as": "sha384_ecdsa"}, "two signature algorithms"),
        ({"by": Issued(VOMS.certificates, JANE.key)}, "signature is not its issuer's"),
    ],
)
def test_an_ac_with_one_thing_wrong_does_not_count(
    grid: Grid, caplog: pytest.LogCaptureFixture, bent: Mapping[str, Any], reason: str
) -> None:
    """And the log names just that: no check stands in for another."""
    assert fqans(grid, Ac(**{"holder": JANE.leaf, "by": VOMS, **bent}).der()) == []
    assert re.search(reason, caplog.messages[0])


@pytest.mark.parametrize(
    "bent",
    [
        {},
        {"bend": lambda told: told.update(serial_number=1 << 158)},
        {"bend": holder(base_certificate_id=of_jane(), entity_name=[dn_of(JANE.leaf)])},
        {"bend": lambda told: told["attributes"].append({"type": "2.5.4.72", "values": []})},
        {"more": key_told(key_identifier=b"as the CA chose it")},
        {"more": key_told(authority_cert_issuer=[dn_of(ROOT)], authority_cert_serial_number=VOMS.leaf.serial_number)},
        {"more": {"1.2.3.4": (False, b"\x05\x00")}},
    ],
)
def test_an_ac_may_be_made_otherwise_where_rfc_5755_lets_it(grid: Grid, bent: Mapping[str, Any]) -> None:
    """Serial numbers of twenty octets, both names of the holder, attributes of other kinds, each way to name a key."""
    assert fqans(grid, Ac(JANE.leaf, VOMS, **bent).der()) == [f"/{VO}"]
