"""Certificates good and bad, made in memory for one test run: what the demonstration's PKI would never make."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
from collections.abc import Sequence

from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mdmfs.demo.pki import LOOPBACK, Authority, Issued, Validity, name_of
from mdmfs.pki.proxy import INHERIT_ALL, PROXY_CERT_INFO, ProxyCertInfo

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


@dataclasses.dataclass(frozen=True)
class OddProxy:
    """A proxy with one thing wrong; the defaults are right."""

    info: bytes | None = INHERIT_ALL_INFO
    """None leaves the extension out, as GT2 proxies do."""
    info_oid: str = PROXY_CERT_INFO
    is_critical: bool = True
    more: Sequence[x509.ExtensionType] = ()
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
            .not_valid_before(VALID.begin)
            .not_valid_after(VALID.end)
        )
        if self.info is not None:
            extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(self.info_oid), self.info)
            builder = builder.add_extension(extension, critical=self.is_critical)
        for extra in self.more:
            builder = builder.add_extension(extra, critical=True)
        return Issued((builder.sign(issuer.key, hashes.SHA256()), *issuer.certificates), key)


def restricted_info(policy: bytes = b"only on Sundays") -> bytes:
    """Encode a ProxyCertInfo that inherits all and yet holds a policy."""
    told = ProxyCertInfo({"proxy_policy": {"policy_language": INHERIT_ALL, "policy": core.OctetString(policy)}})
    return bytes(told.dump())
