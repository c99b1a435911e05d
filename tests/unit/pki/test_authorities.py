"""A CA directory: who may sign for whom, who was revoked, and what happens when its files are broken or change."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from mdmfs.demo.pki import Authority, Validity, delegate
from mdmfs.model.errors import ConfigurationError, CredentialExpiredError, CredentialRefusedError
from mdmfs.model.identity import Fqan
from mdmfs.pki.authorities import Authorities
from mdmfs.pki.certificate import Certificate
from mdmfs.pki.judge import Judge, Verdict
from mdmfs.pki.revocation import RevocationList
from mdmfs.pki.trust import Crls, TrustAnchors
from mdmfs.pki.voms import Grant, VomsDirectory
from tests.twins import certificates as make
from tests.twins.attributes import Ac, carrying, lsc_of
from tests.twins.grid import Grid, crl_of, hash_of, make_grid, policy_of

CA = make.authority()
JANE = make.person("jane")
VOMS = make.host("voms")
CHAIN = make.chain_of(delegate(JANE, make.VALID))


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    """Trust the tests' CA."""
    return make_grid(tmp_path, VOMS)


def is_let_in(grid: Grid, crls: Crls = Crls.IF_PRESENT) -> bool:
    """Ask a judge who has just read the files."""
    try:
        Judge(TrustAnchors(grid.certificates, crls)).judge(CHAIN)
    except CredentialRefusedError:
        return False
    return True


@pytest.mark.parametrize(("crls", "expected"), [(Crls.IF_PRESENT, True), (Crls.REQUIRE, False)])
def test_a_ca_without_a_list_is_a_matter_of_configuration(grid: Grid, crls: Crls, expected: bool) -> None:  # noqa: FBT001 a column
    """With a list, both let the same people in."""
    assert is_let_in(grid, crls) is expected
    grid.write_crl(CA, crl_of(CA))
    assert is_let_in(grid, crls)
    grid.write_crl(CA, crl_of(CA, [JANE.leaf]))
    assert not is_let_in(grid, crls)


SCOPE = {
    "full_name": None, "relative_name": None, "only_contains_user_certs": False, "only_contains_ca_certs": False,
    "only_some_reasons": None, "indirect_crl": False, "only_contains_attribute_certs": False,
}  # fmt: skip
REASONS = frozenset({x509.ReasonFlags.key_compromise})
ECDSA_WITH_SHA256, ECDSA_WITH_WHAT = bytes.fromhex("2a8648ce3d040302"), bytes.fromhex("2a8648ce3d040309")


def der_of(crl: bytes) -> bytes:
    """Give a list in its other form."""
    return x509.load_pem_x509_crl(crl).public_bytes(serialization.Encoding.DER)


