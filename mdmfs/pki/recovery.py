"""Recovery keys: a fresh key wrapped for the certificate whose private key lies in a safe, and unwrapped with it.

RSA by OAEP with SHA-256 (RFC 8017 section 7.1), elliptic curves by HPKE (RFC 9180).
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Final, Self

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from mdmfs.model.errors import ConfigurationError, WrongKeyError

RSA_OAEP: Final = "RSA-OAEP-SHA256"
MIN_RSA_BITS: Final = 2048
_INFO: Final = b"mdmfs recovery 1"
_KEMS: Final = {"secp256r1": KEM.P256, "secp384r1": KEM.P384, "secp521r1": KEM.P521}

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class WrappedKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key that only the owner of a certificate can use."""

    recipient: str
    """SHA-256 of the certificate's public key (SubjectPublicKeyInfo), in hexadecimal digits."""
    scheme: str
    octets: str
    """In Base64."""

    @classmethod
    def wrap(cls, secret: bytes, certificate: x509.Certificate) -> Self:
        """Wrap a key; raises ``ConfigurationError`` for a certificate of another kind than RSA or a NIST curve."""
        public = certificate.public_key()
        if isinstance(public, rsa.RSAPublicKey) and public.key_size >= MIN_RSA_BITS:
            return cls(_digest(public), RSA_OAEP, base64.b64encode(public.encrypt(secret, _oaep())).decode())
        if isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name in _KEMS:
            wrapped = _suite(public.curve.name).encrypt(secret, public, _INFO)
            return cls(_digest(public), public.curve.name, base64.b64encode(wrapped).decode())
        message = f"a recovery certificate is of RSA with {MIN_RSA_BITS} bits or more, or of P-256, P-384 or P-521"
        raise ConfigurationError(message)

    def unwrap(self, private: PrivateKey) -> bytes:
        """Give the key; raises ``WrongKeyError``."""
        if _digest(private.public_key()) != self.recipient:
            message = f"this key is not that of the recovery certificate, whose public key has SHA-256 {self.recipient}"
            raise WrongKeyError(message, what_to_do="name the private key of that certificate")
        try:
            octets = base64.b64decode(self.octets, validate=True)
            if isinstance(private, rsa.RSAPrivateKey):
                return private.decrypt(octets, _oaep())
            return _suite(private.curve.name).decrypt(octets, private, _INFO)
        except (ValueError, InvalidTag, KeyError) as error:
            message = "the key that is wrapped in the backup's head is damaged"
            raise WrongKeyError(message, what_to_do="take another copy of the backup, or an older one") from error


def read_certificate(path: Path) -> x509.Certificate:
    """Read a recovery certificate in PEM; raises ``ConfigurationError``."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        message = f"the recovery certificate {path} cannot be read: {error.strerror}"
        raise ConfigurationError(message) from error
    except ValueError as error:
        message = f"the recovery certificate {path} is none in PEM"
        raise ConfigurationError(message) from error


def read_private_key(path: Path, passphrase: bytes | None = None) -> PrivateKey:
    """Read a private key in PEM; raises ``ConfigurationError``, and ``TypeError`` where a passphrase is needed."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), passphrase)
    except OSError as error:
        message = f"the recovery key {path} cannot be read: {error.strerror}"
        raise ConfigurationError(message) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        message = f"the recovery key {path} is none in PEM, or the passphrase is another"
        raise ConfigurationError(message) from error
    if isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        return key
    message = f"the recovery key {path} is neither of RSA nor of an elliptic curve"
    raise ConfigurationError(message)


def _suite(curve: str) -> Suite:
    return Suite(_KEMS[curve], KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def _oaep() -> padding.OAEP:
    return padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


def _digest(public: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> str:
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()
