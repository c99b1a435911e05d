"""Certificates good and bad, made in memory for one test run: what the demonstration's PKI would never make."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
from collections.abc import Sequence

from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from mdmfs.demo.pki import LOOPBACK, Authority, Issued, Validity, name_of
from mdmfs.pki.certificate import PROXY_CERT_INFO
from mdmfs.pki.proxy import INHERIT_ALL, ProxyCertInfo

NOW = dt.datetime.now(dt.UTC)
VALID = Validity.lasting(NOW)
PAST = Validity(NOW - dt.timedelta(days=2), NOW - dt.timedelta(days=1))
INDEPENDENT = "1.3.6.1.5.5.7.21.2"
UNKNOWN_POLICY = "1.2.3.4"
INHERIT_ALL_INFO = bytes(ProxyCertInfo({"proxy_policy": {"policy_language": INHERIT_ALL}}).dump())
DRAFT_PROXY_CERT_INFO = "1.3.6.1.4.1.3536.1.222"


def seconds_from_now(seconds: float) -> Validity:
    """Count from a little before now until so many seconds from now; certificates know whole seconds only."""
    return Validity.lasting(dt.datetime.now(dt.UTC), dt.timedelta(seconds=seconds))


@functools.cache
def authority(name: str = "CA of the tests") -> Authority:
    """Give the CA that the tests trust, or another under another name."""
    return Authority.make(name_of("authorities", name), VALID)


def host(name: str, by: Authority | None = None) -> Issued:
    """Issue a server's certificate for the loopback interface."""
    return (by or authority()).issue(name_of("hosts", name), VALID, LOOPBACK)


def person(name: str, by: Authority | None = None, validity: Validity = VALID) -> Issued:
    """Issue a user's certificate."""
    return (by or authority()).issue(name_of("people", name), validity)


def chain_of(issued: Issued, by: Authority | None = None) -> list[bytes]:
    """Give the DER of a chain up to the root, as a handshake would have verified it."""
    certificates = (*issued.certificates, (by or authority()).certificate)
    return [one.public_bytes(serialization.Encoding.DER) for one in certificates]


@functools.cache
def rsa_key(name: str) -> rsa.RSAPrivateKey:
    """Make an RSA key once: that takes a tenth of a second."""
    del name
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def rsa_authority(
    name: str, *, key: str = "CA", by: Authority | None = None, path_length: int | None = None
) -> Authority:
    """Make a CA with an RSA key, a root or below another; libvomsapi verifies nothing else as it should."""
    own = rsa_key(key)
    subject = name_of("authorities", name)
    builder = _builder(subject, subject if by is None else by.certificate.subject, own.public_key(), VALID)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    usage = authority().certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    builder = builder.add_extension(usage, critical=True)
    signed = builder.sign(own if by is None else by.key, hashes.SHA256())
    return Authority(signed, own)  # type: ignore[arg-type] # keys of both kinds sign alike


def rsa_host(name: str, by: Authority, *, key: str, validity: Validity = VALID) -> Issued:
    """Issue a server's certificate for an RSA key."""
    return _rsa(name_of("hosts", name), by, rsa_key(key), validity, LOOPBACK)


def rsa_person(name: str, by: Authority) -> Issued:
    """Issue a user's certificate for an RSA key, which is all that the grid's own programs take."""
    return _rsa(name_of("people", name), by, rsa_key(name), VALID, ())


def _rsa(
    subject: x509.Name, by: Authority, key: rsa.RSAPrivateKey, validity: Validity, hosts: Sequence[x509.GeneralName]
) -> Issued:
    builder = _builder(subject, by.certificate.subject, key.public_key(), validity)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
    return Issued((builder.sign(by.key, hashes.SHA256()),), key)  # type: ignore[arg-type] # keys of both kinds sign alike


def _builder(
    subject: x509.Name, issuer: x509.Name, key: rsa.RSAPublicKey, validity: Validity
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity.begin)
        .not_valid_after(validity.end)
    )


@dataclasses.dataclass(frozen=True)
class OddProxy:
    """A proxy with one thing wrong; the defaults are right."""

    info: bytes | None = INHERIT_ALL_INFO
    """None leaves the extension out, as GT2 proxies do."""
    info_oid: str = PROXY_CERT_INFO
    is_critical: bool = True
    more: Sequence[x509.ExtensionType] = ()
    uncritical: Sequence[x509.ExtensionType] = ()
    validity: Validity = VALID
    last: Sequence[x509.NameAttribute[str]] = (x509.NameAttribute(NameOID.COMMON_NAME, "proxy"),)
    subject: x509.Name | None = None

    def of(self, issuer: Issued) -> Issued:
        """Issue it."""
        key = ec.generate_private_key(ec.SECP256R1())
        rdns = [*issuer.leaf.subject.rdns, x509.RelativeDistinguishedName(self.last)]
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.subject or x509.Name(rdns))
            .issuer_name(issuer.leaf.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.validity.begin)
            .not_valid_after(self.validity.end)
        )
        if self.info is not None:
            extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(self.info_oid), self.info)
            builder = builder.add_extension(extension, critical=self.is_critical)
        for extra in self.more:
            builder = builder.add_extension(extra, critical=True)
        for extra in self.uncritical:
            builder = builder.add_extension(extra, critical=False)
        return Issued((builder.sign(issuer.key, hashes.SHA256()), *issuer.certificates), key)


def restricted_info(policy: bytes = b"only on Sundays") -> bytes:
    """Encode a ProxyCertInfo that inherits all and yet holds a policy."""
    told = ProxyCertInfo({"proxy_policy": {"policy_language": INHERIT_ALL, "policy": core.OctetString(policy)}})
    return bytes(told.dump())