URI = [x509.UniformResourceIdentifier("http://crl.example/1")]
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        pytest.param(crl_of(CA, validity=Validity(make.PAST.begin, make.PAST.end)), False, id="expired"),
        pytest.param(
            crl_of(CA, validity=Validity(make.VALID.end, make.VALID.end + dt.timedelta(1))), False, id="early"
        ),
        pytest.param(crl_of(make.authority("other CA")), False, id="another's"),
        pytest.param(crl_of(Authority.make(CA.certificate.subject, make.VALID)), False, id="another key"),
        pytest.param(b"", False, id="empty"),
        pytest.param(crl_of(CA)[:-60], False, id="cut"),
        pytest.param(crl_of(CA).replace(b"\nMI", b"\nMJ", 1), False, id="damaged"),
        pytest.param(crl_of(CA, more=[(x509.DeltaCRLIndicator(1), True)]), False, id="changes only"),
        pytest.param(crl_of(CA, more=[(UNKNOWN, True)]), False, id="unknown critical extension"),
        pytest.param(crl_of(CA, more=[(UNKNOWN, False)]), True, id="unknown extension"),
        pytest.param(crl_of(CA, more=[(x509.CRLNumber(7), False)]), True, id="numbered"),
        pytest.param(crl_of(CA, more=[(x509.CRLNumber(7), True)]), True, id="critically numbered"),
        pytest.param(crl_of(CA, more=[(x509.DeltaCRLIndicator(1), False)]), False, id="uncritically changes only"),
        pytest.param(
            crl_of(CA, more=[(x509.IssuingDistributionPoint(**SCOPE | {"only_some_reasons": REASONS}), True)]),
            False,
            id="of some reasons",
        ),
        pytest.param(
            crl_of(CA, more=[(x509.IssuingDistributionPoint(**SCOPE | {"only_contains_attribute_certs": True}), True)]),
            False,
            id="of ACs",
        ),
        pytest.param(der_of(crl_of(CA)), True, id="DER"),
        pytest.param(der_of(crl_of(CA)).replace(ECDSA_WITH_SHA256, ECDSA_WITH_WHAT), False, id="signed somehow"),
        pytest.param(
            crl_of(CA, more=[(x509.IssuingDistributionPoint(**SCOPE | {"full_name": URI}), True)]), True, id="one point"
        ),
        pytest.param(
            crl_of(CA, more=[(x509.IssuingDistributionPoint(**SCOPE | {"only_contains_user_certs": True}), True)]),
            True,
            id="of users",
        ),
        pytest.param(
            crl_of(CA, more=[(x509.IssuingDistributionPoint(**SCOPE | {"only_contains_ca_certs": True}), True)]),
            False,
            id="of CAs",
        ),
        pytest.param(
            crl_of(CA, more=[(x509.IssuingDistributionPoint(**SCOPE | {"indirect_crl": True}), True)]),
            False,
            id="indirect",
        ),
    ],
)
def test_a_list_that_is_there_must_be_good(grid: Grid, octets: bytes, expected: bool) -> None:  # noqa: FBT001 a column
    """Or nobody below the CA is let in: a list that cannot be believed is no list to go by."""
    grid.write_crl(CA, octets)
    assert is_let_in(grid) is expected


def test_every_list_of_a_ca_counts(grid: Grid) -> None:
    """Listed in one of them is revoked; an old one beside a current one harms nobody."""
    grid.write_crl(CA, crl_of(CA, validity=make.PAST))
    second = grid.certificates / f"{hash_of(CA)}.r1"
    second.write_bytes(crl_of(CA))
    assert is_let_in(grid)
    second.write_bytes(crl_of(CA, [JANE.leaf]))
    assert not is_let_in(grid)
    grid.write_crl(CA, crl_of(CA))
    assert not is_let_in(grid)


def test_the_first_list_to_end_ends_a_verdict_at_that_second(grid: Grid) -> None:
    """A list counts from its first second to the one before its last."""
    short = RevocationList.parse(crl_of(CA, validity=make.seconds_from_now(60)))
    assert [short.is_current(now) for now in (short.begins - 1, short.begins, short.ends - 1, short.ends)] == [
        False, True, True, False,
    ]  # fmt: skip
    grid.write_crl(CA, crl_of(CA))
    (grid.certificates / f"{hash_of(CA)}.r1").write_bytes(crl_of(CA, validity=make.seconds_from_now(60)))
    assert Judge(grid.anchors).judge(CHAIN).holds_until == pytest.approx(short.ends, abs=2)


def test_a_list_of_users_says_nothing_of_cas_and_the_other_way_round() -> None:
    """Or the list that a CA keeps of its users would vouch for a CA below it that was revoked."""
    for kind, expected in (("only_contains_user_certs", [True, False]), ("only_contains_ca_certs", [False, True])):
        told = RevocationList.parse(crl_of(CA, more=[(x509.IssuingDistributionPoint(**SCOPE | {kind: True}), True)]))
        assert [told.is_about(read(one)) for one in (JANE.leaf, CA.certificate)] == expected


@pytest.mark.parametrize("text", ["", "access_id_CA", "\xff"])
def test_a_ca_whose_policy_is_broken_signs_nothing(grid: Grid, text: str, caplog: pytest.LogCaptureFixture) -> None:
    """The file is named in the log; the other CAs count."""
    grid.trust(make.authority("other CA"))
    grid.write_policy(CA, text)
    assert not is_let_in(grid)
    assert f"{hash_of(CA)}.signing_policy" in caplog.text
    other = make.authority("other CA")
    assert Judge(grid.anchors).judge(make.chain_of(make.person("jane", other), other)).dn == JANE.dn


def test_a_ca_of_a_directory_that_has_no_policy_signs_nothing(grid: Grid) -> None:
    """Without its file it could sign for everybody of every other CA."""
    assert is_let_in(grid)
    (grid.certificates / f"{hash_of(CA)}.signing_policy").unlink()
    assert not is_let_in(grid)


