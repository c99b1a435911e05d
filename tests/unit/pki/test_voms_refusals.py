"""Attribute certificates with one thing wrong, and those that RFC 5755 lets a server make otherwise than VOMS does."""

from __future__ import annotations

import datetime as dt
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

from mdmfs.demo.pki import Authority, Issued, delegate, name_of
from mdmfs.pki.authorities import Authorities
from mdmfs.pki.certificate import Certificate
from mdmfs.pki.proxy import prove
from mdmfs.pki.voms import (
    AC_CERTIFICATES,
    AUTHORITY_KEY,
    NO_REVOCATION,
    TARGETS,
    AcSequence,
    AttributeCertificates,
    VomsDirectory,
    claims_of,
)
from tests.twins import certificates as make
from tests.twins.attributes import HOST, VO, Ac, carrying, carrying_octets, dn_of, lsc_of
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


KEY_TOLD = asn1_x509.AuthorityKeyIdentifier({"key_identifier": b"as the CA chose it"}).dump()
SEQUENCE, SET, NAME, GROUP = 0x30, 0x31, 0xA0, 0xA1


def tlv(tag: int, contents: bytes) -> bytes:
    """Write DER."""
    return bytes([tag, len(contents)]) + contents


ME = tlv(0x86, b"hospital.example.org")
US, ELSEWHERE = tlv(NAME, ME), tlv(NAME, tlv(0x82, b"elsewhere.example.org"))


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    """Know one VOMS server."""
    return make_grid(tmp_path, VOMS)


def fqans(grid: Grid, ac: bytes, *, now: float = make.NOW.timestamp()) -> list[str]:
    """Give the FQANs that a proxy with this AC brings."""
    return fqans_of(grid, carrying([ac]).of(JANE), now=now)


def fqans_of(grid: Grid, shown: Issued, *, now: float = make.NOW.timestamp()) -> list[str]:
    """Give the FQANs that a proxy brings."""
    directory = VomsDirectory(grid.vomsdir, frozenset({"hospital.example.org"}))
    grants = directory.grants_of(prove(make.chain_of(shown)), Authorities.read(grid.anchors), now)
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
        ({"shown": (VOMS.leaf,) * 16}, "lsc does not name its issuer"),
        ({"shown": (ROOT,)}, "may not sign it"),
        ({"shown": (server(x509.BasicConstraints(ca=True, path_length=None)).leaf,)}, "may not sign it"),
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
        ({"more": {AUTHORITY_KEY: (False, KEY_TOLD + b"\x05\x00")}}, "cannot be read"),
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
        {"more": {AUTHORITY_KEY: (False, KEY_TOLD)}},
        {"more": {"1.2.3.4": (False, b"\x05\x00")}},
        {"more": {TARGETS: (True, tlv(SEQUENCE, tlv(SEQUENCE, tlv(SEQUENCE, US))))}},
        {"more": {TARGETS: (True, tlv(SEQUENCE, ELSEWHERE + US))}},
    ],
)
def test_an_ac_may_be_made_otherwise_where_rfc_5755_lets_it(grid: Grid, bent: Mapping[str, Any]) -> None:
    """Long serial numbers, both names of the holder, other attributes, each way to name a key, RFC 5755's targets."""
    assert fqans(grid, Ac(JANE.leaf, VOMS, **bent).der()) == [f"/{VO}"]


def test_the_acs_of_the_outermost_proxy_that_has_any_count(grid: Grid, caplog: pytest.LogCaptureFixture) -> None:
    """So attributes are renewed; and who has none lacks nothing that a log would have to tell of."""
    older = carrying([Ac(JANE.leaf, VOMS).der()]).of(JANE)
    newer = carrying([Ac(JANE.leaf, VOMS, [f"/{VO}/new"]).der()]).of(older)
    assert fqans_of(grid, older) == fqans_of(grid, delegate(older, make.VALID)) == [f"/{VO}"]
    assert fqans_of(grid, newer) == fqans_of(grid, delegate(newer, make.VALID)) == [f"/{VO}/new"]
    assert fqans_of(grid, JANE) == fqans_of(grid, delegate(JANE, make.VALID)) == []
    assert not caplog.records


def test_an_ac_ends_at_its_last_instant(grid: Grid) -> None:
    """As certificates and entries of ACLs do."""
    ac = Ac(JANE.leaf, VOMS).der()
    end = make.VALID.end.replace(microsecond=0).timestamp()
    assert fqans(grid, ac, now=end - 1) == [f"/{VO}"]
    assert fqans(grid, ac, now=end) == []


def test_acs_with_octets_behind_them_are_not_read(grid: Grid, caplog: pytest.LogCaptureFixture) -> None:
    """Two programs might read two things."""
    told = bytes(
        AcSequence([AttributeCertificates([cms.AttributeCertificateV2.load(Ac(JANE.leaf, VOMS).der())])]).dump()
    )
    assert fqans_of(grid, carrying_octets(told).of(JANE)) == [f"/{VO}"]
    assert fqans_of(grid, carrying_octets(told + b"\x05\x00").of(JANE)) == []
    assert "cannot be read" in caplog.messages[0]


