"""Signing policies: a CA signs the names that are written, and a file that is not understood allows none."""

from __future__ import annotations

import pytest

from mdmfs.model.errors import ConfigurationError, MalformedNameError
from mdmfs.model.identity import Dn
from mdmfs.pki.dn import dn_of_oneline
from mdmfs.pki.signing_policy import SigningPolicy

CA = Dn.parse("/C=NL/O=Grid/CN=CA")


def policy(*patterns: str, authority: str = "/C=NL/O=Grid/CN=CA") -> SigningPolicy:
    """Read a policy as they are mostly written."""
    listed = " ".join(f'"{pattern}"' for pattern in patterns)
    return SigningPolicy.parse(
        f"access_id_CA X509 '{authority}'\npos_rights globus CA:sign\ncond_subjects globus '{listed}'\n"
    )


@pytest.mark.parametrize(
    ("pattern", "subject", "is_allowed"),
    [
        ("/C=NL/O=Grid/*", "/C=NL/O=Grid/CN=jane", True),
        ("/C=NL/O=Grid/*", "/C=NL/O=Grid/OU=x/CN=jane", True),
        ("/C=NL/O=Grid/*", "/C=NL/O=Grid", False),
        ("/C=NL/O=Grid/*", "/C=NL/O=Gridx/CN=jane", False),
        ("/C=NL/O=Grid/*", "/C=NL/O=Grid\\/CN\\=jane", False),
        ("/C=NL/O=Grid/*", "/C=DE/O=Grid/CN=jane", False),
        ("/C=NL/O=Grid/*", "/DC=x/C=NL/O=Grid/CN=jane", False),
        ("/C=NL/O=Grid*", "/C=NL/O=Grid", False),
        ("/C=NL/O=Grid*", "/C=NL/O=Gridx/CN=jane", True),
        ("/C=NL/O=Grid/CN=jane", "/C=NL/O=Grid/CN=jane", True),
        ("/C=NL/O=Grid/CN=jane", "/C=NL/O=Grid/CN=janet", False),
        ("/c=nl/o=GRID/cn=Jane", "/C=NL/O=Grid/CN=jane", True),
        ("/*", "/C=NL/O=Grid/CN=jane", True),
        ("/O=a/*/CN=x", "/O=a/OU=b/OU=c/CN=x", True),
        ("/O=a/*/CN=x", "/O=a/OU=b/CN=xy", False),
        ("/O=a/*/CN=x", "/O=a/CN=x", False),
        ("/O=*/OU=*/CN=x", "/O=b/OU=c/CN=x", False),
        ("/O=*/OU=*/CN=x", "/O=*/OU=c/CN=x", True),
        ("/O=?/CN=x", "/O=a/CN=x", False),
        ("/O=a/CN=host/*", "/O=a/CN=host\\/a.b", True),
        ("/O=a/CN=host/*", "/O=a/CN=host/CN=a.b", True),
        ("/O=a/CN=host/*", "/O=a/CN=hostile", False),
        ("/O=a/CN=host/a.b", "/O=a/CN=host\\/a.b", True),
        ("/O=a/Email=x@y", "/O=a/emailAddress=x@y", True),
        ("/O=a/E=*", "/O=a/1.2.840.113549.1.9.1=x@y", True),
        ("/O=a/USERID=x", "/O=a/UID=x", True),
        ("/O=a, Inc./*", "/O=a, Inc./CN=x", True),
        ("/O=J\\\\xC3\\\\xA4ne/*", "/O=J\xe4ne/CN=x", True),
        ("/O=a/CN=x", "/O=a+CN=x", False),
    ],
)
def test_a_pattern_covers_names_as_globus_has_it(pattern: str, subject: str, is_allowed: bool) -> None:  # noqa: FBT001 a column
    """The last star is one character or more, letters match without case, a slash in a value divides nothing."""
    assert policy(pattern).allows(CA, Dn.parse(subject)) is is_allowed


def test_a_policy_speaks_of_its_own_ca_only() -> None:
    """Another CA's certificates are not covered by it, whatever they say."""
    subject = Dn.parse("/C=NL/O=Grid/CN=jane")
    assert policy("/*").allows(CA, subject)
    assert not policy("/*").allows(Dn.parse("/C=NL/O=Grid/CN=other CA"), subject)


def test_one_of_several_patterns_suffices_and_every_condition_must_hold() -> None:
    """Patterns of a line are alternatives, lines are not."""
    jane, joe = Dn.parse("/O=a/CN=jane"), Dn.parse("/O=b/CN=joe")
    assert all(policy("/O=a/*", "/O=b/*").allows(CA, one) for one in (jane, joe))
    head = f"access_id_CA X509 '{CA}'\npos_rights globus CA:sign\n"
    both = SigningPolicy.parse(head + "cond_subjects globus '\"/O=a/*\"'\ncond_subjects globus '\"/*\"'\n")
    assert both.allows(CA, jane)
    assert not both.allows(CA, joe)


