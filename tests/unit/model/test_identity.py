"""DNs and FQANs: one value for each name, and no name that can imitate another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdmfs.model.errors import CredentialExpiredError, MalformedNameError
from mdmfs.model.identity import Dn, Fqan, Principal

TYPES = ["CN", "O", "OU", "DC", "C", "EMAILADDRESS", "UID", "1.2.3.4"]
VALUES = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12) | st.text(
    alphabet='/,+=\\"#;<> \n\x00aC2', min_size=1, max_size=8
)
RDNS = st.lists(st.tuples(st.sampled_from(TYPES), VALUES), min_size=1, max_size=3, unique=True).map(tuple)
DNS = st.lists(RDNS, min_size=1, max_size=5).map(lambda rdns: Dn(tuple(rdns)))
WORDS = st.text(alphabet="ab.-_9", min_size=1, max_size=4).filter(lambda word: word not in {".", ".."})
FQANS = st.builds(Fqan, st.lists(WORDS, min_size=1, max_size=4).map(tuple), st.none() | WORDS)


def rfc4514(dn: Dn) -> str:
    """Write the form of RFC 4514, leaf first: what is special with a backslash, what does not print in hexadecimal."""
    return ",".join("+".join(f"{kind}={escaped(value)}" for kind, value in rdn) for rdn in reversed(dn.rdns))


def escaped(value: str) -> str:
    """Write a value so that nothing of it separates, and no blank at its ends is taken away."""
    last = len(value) - 1
    pieces = []
    for place, character in enumerate(value):
        is_blank_at_end = character == " " and place in {0, last}
        if character in ',+"\\<>;' or is_blank_at_end or (character == "#" and place == 0):
            pieces.append("\\" + character)
        elif character.isprintable():
            pieces.append(character)
        else:
            pieces.append("".join(f"\\{octet:02X}" for octet in character.encode()))
    return "".join(pieces)


@given(DNS)
def test_both_text_forms_of_any_dn_read_back_to_the_same_value(dn: Dn) -> None:
    """Whatever stands in its values: separators, escapes, controls, blanks at either end."""
    assert Dn.parse(str(dn)) == dn
    assert Dn.parse(rfc4514(dn)) == dn
    assert hash(Dn.parse(str(dn))) == hash(dn)


@given(DNS, DNS)
def test_two_dns_have_the_same_text_only_when_they_are_equal(one: Dn, other: Dn) -> None:
    """The slash form is injective, so canonical strings may be compared in place of names."""
    assert (str(one) == str(other)) == (one == other)


@given(DNS)
def test_the_text_of_a_dn_holds_nothing_that_a_log_or_terminal_obeys(dn: Dn) -> None:
    """Control characters and blanks at the ends are written as escapes."""
    assert all(ord(character) >= 0x20 and character != "\x7f" for character in str(dn))
    assert str(dn).strip() == str(dn)


@given(st.text(max_size=60) | st.text(alphabet="/,+=\\CNO#0c. ", max_size=40))
def test_any_text_is_a_dn_or_refused(text: str) -> None:
    """Nothing but ``MalformedNameError`` comes out, and what is accepted round-trips."""
    try:
        dn = Dn.parse(text)
    except MalformedNameError:
        return
    assert Dn.parse(str(dn)) == dn


@pytest.mark.parametrize(
    "text",
    [
        "/DC=org/DC=grid/CN=Jane Doe/emailAddress=jane@grid.org",
        "/dc=org/DomainComponent=grid/commonName=Jane Doe/Email=jane@grid.org",
        "/DC=org/DC=grid/CN=Jane Doe/E=jane@grid.org",
        "/0.9.2342.19200300.100.1.25=org/DC=grid/2.5.4.3=Jane Doe/1.2.840.113549.1.9.1=jane@grid.org",
        "EMAILADDRESS=jane@grid.org,CN=Jane Doe,DC=grid,DC=org",
        "emailAddress=jane@grid.org, CN=Jane Doe, DC=grid, DC=org",
        " emailAddress = jane@grid.org ,CN= Jane Doe  , DC=grid , DC=org ",
        "1.2.840.113549.1.9.1=#160d6a616e6540677269642e6f7267,CN=Jane\\20Doe,DC=grid,DC=org",
    ],
)
def test_every_way_to_write_a_name_gives_the_same_value(text: str) -> None:
    """Slash form and RFC 4514, aliases and OIDs are one."""
    expected = ((("DC", "org"),), (("DC", "grid"),), (("CN", "Jane Doe"),), (("EMAILADDRESS", "jane@grid.org"),))
    assert Dn.parse(text).rdns == expected


@pytest.mark.parametrize(
    ("value", "imitated"),
    [
        ("a/CN=admin", "/O=grid/CN=a/CN=admin"),
        ("a+OU=admin", "/O=grid/CN=a+OU=admin"),
        ("a\\", "/O=grid/CN=a"),
        ("admin,O=grid", "CN=admin,O=grid"),
        ("admin ", "/O=grid/CN=admin"),
        ("Admin", "/O=grid/CN=admin"),
        ("admin\x00", "/O=grid/CN=admin"),
        ("\u0430dmin", "/O=grid/CN=admin"),
        ("admin\u200b", "/O=grid/CN=admin"),
    ],
)
def test_no_value_imitates_another_name(value: str, imitated: str) -> None:
    """A separator, a blank, a case, a look-alike in a value: another name, another text."""
    dn = Dn(((("O", "grid"),), (("CN", value),)))
    assert dn != Dn.parse(imitated)
    assert str(dn) != str(Dn.parse(imitated))


def test_the_order_within_an_rdn_does_not_count_and_the_order_of_rdns_does() -> None:
    """X.501: an RDN is a set, a name is a sequence."""
    assert Dn.parse("/O=x/CN=a+UID=1") == Dn.parse("/O=x/UID=1+CN=a")
    assert Dn.parse("/O=x/CN=a") != Dn.parse("/CN=a/O=x")
    assert Dn.parse("/O=x/CN=a+UID=1") != Dn.parse("/O=x/CN=a/UID=1")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "Jane Doe",
        "/CN",
        "/CN=",
        "/CN=a/",
        "//CN=a",
        "/CN=host/a.grid.org",
        "/CN=a\\",
        "/CN=a\\q",
        "/CN=a\\ff",
        "/CN=a+",
        "/CN=a+CN=a",
        "/CN=a\nb",
        "/XY=a",
        "/1=a",
        "/01.2=a",
        " /CN=a",
        "CN=a,",
        "CN=a,,O=b",
        'CN="a"',
        "CN=a;O=b",
        "CN=#ff",
        "CN=#0c0261",
        "CN=#zz",
        "CN=#1301ff",
        "/CN=" + "a" * 5000,
        "/CN=\ud800",
        "/\u212aN=a",
    ],
)
def test_what_is_no_dn_is_refused(text: str) -> None:
    """Nothing is guessed: a bare slash in a value, an unknown type, an unfinished escape."""
    with pytest.raises(MalformedNameError):
        Dn.parse(text)


@pytest.mark.parametrize("rdns", [(), ((),), ((("CN", ""),),), ((("CN", "\x00" * 2000),),), ((("CN", "\ud800"),),)])
def test_a_value_that_is_no_dn_cannot_be_made(rdns: tuple[tuple[tuple[str, str], ...], ...]) -> None:
    """Nameless, empty, longer than a DN may be once it is written, or no Unicode."""
    with pytest.raises(MalformedNameError):
        Dn(rdns)


def test_a_dn_is_extended_below() -> None:
    """The subject of a proxy is its issuer's and one CN more."""
    assert Dn.parse("/O=x/CN=a") / ("CN", "1/2") == Dn.parse("/O=x/CN=a/CN=1\\/2")


