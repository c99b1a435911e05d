"""VOMS attribute certificates good and bad: a VOMS server of the tests, and proxies that carry what it signs."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from asn1crypto import cms, core
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from mdmfs.demo.pki import Issued, Validity
from mdmfs.pki.voms import (
    AC_CERTIFICATES,
    AC_SEQUENCE,
    AUTHORITY_KEY,
    FQANS,
    NO_REVOCATION,
    TARGETS,
    AcSequence,
    AttributeCertificates,
    IssuerCertificates,
    IssuerSequence,
)
from tests.twins import certificates as make

VO = "vo.example"
HOST = "voms.example.org"
MEMBER = f"/{VO}/Role=NULL/Capability=NULL"


class _Target(core.Sequence):  # type: ignore[misc] # asn1crypto has no types
    """As VOMS writes it: RFC 5755's choice inside a sequence."""

    _fields = [("name", asn1_x509.GeneralName, {"explicit": 0})]  # noqa: RUF012 asn1crypto's way to declare


class _TargetList(core.SequenceOf):  # type: ignore[misc] # asn1crypto has no types
    _child_spec = _Target


class _Targets(core.SequenceOf):  # type: ignore[misc] # asn1crypto has no types
    _child_spec = _TargetList


class _Syntax(core.Sequence):  # type: ignore[misc] # asn1crypto has no types
    """IetfAttrSyntax whose values may be of any kind."""

    _fields = [  # noqa: RUF012 asn1crypto's way to declare
        ("policy_authority", asn1_x509.GeneralNames, {"implicit": 0}),
        ("values", type("AnyValues", (core.SequenceOf,), {"_child_spec": core.Any})),
    ]


@dataclasses.dataclass(frozen=True)
class Ac:
    """An attribute certificate for a holder, signed by a VOMS server; the other defaults are right."""

    holder: x509.Certificate
    by: Issued
    fqans: Sequence[str] = (MEMBER,)
    authority: str = f"{VO}://{HOST}:15000"
    validity: Validity = make.VALID
    holder_name: str = "issuer"
    """``issuer`` and ``subject`` name it beside the serial number, ``entity`` instead of it."""
    serial: int | None = None
    """Of the holder, where it is not his own."""
    targets: Sequence[str] | None = None
    more: Mapping[str, tuple[bool, bytes]] = dataclasses.field(default_factory=dict)
    """Further extensions: critical or not, and the value."""
    without: frozenset[str] = frozenset()
    """Extensions to leave out."""
    shown: tuple[x509.Certificate, ...] | None = None
    """Certificates that come along, where they are not the issuer's own."""
    named: x509.Certificate | None = None
    """Whom the AC names as its issuer, where it is not him."""
    digest: hashes.HashAlgorithm = dataclasses.field(default_factory=hashes.SHA256)
    value_kind: type[core.Asn1Value] = core.OctetString
    bend: Callable[[dict[str, Any]], object] = lambda _: None
    """Change anything else of what is signed."""
    signed_as: str | None = None
    """The algorithm that the signature names, where it is not the one that the AC names."""

    def der(self) -> bytes:
        """Make it and sign it."""
        key = self.by.key
        algorithm = {"algorithm": f"{self.digest.name}_{'rsa' if isinstance(key, rsa.RSAPrivateKey) else 'ecdsa'}"}
        fields = {
            "version": "v2",
            "holder": self._holder(),
            "issuer": cms.AttCertIssuer("v2_form", cms.V2Form({"issuer_name": [dn_of(self._named)]})),
            "signature": algorithm,
            "serial_number": x509.random_serial_number(),
            "att_cert_validity_period": {
                "not_before_time": self.validity.begin.replace(microsecond=0),
                "not_after_time": self.validity.end.replace(microsecond=0),
            },
            "attributes": [{"type": FQANS, "values": [self._attribute()]}],
            "extensions": self._extensions(),
        }
        self.bend(fields)
        told = cms.AttributeCertificateInfoV2(fields)
        if isinstance(key, rsa.RSAPrivateKey):
            signature = key.sign(told.dump(), padding.PKCS1v15(), self.digest)
        else:
            signature = key.sign(told.dump(), ec.ECDSA(self.digest))
        named = algorithm if self.signed_as is None else {"algorithm": self.signed_as}
        whole = {"ac_info": told, "signature_algorithm": named, "signature": signature}
        return bytes(cms.AttributeCertificateV2(whole).dump())

    @property
    def _named(self) -> x509.Certificate:
        return self.named or self.by.leaf

    def _holder(self) -> cms.Holder:
        if self.holder_name == "entity":
            return cms.Holder({"entity_name": [dn_of(self.holder)]})
        name = self.holder.issuer if self.holder_name == "issuer" else self.holder.subject
        base = {"issuer": [_dn(_name(name))], "serial": self.serial or self.holder.serial_number}
        return cms.Holder({"base_certificate_id": base})

    def _attribute(self) -> core.Asn1Value:
        authority = _uri(self.authority)
        values = [self.value_kind(_value_of(fqan, self.value_kind)) for fqan in self.fqans]
        return core.Any(_Syntax({"policy_authority": [authority], "values": [core.Any(one) for one in values]}))

    def _extensions(self) -> list[dict[str, object]]:
        shown = self.by.certificates if self.shown is None else self.shown
        issuers = IssuerCertificates([asn1_x509.Certificate.load(_der(one)) for one in shown])
        key = hashlib.sha1(_key_bits(self._named), usedforsecurity=False).digest()
        listed = {
            AC_CERTIFICATES: (False, IssuerSequence([issuers]).dump()),
            NO_REVOCATION: (False, core.Null().dump()),
            AUTHORITY_KEY: (False, asn1_x509.AuthorityKeyIdentifier({"key_identifier": key}).dump()),
            **({} if self.targets is None else {TARGETS: (True, _targets(self.targets))}),
            **self.more,
        }
        return [
            {"extn_id": oid, "critical": critical, "extn_value": core.ParsableOctetString(value)}
            for oid, (critical, value) in listed.items()
            if oid not in self.without
        ]