def test_a_verdict_is_of_one_chain_alone(grid: Grid) -> None:
    """It is kept, and nobody gets another's: not a second person, a stranger, nor a chain whose bytes run on alike."""
    judge, joe, unknown = Judge(grid.anchors), make.person("joe", CA), make.authority("unknown CA")
    for person in (JANE, joe, JANE, joe):
        assert judge.judge(make.chain_of(person, CA)).dn == person.dn
    for chain in (make.chain_of(make.person("jane", unknown), unknown), [b"".join(make.chain_of(JANE, CA))]):
        with pytest.raises(CredentialRefusedError):
            judge.judge(chain)


def test_a_ca_that_is_unreadable_is_logged_and_the_others_count(grid: Grid, caplog: pytest.LogCaptureFixture) -> None:
    """Also a link that leads nowhere, as packages leave them behind."""
    (grid.certificates / "01234567.0").write_bytes(b"-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----\n")
    (grid.certificates / "01234568.0").symlink_to("gone.pem")
    assert is_let_in(grid)
    assert "01234567.0" in caplog.text
    assert "01234568.0" in caplog.text


def test_policies_under_both_hashes_must_allow(grid: Grid) -> None:
    """Directories hold each CA under an old and a new hash."""
    (grid.certificates / "0123abcd.0").write_bytes((grid.certificates / f"{hash_of(CA)}.0").read_bytes())
    assert is_let_in(grid)
    (grid.certificates / "0123abcd.signing_policy").write_text(policy_of(CA, "/O=other/*"))
    assert not is_let_in(grid)


def test_a_serial_number_that_no_list_can_name_is_refused(grid: Grid) -> None:
    """A negative one: the reader of lists does not look for it, and not found would mean not revoked."""
    odd = asn1_x509.Certificate.load(CHAIN[1])
    odd["tbs_certificate"]["serial_number"] = -5
    chain = [CHAIN[0], odd.dump(force=True), CHAIN[2]]
    judge = Judge(grid.anchors)
    assert judge.judge(chain).dn == JANE.dn
    grid.write_crl(CA, crl_of(CA))
    judge.look()
    with pytest.raises(CredentialRefusedError, match="cannot be judged"):
        judge.judge(chain)


def test_an_old_certificate_of_a_ca_does_not_hide_the_new_one(grid: Grid) -> None:
    """The same name and key, another validity: directories hold both for a while."""
    old = Authority(again(CA, make.PAST), CA.key)
    grid.trust(CA, place=1)
    grid.trust(old)
    proxy = carrying([Ac(JANE.leaf, VOMS).der()]).of(JANE)
    judge = Judge(grid.anchors, VomsDirectory(grid.vomsdir))
    assert judge.judge(make.chain_of(proxy)).grants


def test_a_path_outside_a_handshake_takes_the_shortest_way_to_a_root_and_ends(tmp_path: Path) -> None:
    """CAs certify one another: who goes round in their certificates without end would never judge again."""
    other, another = make.authority("other CA"), make.authority("another CA")
    server = make.host("voms", another)
    round_trip = [again(another, make.VALID, other), again(other, make.VALID, another)]
    believed = Authorities.read(bundle_of(tmp_path, *round_trip, CA.certificate))
    now = make.NOW.timestamp()
    with pytest.raises(CredentialRefusedError, match="leads to no CA"):
        believed.path_of([read(server.leaf)], now)
    with_root = Authorities.read(bundle_of(tmp_path, *round_trip, another.certificate))
    assert [str(one.subject) for one in with_root.path_of([read(server.leaf)], now)] == [
        str(server.dn), "/O=mdmfs demonstration/OU=authorities/CN=another CA",
    ]  # fmt: skip


def test_a_path_counts_from_its_first_second_to_the_one_before_its_last(tmp_path: Path) -> None:
    """Of the certificate itself, as of a CA's that is looked for."""
    believed = Authorities.read(bundle_of(tmp_path, CA.certificate))
    short = Validity(make.NOW.replace(microsecond=0), make.NOW.replace(microsecond=0) + dt.timedelta(minutes=1))
    one = read(make.person("short", CA, short).leaf)
    believed.path_of([one], one.begins)
    for now in (one.begins - 1, one.ends):
        with pytest.raises(CredentialRefusedError, match="not valid now"):
            believed.path_of([one], now)
    root = read(CA.certificate)
    believed.path_of([read(make.person("long", CA, make.VALID).leaf)], root.begins)
    with pytest.raises(CredentialRefusedError, match="leads to no CA"):
        believed.path_of([one], root.ends)


