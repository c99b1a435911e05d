"""Signatures with a host's own key: whose they are, of what, and which keys make none."""

from __future__ import annotations

from pathlib import Path

import pytest
from asn1crypto import x509 as asn1_x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from mdmfs.demo.pki import Issued
from mdmfs.model.errors import ConfigurationError, IntegrityError
from mdmfs.pki.signature import chain_of, refuse_other_signature, sign
from tests.twins import certificates as make

DOCUMENT = b"what a keystore certifies"
EC_KEY = bytes.fromhex("2a8648ce3d0201")
"""1.2.840.10045.2.1, as DER has it."""
HOSTS = {
    "EC": make.host("keystore"),
    "RSA": make.rsa_host("keystore", make.rsa_authority("CA of RSA"), key="keystore"),
}
OTHERS = {
    "EC": make.host("keystore"),
    "RSA": make.rsa_host("keystore", make.rsa_authority("CA of RSA"), key="another"),
}


def der(issued: Issued) -> bytes:
    """Give the certificate."""
    return issued.leaf.public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize("kind", list(HOSTS))
def test_a_signature_is_of_its_octets_by_its_key(tmp_path: Path, kind: str) -> None:
    """Changed anywhere it is none, nor by a certificate of the same name, nor by one of another kind of key."""
    credential = HOSTS[kind].save(tmp_path, "host")
    signature = sign(credential, DOCUMENT)
    refuse_other_signature(chain_of(credential)[0], DOCUMENT, signature)
    changed = signature[:-1] + bytes([signature[-1] ^ 1])
    other = next(issued for name, issued in HOSTS.items() if name != kind)
    for certificate, octets, told in (
        (der(HOSTS[kind]), DOCUMENT + b" ", signature),
        (der(HOSTS[kind]), DOCUMENT, changed),
        (der(HOSTS[kind]), DOCUMENT, b""),
        (der(OTHERS[kind]), DOCUMENT, signature),
        (der(other), DOCUMENT, signature),
        (b"no certificate", DOCUMENT, signature),
    ):
        with pytest.raises(IntegrityError):
            refuse_other_signature(certificate, octets, told)


def test_a_key_of_a_kind_that_signs_nothing_has_signed_nothing() -> None:
    """Neither one that is not used so, nor one that nobody knows."""
    key = ed25519.Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    told = asn1_x509.Certificate.load(der(HOSTS["EC"]))
    told["tbs_certificate"]["subject_public_key_info"] = asn1_x509.PublicKeyInfo.load(public)
    unknown = der(HOSTS["EC"]).replace(EC_KEY, EC_KEY[:-1] + b"\x7f")
    assert unknown != der(HOSTS["EC"])
    for certificate in (told.dump(force=True), unknown):
        with pytest.raises(IntegrityError):
            refuse_other_signature(certificate, DOCUMENT, key.sign(DOCUMENT))


@pytest.mark.parametrize("key", ["no pem", "passphrase", "ed25519"])
def test_a_key_that_cannot_sign_is_named(tmp_path: Path, key: str) -> None:
    """At once, and without waiting for a passphrase."""
    credential = HOSTS["EC"].save(tmp_path, "host")
    secret = serialization.BestAvailableEncryption(b"secret") if key == "passphrase" else serialization.NoEncryption()
    made = ed25519.Ed25519PrivateKey.generate()
    pem = made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret)
    credential.key_file.write_bytes(b"no key" if key == "no pem" else pem)
    with pytest.raises(ConfigurationError, match=r"host\.key"):
        sign(credential, DOCUMENT)


def test_certificates_are_given_leaf_first_and_nothing_else(tmp_path: Path) -> None:
    """Of a proxy's file not its key; what is no PEM is named."""
    user = make.person("jane")
    credential = user.save_proxy(tmp_path / "proxy")
    assert chain_of(credential) == [der(user)]
    credential.certificate_file.write_text("nothing")
    with pytest.raises(ConfigurationError, match="proxy"):
        chain_of(credential)
    credential.certificate_file.unlink()
    with pytest.raises(ConfigurationError, match="proxy"):
        chain_of(credential)
