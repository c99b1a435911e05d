"""Proxies: a chain proves its end entity, or nothing."""

from __future__ import annotations

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from mdmfs.demo.pki import Authority, Issued, Validity, delegate, name_of
from mdmfs.model.errors import CredentialRefusedError
from mdmfs.pki.certificate import KEY_USAGE, PROXY_CERT_INFO
from mdmfs.pki.proxy import LIMITED, ProxyCertInfo, principal_of
from tests.twins import certificates as make

USER = make.person("jane")
PROXY = delegate(USER, make.VALID)
EMPTY_USAGE = x509.UnrecognizedExtension(x509.ObjectIdentifier(KEY_USAGE), b"\x03\x00")
ASN1 = x509.name._ASN1Type  # noqa: SLF001 the only way to choose a string type


def cn(text: str) -> x509.NameAttribute[str]:
    """Name by a CN."""
    return x509.NameAttribute(NameOID.COMMON_NAME, text)


def usage(**asserted: bool) -> x509.KeyUsage:
    """Say what a key may be used for; nothing else."""
    names = ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"]
    names += ["key_cert_sign", "crl_sign", "encipher_only", "decipher_only"]
    return x509.KeyUsage(**{name: asserted.get(name, False) for name in names})


def test_an_end_entity_is_itself() -> None:
    """Without a proxy the leaf's subject is the principal."""
    principal = principal_of(make.chain_of(USER))
    assert str(principal.dn) == "/O=mdmfs demonstration/OU=people/CN=jane"
    assert principal.fqans == ()


@pytest.mark.parametrize("depth", [1, 2, 9])
@pytest.mark.parametrize("policy", ["1.3.6.1.5.5.7.21.1", LIMITED])
def test_a_proxy_of_any_depth_stands_for_its_end_entity(depth: int, policy: str) -> None:
    """Inherit-all and limited, all the way down."""
    issued = USER
    for _ in range(depth):
        issued = delegate(issued, make.VALID, policy=policy)
    assert principal_of(make.chain_of(issued)).dn == USER.dn


def test_the_first_certificate_to_end_ends_the_principal() -> None:
    """Whether it is the proxy or one above it."""
    short = Validity.lasting(make.NOW, dt.timedelta(hours=1))
    outer = delegate(delegate(USER, short), make.VALID)
    assert principal_of(make.chain_of(outer)).not_after == short.end.replace(microsecond=0).timestamp()


@pytest.mark.parametrize("policy", [make.INDEPENDENT, make.UNKNOWN_POLICY])
@pytest.mark.parametrize("is_hidden", [False, True])
def test_a_proxy_with_rights_of_its_own_or_unknown_ones_is_refused(policy: str, is_hidden: bool) -> None:  # noqa: FBT001 a case
    """Also where a harmless proxy was made from it."""
    issued = delegate(USER, make.VALID, policy=policy)
    with pytest.raises(CredentialRefusedError, match="policy"):
        principal_of(make.chain_of(delegate(issued, make.VALID) if is_hidden else issued))


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(make.OddProxy(info=make.restricted_info()), id="restricted"),
        pytest.param(make.OddProxy(is_critical=False), id="not critical"),
        pytest.param(make.OddProxy(info=None), id="GT2"),
        pytest.param(make.OddProxy(info=None, last=[cn("limited proxy")]), id="GT2 limited"),
        pytest.param(make.OddProxy(info_oid=make.DRAFT_PROXY_CERT_INFO), id="draft"),
        pytest.param(make.OddProxy(info=b""), id="empty info"),
        pytest.param(make.OddProxy(info=b"\x30\x80\x00\x00"), id="indefinite info"),
        pytest.param(make.OddProxy(info=make.INHERIT_ALL_INFO + b"\x00"), id="info and more"),
        pytest.param(make.OddProxy(last=[x509.NameAttribute(NameOID.ORGANIZATION_NAME, "x")]), id="last is no CN"),
        pytest.param(
            make.OddProxy(last=[cn("x"), x509.NameAttribute(NameOID.USER_ID, "y")]),
            id="last has two",
        ),
        pytest.param(make.OddProxy(subject=name_of("people", "mallory")), id="another's name"),
        pytest.param(make.OddProxy(subject=USER.leaf.subject), id="the user's own name"),
        pytest.param(make.OddProxy(more=[EMPTY_USAGE]), id="a usage without a bit"),
        pytest.param(make.OddProxy(more=[x509.BasicConstraints(ca=True, path_length=None)]), id="a CA"),
        pytest.param(make.OddProxy(more=[x509.SubjectAlternativeName([x509.DNSName("hospital")])]), id="another name"),
        pytest.param(make.OddProxy(more=[x509.IssuerAlternativeName([x509.DNSName("hospital")])]), id="another issuer"),
    ],
)
def test_an_odd_proxy_is_refused(odd: make.OddProxy) -> None:
    """What RFC 3820 forbids, and what came before it."""
    with pytest.raises(CredentialRefusedError):
        principal_of(make.chain_of(odd.of(USER)))


