"""A throw-away PKI: a CA, a certificate for each zone, users with RFC 3820 proxies; keys that nobody should trust."""

from __future__ import annotations

import dataclasses
import datetime as dt
import ipaddress
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mdmfs.model.identity import Dn
from mdmfs.pki.certificate import PROXY_CERT_INFO
from mdmfs.pki.dn import dn_of
from mdmfs.pki.proxy import INHERIT_ALL, ProxyCertInfo
from mdmfs.pki.tls import Credential
from mdmfs.pki.trust import TrustAnchors

LIFETIME: Final = dt.timedelta(days=7)
LEEWAY: Final = dt.timedelta(minutes=5)
LOOPBACK: Final = (
    x509.DNSName("localhost"),
    x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")),
    x509.IPAddress(ipaddress.IPv6Address("::1")),
)
USERS: Final = ("reader", "stranger")
_ORGANIZATION: Final = "mdmfs demonstration"


@dataclasses.dataclass(frozen=True, slots=True)
class Issued:
    """Certificates, leaf first, up to the root or just below it, and the leaf's key."""

    certificates: tuple[x509.Certificate, ...]
    key: ec.EllipticCurvePrivateKey = dataclasses.field(repr=False)

    @property
    def leaf(self) -> x509.Certificate:
        """The certificate that the key belongs to."""
        return self.certificates[0]

    @property
    def dn(self) -> Dn:
        """The subject of the leaf."""
        return dn_of(asn1_x509.Name.load(self.leaf.subject.public_bytes()))

    def save(self, directory: Path, name: str) -> Credential:
        """Write ``NAME.pem`` and, readable by the owner only, ``NAME.key``."""
        credential = Credential(directory / f"{name}.pem", directory / f"{name}.key")
        write_private(credential.certificate_file, _pem(self.certificates))
        write_private(credential.key_file, self._key_pem())
        return credential

    def save_proxy(self, file: Path) -> Credential:
        """Write leaf, key and chain into one file, as ``grid-proxy-init`` does."""
        write_private(file, _pem(self.certificates[:1]) + self._key_pem() + _pem(self.certificates[1:]))
        return Credential.of_proxy(file)

    def _key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Validity:
    """From when to when a certificate counts."""

    begin: dt.datetime
    end: dt.datetime

    @classmethod
    def lasting(cls, now: dt.datetime, lifetime: dt.timedelta = LIFETIME) -> Self:
        """Begin a little before now, for clocks that differ."""
        return cls(now - LEEWAY, now + lifetime)


@dataclasses.dataclass(frozen=True, slots=True)
class Authority:
    """A CA that signs what it is told to."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = dataclasses.field(repr=False)

    @classmethod
    def make(cls, subject: x509.Name, validity: Validity) -> Self:
        """Make a root."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(subject, subject, key, validity)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(_usage(is_authority=True), critical=True)
        return cls(builder.sign(key, hashes.SHA256()), key)

    def issue(self, subject: x509.Name, validity: Validity, hosts: Sequence[x509.GeneralName] = ()) -> Issued:
        """Issue the certificate of an end entity: a host, if it has names of hosts, else a person."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(subject, self.certificate.subject, key, validity)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(is_authority=False), critical=True)
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH] + ([ExtendedKeyUsageOID.SERVER_AUTH] if hosts else [])
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        return Issued((builder.sign(self.key, hashes.SHA256()),), key)


def delegate(
    issuer: Issued, validity: Validity, *, policy: str = INHERIT_ALL, path_length: int | None = None, cn: str = ""
) -> Issued:
    """Make a proxy as RFC 3820 has it: the issuer's subject with one CN more, its serial number unless told."""
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    last = x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.COMMON_NAME, cn or str(serial % 2**31))])
    subject = x509.Name([*issuer.leaf.subject.rdns, last])
    told = ProxyCertInfo({"proxy_policy": {"policy_language": policy}})
    if path_length is not None:
        told["path_length"] = path_length
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(PROXY_CERT_INFO), told.dump())
    builder = _builder(subject, issuer.leaf.subject, key, validity, serial)
    builder = builder.add_extension(_usage(is_authority=False), critical=True)
    builder = builder.add_extension(extension, critical=True)
    return Issued((builder.sign(issuer.key, hashes.SHA256()), *issuer.certificates), key)


@dataclasses.dataclass(frozen=True, slots=True)
class ThrowAwayPki:
    """The files of a whole PKI, and the DNs in them by the name of their file."""

    anchors: TrustAnchors
    hospital: Credential
    keystores: tuple[Credential, ...]
    metadata: Credential
    users: Mapping[str, Credential]
    """Certificate and key of ``reader`` and ``stranger``."""
    proxies: Mapping[str, Credential]
    """A proxy of each user, one file each."""
    dns: Mapping[str, Dn]
    """The DNs of ``hospital``, ``keystore-1`` and so on, ``metadata``, ``reader``, ``stranger``."""
    authority: Authority
    """Who signed them all; its key is in memory only."""


def make_pki(directory: Path, *, keystores: int, now: dt.datetime) -> ThrowAwayPki:
    """Make a PKI in a directory (made with mode 0700 if it is not there); what was there before is replaced.

    Everything is valid from five minutes ago for seven days. Servers are ``localhost``, 127.0.0.1 and ::1.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    validity = Validity.lasting(now)
    authority = Authority.make(name_of("authorities", "Throw-away CA"), validity)
    write_private(directory / "ca.pem", _pem([authority.certificate]))
    hosts = ["hospital", *(f"keystore-{number}" for number in range(1, keystores + 1)), "metadata"]
    issued = {host: authority.issue(name_of("hosts", host), validity, LOOPBACK) for host in hosts}
    issued |= {user: authority.issue(name_of("people", user), validity) for user in USERS}
    saved = {name: one.save(directory, name) for name, one in issued.items()}
    return ThrowAwayPki(
        anchors=TrustAnchors(directory / "ca.pem"),
        hospital=saved["hospital"],
        keystores=tuple(saved[host] for host in hosts[1:-1]),
        metadata=saved["metadata"],
        users={user: saved[user] for user in USERS},
        proxies={user: delegate(issued[user], validity).save_proxy(directory / f"{user}.proxy") for user in USERS},
        dns={name: one.dn for name, one in issued.items()},
        authority=authority,
    )


def name_of(unit: str, common_name: str) -> x509.Name:
    """Name something of the demonstration."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANIZATION),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def write_private(file: Path, octets: bytes) -> None:
    """Write a file that is its owner's alone from its first moment on; it replaces an older one at once."""
    beginning = file.with_name(f".{file.name}.{os.getpid()}")
    beginning.unlink(missing_ok=True)
    descriptor = os.open(beginning, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(octets)
    beginning.replace(file)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    validity: Validity,
    serial: int | None = None,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(validity.begin)
        .not_valid_after(validity.end)
    )


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificates: Iterable[x509.Certificate]) -> bytes:
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)
