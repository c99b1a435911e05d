"""Signatures with a host's own key, for what others are to be shown later; OpenSSL alone can check them.

RSA by PKCS #1 v1.5 (RFC 8017 section 8.2), elliptic curves by ECDSA in DER (FIPS 186-5), both over SHA-256.
"""

from __future__ import annotations

from pathlib import Path

from asn1crypto import pem
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from mdmfs.model.errors import ConfigurationError, IntegrityError
from mdmfs.pki.tls import Credential, open_private


def sign(credential: Credential, octets: bytes) -> bytes:
    """Sign with the key of a credential; raises ``ConfigurationError``."""
    with open_private(credential.key_file) as path:
        try:
            key = serialization.load_pem_private_key(Path(path).read_bytes(), None)
        except (ValueError, TypeError) as error:
            message = f"{credential.key_file} holds no private key in PEM without a passphrase"
            raise ConfigurationError(message) from error
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(octets, padding.PKCS1v15(), hashes.SHA256())
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(octets, ec.ECDSA(hashes.SHA256()))
    message = f"the key {credential.key_file} is neither of RSA nor of an elliptic curve: nothing can be signed with it"
    raise ConfigurationError(message)


def chain_of(credential: Credential) -> list[bytes]:
    """Give the certificates of a credential in DER, leaf first; raises ``ConfigurationError``."""
    try:
        found = pem.unarmor(credential.certificate_file.read_bytes(), multiple=True)
        return [der for kind, _, der in found if kind == "CERTIFICATE"]
    except (OSError, ValueError) as error:
        message = f"{credential.certificate_file} holds no certificates in PEM"
        raise ConfigurationError(message) from error


def refuse_other_signature(certificate: bytes, octets: bytes, signature: bytes) -> None:
    """Raise ``IntegrityError`` unless the key of a certificate (DER) made this signature of these octets.

    Whose certificate it is, and whether a trusted CA issued it, the caller asks by other means.
    """
    try:
        public = x509.load_der_x509_certificate(certificate).public_key()
        if isinstance(public, rsa.RSAPublicKey):
            public.verify(signature, octets, padding.PKCS1v15(), hashes.SHA256())
            return
        if isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(signature, octets, ec.ECDSA(hashes.SHA256()))
            return
    except (InvalidSignature, UnsupportedAlgorithm, ValueError) as error:
        message = "the signature is not that of these octets by this certificate"
        raise IntegrityError(message) from error
    message = "a key of that kind signs nothing here"
    raise IntegrityError(message)