def read(made: x509.Certificate) -> Certificate:
    """Read it as it is judged."""
    return Certificate(made.public_bytes(serialization.Encoding.DER))


def bundle_of(folder: Path, *certificates: x509.Certificate) -> TrustAnchors:
    """Trust these, in this order."""
    bundle = folder / "bundle.pem"
    bundle.write_bytes(b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates))
    return TrustAnchors(bundle)


def again(authority: Authority, validity: Validity, by: Authority | None = None) -> x509.Certificate:
    """Certify a CA's name and key once more, by itself or another."""
    signer = by or authority
    builder = x509.CertificateBuilder(
        signer.certificate.subject, authority.certificate.subject, authority.key.public_key(),
        x509.random_serial_number(), validity.begin, validity.end,
    )  # fmt: skip
    for extension in authority.certificate.extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    return builder.sign(signer.key, hashes.SHA256())


def test_a_bundle_has_neither_policies_nor_lists(tmp_path: Path) -> None:
    """It is for small sites: its CAs sign what they like; lists that are required are then missing."""
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(CA.certificate.public_bytes(serialization.Encoding.PEM))
    assert Judge(TrustAnchors(bundle)).judge(CHAIN).dn == JANE.dn
    with pytest.raises(CredentialRefusedError, match="CRL"):
        Judge(TrustAnchors(bundle, Crls.REQUIRE)).judge(CHAIN)
    with pytest.raises(CredentialRefusedError, match="among those trusted"):
        Judge(TrustAnchors(bundle)).judge(make.chain_of(make.person("jane", make.authority("x")), make.authority("x")))