def carrying(acs: Sequence[bytes], **others: object) -> make.OddProxy:
    """Make a proxy that carries ACs."""
    listed = AttributeCertificates([cms.AttributeCertificateV2.load(der) for der in acs])
    return carrying_octets(bytes(AcSequence([listed]).dump()), **others)


def carrying_octets(octets: bytes, **others: object) -> make.OddProxy:
    """Make a proxy that carries anything where ACs belong."""
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(AC_SEQUENCE), octets)
    # Globus takes every proxy whose last CN is "proxy" for one of GT2.
    last = [x509.NameAttribute(x509.NameOID.COMMON_NAME, "1234567890")]
    return make.OddProxy(uncritical=[extension], last=last, **others)  # type: ignore[arg-type] # the caller's are right


def lsc_of(*certificates: x509.Certificate) -> str:
    """Write an LSC file for a server and the CAs that come with it."""
    return "".join(f"{oneline(one.subject)}\n{oneline(one.issuer)}\n" for one in certificates)


def oneline(name: x509.Name) -> str:
    """Write a name as OpenSSL's oneline does, for the types that the tests use."""
    short = {"2.5.4.3": "CN", "2.5.4.10": "O", "2.5.4.11": "OU", "0.9.2342.19200300.100.1.25": "DC"}
    return "".join(f"/{short[one.oid.dotted_string]}={one.value}" for one in name)


def dn_of(certificate: x509.Certificate) -> asn1_x509.GeneralName:
    """Name somebody as ACs do."""
    return _dn(_name(certificate.subject))


def _value_of(fqan: str, kind: type[core.Asn1Value]) -> str | bytes:
    return fqan.encode() if kind is core.OctetString else fqan


def _targets(names: Sequence[str]) -> bytes:
    targets = [_Target({"name": _uri(name)}) for name in names]
    return bytes(_Targets([_TargetList(targets)]).dump())


def _uri(text: str) -> asn1_x509.GeneralName:
    """Write a URI as it is, however odd."""
    return asn1_x509.GeneralName.load(bytes([0x86, len(text)]) + text.encode())


def _dn(name: asn1_x509.Name) -> asn1_x509.GeneralName:
    return asn1_x509.GeneralName("directory_name", name)


def _name(name: x509.Name) -> asn1_x509.Name:
    return asn1_x509.Name.load(name.public_bytes())


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def _key_bits(certificate: x509.Certificate) -> bytes:
    return bytes(asn1_x509.Certificate.load(_der(certificate)).public_key["public_key"])