def test_the_proxy_that_the_odd_ones_differ_from_is_accepted() -> None:
    """Otherwise the test above would prove nothing."""
    assert principal_of(make.chain_of(make.OddProxy().of(USER))).dn == USER.dn


@pytest.mark.parametrize(("limit", "below", "is_accepted"), [(0, 0, True), (0, 1, False), (1, 1, True), (1, 2, False)])
def test_a_chain_is_no_longer_than_each_proxy_allows(limit: int, below: int, is_accepted: bool) -> None:  # noqa: FBT001 a column
    """The limit counts the proxies that hang on this one."""
    issued = delegate(USER, make.VALID, path_length=limit)
    for _ in range(below):
        issued = delegate(issued, make.VALID)
    if is_accepted:
        assert principal_of(make.chain_of(issued)).dn == USER.dn
    else:
        with pytest.raises(CredentialRefusedError, match="longer"):
            principal_of(make.chain_of(issued))


def test_a_user_whose_key_may_not_sign_makes_no_proxies() -> None:
    """RFC 3820 section 3.1: the issuer's key usage."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(
        name_of("authorities", "CA of the tests"), name_of("people", "agreer"), key.public_key(),
        x509.random_serial_number(), make.VALID.begin, make.VALID.end,
    )  # fmt: skip
    builder = builder.add_extension(usage(key_agreement=True), critical=True)
    user = Issued((builder.sign(make.authority().key, hashes.SHA256()),), key)
    assert principal_of(make.chain_of(user)).dn == user.dn
    with pytest.raises(CredentialRefusedError, match="may not issue"):
        principal_of(make.chain_of(delegate(user, make.VALID)))


def test_a_ca_is_no_principal_and_issues_no_proxies() -> None:
    """Its certificate as the leaf, or right above a proxy."""
    root = Issued((make.authority().certificate,), make.authority().key)
    with pytest.raises(CredentialRefusedError):
        principal_of(make.chain_of(root))
    with pytest.raises(CredentialRefusedError):
        principal_of(make.chain_of(delegate(root, make.VALID)))


def test_a_certificate_issued_by_an_end_entity_is_refused() -> None:
    """As if OpenSSL had not looked."""
    forged = Authority(USER.leaf, USER.key).issue(name_of("people", "mallory"), make.VALID)
    chain = make.chain_of(Issued((*forged.certificates, *USER.certificates), forged.key))
    with pytest.raises(CredentialRefusedError, match="not issued by a CA"):
        principal_of(chain)


def test_an_incomplete_chain_is_refused() -> None:
    """Nothing, a leaf alone, proxies alone, thirty-three certificates."""
    chain = make.chain_of(PROXY)
    for cut in ([], chain[:1], chain[:2], chain * 11):
        with pytest.raises(CredentialRefusedError):
            principal_of(cut)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(cn("ja\x00ne"), id="NUL"),
        pytest.param(x509.NameAttribute(NameOID.COMMON_NAME, "j\xe4ne", ASN1.T61String), id="T61"),
        pytest.param(x509.NameAttribute(NameOID.X500_UNIQUE_IDENTIFIER, b"jane", ASN1.BitString), id="bits"),
    ],
)
def test_a_name_that_is_not_plain_text_is_refused(value: x509.NameAttribute[str]) -> None:
    """What two programs might read differently."""
    odd = make.authority().issue(
        x509.Name([*name_of("people", "x").rdns, x509.RelativeDistinguishedName([value])]), make.VALID
    )
    with pytest.raises(CredentialRefusedError):
        principal_of(make.chain_of(odd))


@pytest.mark.parametrize("text", ["Jane/CN=admin", "J\u00e4ne", "a,b+c", "\u674e"])
def test_a_name_is_read_by_its_attributes_never_through_text(text: str) -> None:
    """A separator in a value stays in the value."""
    issued = make.person(text)
    assert principal_of(make.chain_of(issued)).dn.rdns[-1] == (("CN", text),)


@given(st.data())
def test_a_changed_byte_is_read_or_refused(data: st.DataObject) -> None:
    """Whatever stands in a chain, nothing but a principal or ``CredentialRefusedError`` comes out."""
    chain = make.chain_of(PROXY)
    place = data.draw(st.integers(0, len(chain) - 1))
    position = data.draw(st.integers(0, len(chain[place]) - 1))
    octets = bytearray(chain[place])
    octets[position] ^= data.draw(st.integers(1, 255))
    chain[place] = bytes(octets)
    try:
        principal_of(chain)
    except CredentialRefusedError as error:
        assert str(error)  # noqa: PT017 both outcomes are right


def test_proxy_cert_info_is_the_oid_of_rfc_3820() -> None:
    """And its structure has the DER that ``openssl`` makes of the standard's example: inherit all, no limit."""
    assert PROXY_CERT_INFO == "1.3.6.1.5.5.7.1.14"
    expected = bytes.fromhex("300c300a06082b06010505071501")
    assert ProxyCertInfo({"proxy_policy": {"policy_language": "1.3.6.1.5.5.7.21.1"}}).dump() == expected