@given(FQANS)
def test_an_fqan_reads_back_to_the_same_value(fqan: Fqan) -> None:
    """With and without the parts that VOMS appends."""
    assert Fqan.parse(str(fqan)) == fqan
    if fqan.role is None:
        assert Fqan.parse(f"{fqan}/Role=NULL/Capability=NULL") == fqan
    else:
        assert Fqan.parse(f"{fqan}/Capability=NULL") == fqan


@given(FQANS, FQANS)
def test_the_memberships_are_what_an_fqan_is_within(fqan: Fqan, wanted: Fqan) -> None:
    """Both ways to ask agree, so a principal's memberships may stand for the question."""
    assert (wanted in set(fqan.memberships())) == fqan.is_within(wanted)
    principal = Principal(Dn.parse("/CN=a"), (fqan,), 1.0)
    assert (str(wanted) in principal.memberships) == fqan.is_within(wanted)


@pytest.mark.parametrize(
    ("held", "wanted", "is_within"),
    [
        ("/vo", "/vo", True),
        ("/vo/a/b", "/vo/a", True),
        ("/vo/a/Role=x", "/vo/a", True),
        ("/vo/a/Role=x", "/vo", True),
        ("/vo", "/vo/a", False),
        ("/vo/ab", "/vo/a", False),
        ("/vo/a", "/vo/ab", False),
        ("/vo2", "/vo", False),
        ("/vo/Role=x", "/vo/Role=x", True),
        ("/vo/Role=y", "/vo/Role=x", False),
        ("/vo/a/Role=x", "/vo/Role=x", False),
        ("/vo/Role=x", "/vo/a/Role=x", False),
        ("/vo", "/vo/Role=x", False),
        ("/vo/Role=x", "/vo/x", False),
        ("/VO", "/vo", False),
    ],
)
def test_membership_goes_by_whole_segments_and_roles_stay_in_their_group(
    held: str,
    wanted: str,
    is_within: bool,  # noqa: FBT001 a column of the table
) -> None:
    """A sub-group's member is a member above; a role is met by itself only."""
    assert Fqan.parse(held).is_within(Fqan.parse(wanted)) is is_within


@pytest.mark.parametrize(
    "text",
    ["", "/", "vo", "/vo/", "//vo", "/vo/..", "/./a", "/vo/Role=", "/Role=x", "/vo/Role=x/a", "/vo/Rôle", "/vo a",
     "/vo/Role=..", "/vo/Capability=", "/vo/role=x", "/vo\n", "/vo" * 1000],
)  # fmt: skip
def test_what_is_no_fqan_is_refused(text: str) -> None:
    """Among it paths that would climb out of a directory."""
    with pytest.raises(MalformedNameError):
        Fqan.parse(text)


def test_who_has_expired_is_refused_from_that_instant_on() -> None:
    """Not a moment before, and not one after."""
    principal = Principal(Dn.parse("/CN=a"), (), 100.0)
    principal.refuse_expired(99.999)
    with pytest.raises(CredentialExpiredError, match="has expired"):
        principal.refuse_expired(100.0)