def test_a_pattern_alone_needs_no_quotes() -> None:
    """Between those of the value."""
    lone = SigningPolicy.parse(HEAD + "cond_subjects globus ' /O=a/* '")
    assert lone.allows(Dn.parse("/O=CA"), Dn.parse("/O=a/CN=x"))
    assert not lone.allows(Dn.parse("/O=CA"), Dn.parse("/O=b/CN=x"))


def test_two_cas_share_a_file() -> None:
    """Where their names have one hash; the first statement about a CA counts, and no second widens it."""
    other = Dn.parse("/O=other/CN=CA")
    text = "".join(
        f"access_id_CA X509 '{name}'\npos_rights globus CA:sign\ncond_subjects globus '\"{pattern}\"'\n"
        for name, pattern in ((CA, "/O=a/*"), (other, "/O=b/*"), (CA, "/*"))
    )
    read = SigningPolicy.parse("# comment with ' in it\n" + text)
    assert read.allows(other, Dn.parse("/O=b/CN=x"))
    assert not read.allows(CA, Dn.parse("/O=b/CN=x"))


HEAD = "access_id_CA X509 '/O=CA'\npos_rights globus CA:sign\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing",
        "access_id_CA X509 '/O=CA'",
        HEAD,
        HEAD + 'cond_subjects globus \'"/O=a/*"',
        HEAD + "cond_subjects globus '\"/O=a/*'",
        HEAD + "cond_subjects globus '\"/O=a/*\" /O=b/*'",
        HEAD + "cond_subjects globus ''",
        HEAD + "cond_subjects globus 'O=a'",
        HEAD + "cond_subjects other '\"/O=a/*\"'",
        HEAD + "cond_time globus '9-17'\n",
        HEAD.replace("pos_rights", "neg_rights") + "cond_subjects globus '\"/O=a/*\"'",
        HEAD.replace("CA:sign", "CA:all") + "cond_subjects globus '\"/O=a/*\"'",
        HEAD.replace("access_id_CA", "access_id_ANYBODY") + "cond_subjects globus '\"/O=a/*\"'",
        HEAD.replace("'/O=CA'", "'CA'") + "cond_subjects globus '\"/O=a/*\"'",
        HEAD + "cond_subjects globus '\"/O=a/*\"'\naccess_id_CA X509 '/O=b'\n",
        HEAD + "cond_subjects globus '\"/O=a/*\"' more",
        HEAD + "cond_subjects globus '\"/O=a/*\"'\ncond_time globus '9-17'",
        HEAD + "cond_subjects globus '\"/O=a/*\"'\nneg_rights globus CA:sign",
        HEAD + "cond_subjects globus '\"/O=a/*\"'\npos_rights globus CA:sign",
        "pos_rights globus CA:sign\ncond_subjects globus '\"/*\"'",
        HEAD + "cond_subjects globus '\"/O=\\\\xFF/*\"'",
        "x" * 300_000,
    ],
)
def test_a_file_that_is_not_understood_allows_nothing(text: str) -> None:
    """Whatever is missing, in a wrong place, or of a kind that Globus knows and we do not."""
    with pytest.raises(ConfigurationError):
        SigningPolicy.parse(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/DC=org/CN=Jane Doe", "/DC=org/CN=Jane Doe"),
        ("/O=a/CN=host/a.b", "/O=a/CN=host\\/a.b"),
        ("/O=a/b=c/CN=x", "/O=a\\/b=c/CN=x"),
        ("/O=a/Email=x@y", "/O=a/EMAILADDRESS=x@y"),
        ("/O=J\\xC3\\xA4ne", "/O=J\xe4ne"),
        ("/O=a/CN", "/O=a\\/CN"),
        ("/O=/x/CN=y", "/O=\\/x/CN=y"),
    ],
)
def test_a_name_in_openssl_s_form_is_read_as_the_certificate_has_it(text: str, expected: str) -> None:
    """A slash divides before a known type only."""
    assert dn_of_oneline(text) == Dn.parse(expected)


@pytest.mark.parametrize("text", ["", "jane", "CN=jane", "xCN=jane", "/jane", "/jane/CN=x", "/O=/CN=x", "/CN=j\\xFF"])
def test_what_openssl_would_not_print_is_no_name(text: str) -> None:
    """Nothing of it is passed over: a line less understood would be another person's name."""
    with pytest.raises(MalformedNameError):
        dn_of_oneline(text)
