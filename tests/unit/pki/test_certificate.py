"""One certificate: whose key made a signature, and what is read of it."""

from __future__ import annotations

import functools

import pytest
from asn1crypto import algos, core
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa

from mdmfs.demo.pki import name_of
from mdmfs.model.errors import CredentialRefusedError, MalformedNameError
from mdmfs.pki.certificate import BASIC_CONSTRAINTS, Certificate
from mdmfs.pki.dn import dn_of
from mdmfs.pki.voms import SUBJECT_KEY
from tests.twins import certificates as make

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
KINDS = ["rsa", "ec", "ed25519", "ed448"]
OCTETS = b"what is signed"


def key_of(kind: str, which: int = 0) -> Key:
    """Give a key of a kind; every other number is another key."""
    return _made(kind, which)


@functools.cache
def _made(kind: str, which: int) -> Key:
    del which
    match kind:
        case "rsa":
            return rsa.generate_private_key(65537, 2048)
        case "short rsa":
            return rsa.generate_private_key(65537, 2047)  # noqa: S505 that is the attack
        case "ec":
            return ec.generate_private_key(ec.SECP256R1())
        case "ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case _:
            return ed448.Ed448PrivateKey.generate()


def certificate(key: Key, name: str = "jane", by: Key | None = None, issuer: str = "jane") -> x509.Certificate:
    """Certify a key, by itself or by another's."""
    signer = by or key
    digest = None if isinstance(signer, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else hashes.SHA256()
    builder = x509.CertificateBuilder(
        name_of("people", issuer), name_of("people", name), key.public_key(), 4711, make.VALID.begin, make.VALID.end
    )
    return builder.sign(signer, digest)


def read(made: x509.Certificate) -> Certificate:
    """Read it as it is judged."""
    return Certificate(made.public_bytes(serialization.Encoding.DER))


def signed(by: str, scheme: str, signature: bytes, octets: bytes = OCTETS) -> bool:
    """Ask whether the key of a kind made a signature of this scheme."""
    return read(certificate(key_of(by))).signed(algos.SignedDigestAlgorithm({"algorithm": scheme}), signature, octets)


def signature_of(kind: str, digest: hashes.HashAlgorithm, which: int = 0) -> bytes:
    """Sign with the key of a kind."""
    match key_of(kind, which):
        case rsa.RSAPrivateKey() as key:
            return key.sign(OCTETS, padding.PKCS1v15(), digest)
        case ec.EllipticCurvePrivateKey() as key:
            return key.sign(OCTETS, ec.ECDSA(digest))
        case key:
            return key.sign(OCTETS)


@pytest.mark.parametrize("kind", KINDS)
def test_who_issued_a_certificate_is_told_by_name_and_key(kind: str) -> None:
    """Neither of them is enough."""
    leaf = read(certificate(key_of("ec"), "leaf", by=key_of(kind), issuer="issuer"))
    assert read(certificate(key_of(kind), "issuer")).issued(leaf)
    assert not read(certificate(key_of(kind), "another")).issued(leaf)
    assert not read(certificate(key_of(kind, 1), "issuer")).issued(leaf)


@pytest.mark.parametrize(
    ("kind", "scheme"),
    [("rsa", "sha256_rsa"), ("ec", "sha256_ecdsa"), ("ed25519", "ed25519"), ("ed448", "ed448")],
)
def test_a_signature_counts_for_its_key_its_octets_and_its_scheme(kind: str, scheme: str) -> None:
    """Another key, other octets or a scheme of other keys is none, and no error either."""
    right = signature_of(kind, hashes.SHA256())
    assert signed(kind, scheme, right)
    assert not signed(kind, scheme, signature_of(kind, hashes.SHA256(), 1))
    assert not signed(kind, scheme, right, OCTETS + b"!")
    for other in {"sha256_rsa", "sha256_ecdsa", "ed25519", "ed448"} - {scheme}:
        assert not signed(kind, other, right)
    for key in {*KINDS} - {kind}:
        assert not signed(key, scheme, right)


@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_digests_of_which_collisions_are_known_sign_nothing(kind: str) -> None:
    """SHA-1; and SHA-256, SHA-384 and SHA-512 each where it is the one that is named."""
    scheme = {"rsa": "rsa", "ec": "ecdsa"}[kind]
    old = hashes.SHA1()  # noqa: S303 that is the attack
    assert not signed(kind, f"sha1_{scheme}", signature_of(kind, old))
    for digest in (hashes.SHA256(), hashes.SHA384(), hashes.SHA512()):
        assert signed(kind, f"{digest.name}_{scheme}", signature_of(kind, digest))
        assert not signed(kind, f"{digest.name}_{scheme}", signature_of(kind, old))


def test_an_rsa_key_below_2048_bits_signs_nothing() -> None:
    """One bit less is too short."""
    assert not signed("short rsa", "sha256_rsa", signature_of("short rsa", hashes.SHA256()))
    assert signed("rsa", "sha256_rsa", signature_of("rsa", hashes.SHA256()))


def test_a_padding_that_is_not_known_here_is_no_signature() -> None:
    """RSASSA-PSS, which grids do not use."""
    key = key_of("rsa")
    assert isinstance(key, rsa.RSAPrivateKey)
    signature = key.sign(OCTETS, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    scheme = algos.SignedDigestAlgorithm(
        {"algorithm": "rsassa_pss", "parameters": algos.RSASSAPSSParams({"salt_length": 32})}
    )
    assert not read(certificate(key)).signed(scheme, signature, OCTETS)


def test_a_key_of_an_unknown_kind_is_refused_when_it_is_needed() -> None:
    """By the name of whose it is."""
    told = asn1_x509.Certificate.load(certificate(key_of("ec")).public_bytes(serialization.Encoding.DER))
    told["tbs_certificate"]["subject_public_key_info"]["algorithm"]["algorithm"] = "1.2.3.4"
    unknown = Certificate(told.dump(force=True))
    with pytest.raises(CredentialRefusedError, match="CN=jane is of no kind"):
        _ = unknown.key


def test_a_key_that_is_no_point_of_its_curve_is_refused_when_it_is_needed() -> None:
    """As one of an unknown kind is."""
    told = asn1_x509.Certificate.load(certificate(key_of("ec")).public_bytes(serialization.Encoding.DER))
    told["tbs_certificate"]["subject_public_key_info"]["public_key"] = b"\x04" + bytes(64)
    with pytest.raises(CredentialRefusedError, match="CN=jane is of no kind"):
        _ = Certificate(told.dump(force=True)).key


def test_a_certificate_with_octets_behind_it_is_not_read() -> None:
    """Two programs might read two things."""
    with pytest.raises(ValueError, match="trailing"):
        Certificate(certificate(key_of("ec")).public_bytes(serialization.Encoding.DER) + b"\x05\x00")


def test_a_certificate_with_an_extension_twice_is_refused() -> None:
    """Two programs might each take another of them."""
    made = certificate(key_of("ec")).public_bytes(serialization.Encoding.DER)
    told = asn1_x509.Certificate.load(made)
    told["tbs_certificate"]["version"] = "v3"
    extension = {"extn_id": "1.2.3.4", "critical": False, "extn_value": b"\x05\x00"}
    for count in (1, 2):
        told["tbs_certificate"]["extensions"] = [extension] * count
        if count == 1:
            assert not Certificate(told.dump(force=True)).critical
        else:
            with pytest.raises(CredentialRefusedError, match="twice"):
                Certificate(told.dump(force=True))


@pytest.mark.parametrize("value", ["8c046a616e65", "4c046a616e65", "2c060c046a616e65", "04046a616e65", "0202006a"])
def test_what_is_no_string_is_no_value_of_a_name(value: str) -> None:
    """Its octets may spell a name all the same; so they do here, under a type that the reader of DER does not know."""
    told = core.Any.load(bytes.fromhex(value))
    with pytest.raises(MalformedNameError):
        dn_of(named(told))
    assert str(dn_of(named(core.Any.load(bytes.fromhex("0c046a616e65"))))) == "/1.2.3.4=jane"


def named(value: core.Any) -> asn1_x509.Name:
    """Make a name of one attribute, of a type of our own."""
    attribute = asn1_x509.NameTypeAndValue({"type": "1.2.3.4", "value": value})
    rdn = asn1_x509.RelativeDistinguishedName([attribute])
    return asn1_x509.Name.load(asn1_x509.RDNSequence([rdn]).dump())


def test_what_is_critical_and_what_a_key_may_do_is_read() -> None:
    """Without a key usage a key may be used for anything (RFC 5280 section 4.2.1.3)."""
    plain, ca = read(certificate(key_of("ec"))), read(make.authority().certificate)
    assert plain.may("key_cert_sign")
    assert ca.may("key_cert_sign")
    assert not ca.may("data_encipherment")
    person = read(make.rsa_person("jane", make.rsa_authority("CA")).leaf)
    assert person.critical == {BASIC_CONSTRAINTS}
    assert person.extensions.keys() == {BASIC_CONSTRAINTS, SUBJECT_KEY}