def test_a_directory_without_a_ca_is_a_mistake_of_configuration(tmp_path: Path) -> None:
    """As is a bundle without one, and no file at all."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "none.pem").write_text("")
    for path in (tmp_path / "empty", tmp_path / "none.pem", tmp_path / "missing"):
        with pytest.raises(ConfigurationError):
            Judge(TrustAnchors(path))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda grid: grid.write_crl(CA, crl_of(CA, [JANE.leaf])), id="a list comes"),
        pytest.param(lambda grid: grid.write_policy(CA, policy_of(CA, "/O=other/*")), id="a policy narrows"),
        pytest.param(lambda grid: (grid.certificates / f"{hash_of(CA)}.0").unlink(), id="a CA goes"),
        pytest.param(lambda grid: grid.distrust(), id="the last CA goes"),
    ],
)
def test_a_judge_forgets_what_he_thought_when_a_file_changes(grid: Grid, change: Callable[[Grid], None]) -> None:
    """And only then; the number of the generation tells others."""
    grid.trust(make.authority("other CA"))
    judge = Judge(grid.anchors)
    verdict = judge.judge(CHAIN)
    assert judge.judge(CHAIN) is verdict
    assert not judge.look()
    change(grid)
    assert judge.look()
    assert judge.generation == 1
    with pytest.raises(CredentialRefusedError):
        judge.judge(CHAIN)


def test_a_judge_hears_of_a_vo_that_is_no_longer_believed(grid: Grid) -> None:
    """The vomsdir is looked at as the CA directory is, and one that is away is told, not taken for empty."""
    judge = Judge(grid.anchors, VomsDirectory(grid.vomsdir))
    chain = make.chain_of(carrying([Ac(JANE.leaf, VOMS).der()]).of(JANE))
    assert judge.judge(chain).grants
    grid.write_lsc(lsc_of(make.host("another").leaf))
    assert judge.look()
    assert not judge.judge(chain).grants
    grid.vomsdir.rename(grid.folder / "away")
    with pytest.raises(ConfigurationError, match="vomsdir"):
        judge.look()


def test_what_was_judged_by_files_that_have_changed_meanwhile_is_not_remembered(grid: Grid) -> None:
    """One thread judges, another one reads the list that revokes: the first must not file what it found."""
    changes = [lambda: (grid.write_crl(CA, crl_of(CA, [JANE.leaf])), judge.look())]

    def clock() -> float:
        if changes:
            changes.pop()()
        return time.time()

    judge = Judge(grid.anchors, clock=clock)
    judge.judge(CHAIN)
    with pytest.raises(CredentialRefusedError):
        judge.judge(CHAIN)


def test_a_judge_keeps_what_he_read_while_the_files_are_broken(grid: Grid) -> None:
    """He says so, and goes on with what he knew."""
    judge = Judge(grid.anchors)
    away = grid.certificates.rename(grid.folder / "away")
    with pytest.raises(ConfigurationError):
        judge.look()
    assert judge.judge(CHAIN).dn == JANE.dn
    away.rename(grid.certificates)
    assert not judge.look()


def test_a_verdict_is_asked_for_again_when_a_list_has_ended(grid: Grid) -> None:
    """A list that nobody renews refuses everybody from its last second on, connected or not."""
    now = [time.time()]
    grid.write_crl(CA, crl_of(CA, validity=make.seconds_from_now(60)))
    judge = Judge(grid.anchors, clock=lambda: now[0])
    verdict = judge.judge(CHAIN)
    assert now[0] < verdict.holds_until < now[0] + 61
    now[0] = verdict.holds_until
    with pytest.raises(CredentialRefusedError, match="CRL"):
        judge.judge(CHAIN)


def test_fqans_hold_no_longer_than_the_list_of_the_ca_of_their_voms_server(grid: Grid) -> None:
    """Else a VOMS server that was revoked would go on to give rights to all who are known already."""
    now, other = [time.time()], make.authority("CA of VOMS")
    grid.trust(other)
    grid.write_crl(CA, crl_of(CA, validity=make.seconds_from_now(3600)))
    grid.write_crl(other, crl_of(other, validity=make.seconds_from_now(60)))
    server = make.host("voms", other)
    grid.write_lsc(lsc_of(server.leaf))
    judge = Judge(grid.anchors, VomsDirectory(grid.vomsdir), clock=lambda: now[0])
    chain = make.chain_of(carrying([Ac(JANE.leaf, server).der()]).of(JANE))
    assert judge.judge(chain).grants
    now[0] += 120
    assert not judge.judge(chain).grants


@pytest.mark.parametrize("kind", ["chain", "AC"])
def test_at_its_end_nothing_counts_any_more(kind: str) -> None:
    """An end is the first moment at which there is nothing, a beginning the first at which there is something."""
    grant = Grant((Fqan.parse("/vo.example"),), 100.0, 200.0, 1000.0)
    verdict = Verdict(JANE.dn, 300.0, (grant,), 1000.0)
    if kind == "AC":
        assert [bool(verdict.principal(now).fqans) for now in (99.0, 100.0, 199.0, 200.0)] == [False, True, True, False]
    else:
        with pytest.raises(CredentialExpiredError):
            verdict.principal(300.0)


def test_fqans_end_with_their_ac_and_the_dn_with_the_chain(grid: Grid) -> None:
    """Two ACs, each with its own end; a principal never outlives what he is made of."""
    grid.write_lsc(lsc_of(VOMS.leaf))
    now = make.NOW.timestamp()
    acs = [
        Ac(JANE.leaf, VOMS, fqans=["/vo.example"], validity=make.seconds_from_now(3600)).der(),
        Ac(JANE.leaf, VOMS, fqans=["/vo.example/neuro/Role=reader"], validity=make.seconds_from_now(7200)).der(),
    ]
    proxy = carrying(acs, validity=make.seconds_from_now(14400)).of(JANE)
    verdict = Judge(grid.anchors, VomsDirectory(grid.vomsdir)).judge(make.chain_of(proxy))
    first, second, third = (verdict.principal(now + 3600 * hours) for hours in (0.5, 1.5, 3))
    assert [str(one) for one in first.fqans] == ["/vo.example", "/vo.example/neuro/Role=reader"]
    assert [str(one) for one in second.fqans] == ["/vo.example/neuro/Role=reader"]
    assert third.fqans == ()
    assert first.not_after < second.not_after < third.not_after
    assert verdict.principal(now + 1801) is first
    assert third.dn == JANE.dn
    with pytest.raises(CredentialExpiredError):
        verdict.principal(now + 5 * 3600)
