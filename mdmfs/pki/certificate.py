"""A certificate as it is judged here: names, extensions, times, and whether a key made a signature."""

from __future__ import annotations

import functools
from typing import Final

from asn1crypto import algos, x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from mdmfs.model.errors import CredentialRefusedError
from mdmfs.pki.dn import dn_of

PROXY_CERT_INFO: Final = "1.3.6.1.5.5.7.1.14"
KEY_USAGE: Final = "2.5.29.15"
BASIC_CONSTRAINTS: Final = "2.5.29.19"
_HASHES: Final = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}
MIN_RSA_BITS: Final = 2048
UNREADABLE: Final = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError)
"""What asn1crypto raises for octets that are no DER, sooner or later; found by noise."""


class Certificate:
    """A certificate with its names, times, constraints, and extensions by OID."""

    def __init__(self, der: bytes) -> None:
        """Read all of it that is judged now: asn1crypto reads a field when it is first asked for.

        Raises one of ``UNREADABLE``, or ``CredentialRefusedError``; later only ``key`` raises.
        """
        self.der = der
        self.certificate = x509.Certificate.load(der, strict=True)
        self.extensions = _by_oid(self.certificate["tbs_certificate"]["extensions"])
        self.critical = frozenset(oid for oid, one in self.extensions.items() if one["critical"].native)
        self.subject = dn_of(self.certificate.subject)
        self.issuer = dn_of(self.certificate.issuer)
        self.serial = int(self.certificate.serial_number)
        self.begins = float(self.certificate.not_valid_before.timestamp())
        """When it begins to count, in seconds since the epoch."""
        self.ends = float(self.certificate.not_valid_after.timestamp())
        """When it ends, in seconds since the epoch."""
        constraints = self.extensions.get(BASIC_CONSTRAINTS)
        told = None if constraints is None else constraints["extn_value"].parsed
        self.is_ca = told is not None and bool(told["ca"].native)
        self.path_length: int | None = None if told is None else told["path_len_constraint"].native
        """How many CAs may stand between this one and an end entity; None where nothing says so."""
        usage = self.extensions.get(KEY_USAGE)
        self._usages: frozenset[str] | None = None if usage is None else frozenset(usage["extn_value"].parsed.native)

    @property
    def is_proxy(self) -> bool:
        """Tell an RFC 3820 proxy by its extension."""
        return PROXY_CERT_INFO in self.extensions

    @property
    def is_self_issued(self) -> bool:
        """Tell a root, or a CA's link between two keys of its own."""
        return self.subject == self.issuer

    @functools.cached_property
    def key(self) -> PublicKeyTypes:
        """The public key; raises ``CredentialRefusedError`` for a kind that is not known."""
        try:
            return serialization.load_der_public_key(self.certificate.public_key.dump())
        except (ValueError, UnsupportedAlgorithm) as error:
            message = f"the key of {self.subject} is of no kind that is known here"
            raise CredentialRefusedError(message) from error

    def may(self, usage: str) -> bool:
        """Ask whether the key may be used so; without the extension it may (RFC 5280 section 4.2.1.3)."""
        return self._usages is None or usage in self._usages

    def issued(self, other: Certificate) -> bool:
        """Ask whether this one's name and key are those that signed the other."""
        signed = other.certificate
        return other.issuer == self.subject and self.signed(
            signed["signature_algorithm"], signed["signature_value"].native, signed["tbs_certificate"].dump()
        )

    def signed(self, algorithm: algos.SignedDigestAlgorithm, signature: bytes, octets: bytes) -> bool:
        """Ask whether this one's key made a signature; MD5, SHA-1 and RSA below 2048 bits made none."""
        digest, key, scheme = _HASHES.get(algorithm.hash_algo), self.key, algorithm.signature_algo
        try:
            if (
                isinstance(key, rsa.RSAPublicKey)
                and scheme == "rsassa_pkcs1v15"
                and digest
                and key.key_size >= MIN_RSA_BITS
            ):
                key.verify(signature, octets, padding.PKCS1v15(), digest)
            elif isinstance(key, ec.EllipticCurvePublicKey) and scheme == "ecdsa" and digest:
                key.verify(signature, octets, ec.ECDSA(digest))
            elif (isinstance(key, ed25519.Ed25519PublicKey) and scheme == "ed25519") or (
                isinstance(key, ed448.Ed448PublicKey) and scheme == "ed448"
            ):
                key.verify(signature, octets)
            else:
                return False
        except InvalidSignature:
            return False
        return True


def _by_oid(listed: x509.Extensions) -> dict[str, x509.Extension]:
    extensions = {extension["extn_id"].dotted: extension for extension in listed}
    if len(extensions) != len(listed):
        message = "a certificate of the chain has an extension twice"
        raise CredentialRefusedError(message)
    return extensions