def test_a_server_whose_file_cannot_be_read_brings_nothing(grid: Grid, caplog: pytest.LogCaptureFixture) -> None:
    """One that is not there names nobody; a directory in its place is no file; and neither keeps the DN out."""
    file = grid.vomsdir / VO / f"{HOST}.lsc"
    file.unlink()
    assert fqans(grid, Ac(JANE.leaf, VOMS).der()) == []
    file.mkdir()
    assert fqans(grid, Ac(JANE.leaf, VOMS).der()) == []
    assert len(caplog.records) == 2


@pytest.mark.parametrize(
    "targets",
    [
        tlv(SET, US),
        tlv(SEQUENCE, tlv(GROUP, ME)),
        tlv(SEQUENCE, tlv(SEQUENCE, tlv(SEQUENCE, tlv(SEQUENCE, US)))),
        tlv(SEQUENCE, tlv(NAME, ME + b"\x05\x00")),
        tlv(SEQUENCE, tlv(NAME, tlv(0x81, b"hospital.example.org"))),
    ],
)
def test_a_host_that_stands_where_no_target_does_is_none(grid: Grid, targets: bytes) -> None:
    """In a set, as a group, too deep, with something behind it, as an address of mail."""
    assert fqans(grid, Ac(JANE.leaf, VOMS, more={TARGETS: (True, targets)}).der()) == []


def test_proxies_are_told_apart_by_what_they_claim() -> None:
    """Unverified, and by all the octets of what cannot be read."""

    def claims(*octets: bytes) -> frozenset[str]:
        issued = JANE
        for one in octets:
            issued = carrying_octets(one).of(issued)
        return claims_of([Certificate(der) for der in make.chain_of(delegate(issued, make.VALID))])

    def told(**bent: Any) -> bytes:  # noqa: ANN401 as Ac
        ac = cms.AttributeCertificateV2.load(Ac(JANE.leaf, JANE, **bent).der())
        return bytes(AcSequence([AttributeCertificates([ac])]).dump())

    assert claims() == frozenset()
    assert claims(told(fqans=[f"/{VO}", f"/{VO}/a"])) == {f"/{VO}", f"/{VO}/a"}
    assert claims(told(), told(fqans=[f"/{VO}/a"])) == {f"/{VO}/a"}
    odd = [told(authority="?"), told(fqans=["?"]), b"0\x01", b"0\x02"]
    assert len({claims(one) for one in odd} - {frozenset()}) == len(odd)


def certified(
    by: Issued, subject: x509.Name, *extensions: tuple[x509.ExtensionType, bool], end: dt.datetime = make.VALID.end
) -> Issued:
    """Certify a key under anybody's name."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(
        by.leaf.subject, subject, key.public_key(), x509.random_serial_number(), make.VALID.begin, end
    )
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, critical=is_critical)
    return Issued((builder.sign(by.key, hashes.SHA256()), *by.certificates), key)


def is_ca(path_length: int | None = None) -> tuple[x509.ExtensionType, bool]:
    """Let a certificate be a CA's."""
    return x509.BasicConstraints(ca=True, path_length=path_length), True


def may_only(usage: str) -> tuple[x509.ExtensionType, bool]:
    """Let a key be used so and not otherwise."""
    return x509.KeyUsage(**{each: each == usage for each in USAGES}), True


AUTHORITY = Issued((ROOT,), make.authority().key)
MIDDLE, LOWER, SERVER = name_of("authorities", "middle"), name_of("authorities", "lower"), name_of("hosts", "voms")
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True
GOOD = certified(AUTHORITY, MIDDLE, is_ca())


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (certified(GOOD, SERVER), ""),
        (certified(certified(GOOD, LOWER, is_ca()), SERVER), ""),
        (certified(certified(AUTHORITY, MIDDLE, is_ca(0)), SERVER), ""),
        (certified(AUTHORITY, SERVER, UNKNOWN), "critical extension that is not known"),
        (certified(certified(AUTHORITY, MIDDLE, is_ca(), UNKNOWN), SERVER), "critical extension that is not known"),
        (certified(certified(AUTHORITY, MIDDLE), SERVER), "is no CA"),
        (certified(certified(AUTHORITY, MIDDLE, is_ca(), may_only("crl_sign")), SERVER), "is no CA"),
        (certified(certified(certified(AUTHORITY, MIDDLE, is_ca(0)), LOWER, is_ca()), SERVER), "longer than it allows"),
        (certified(certified(AUTHORITY, MIDDLE, is_ca(), end=make.NOW), SERVER), "not valid now"),
        (certified(AUTHORITY, SERVER, end=make.NOW), "not valid now"),
        (
            Issued((certified(certified(AUTHORITY, MIDDLE, is_ca()), SERVER).leaf, *GOOD.certificates), VOMS.key),
            "was not signed by the one that came with it",
        ),
    ],
)
def test_the_cas_that_came_with_an_ac_are_judged_as_in_a_handshake(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, server: Issued, reason: str
) -> None:
    """Nobody else does: what they sign is believed because of them, once the LSC file names them."""
    grid = Grid(tmp_path)
    grid.trust(make.authority())
    for above in server.certificates[1:-1]:
        grid.trust(Authority(above, VOMS.key))
    grid.write_lsc(lsc_of(*server.certificates[:-1]))
    shown = Issued(server.certificates[:-1], server.key)
    told = fqans(grid, Ac(JANE.leaf, shown).der())
    if reason:
        assert told == []
        assert re.search(reason, caplog.messages[-1])
    else:
        assert told == [f"/{VO}"]
