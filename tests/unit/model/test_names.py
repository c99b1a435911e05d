"""Names as values: one way in, one way out, and nothing that a file system or a terminal could misread."""

from __future__ import annotations

import pytest

from mdmfs.model.errors import ERRORS_BY_CODE, MalformedNameError, again
from mdmfs.model.finding import Finding, Severity, worst
from mdmfs.model.locality import Locality
from mdmfs.model.names import MAX_LFN_BYTES, MAX_NAME_BYTES, Guid, Lfn, Surl
from mdmfs.model.subject import SubjectId

GUID = "00112233-4455-6677-8899-aabbccddeeff"


def test_a_guid_is_a_uuid_in_lower_case() -> None:
    """Whatever case it is read in."""
    assert str(Guid.parse(GUID.upper())) == GUID
    assert Guid(Guid.parse(GUID).octets) == Guid.parse(GUID)
    assert str(Guid.from_random(bytes(16)))[14] == "4"


@pytest.mark.parametrize("text", ["", GUID[:-1], GUID.replace("-", ""), GUID + "0", "{" + GUID + "}"])
def test_what_is_no_guid_is_refused(text: str) -> None:
    """As text, or as bytes of another number."""
    with pytest.raises(MalformedNameError):
        Guid.parse(text)
    with pytest.raises(MalformedNameError):
        Guid(text.encode()[:15])


def test_an_lfn_is_read_and_written() -> None:
    """With or without its scheme, and without a slash at its end."""
    lfn = Lfn.parse("lfn:/grid/medical/amc/neuro/")
    assert str(lfn) == "/grid/medical/amc/neuro"
    assert (lfn.name, str(lfn.parent), str(lfn / "a b")) == (
        "neuro",
        "/grid/medical/amc",
        "/grid/medical/amc/neuro/a b",
    )
    root = Lfn.parse("/grid/medical")
    assert (root.name, root.parent) == ("", root)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/grid",
        "/grid/medicals",
        "/grid/medical/a//b",
        "/grid/medical/../b",
        "/grid/medical/a\nb",
        "/grid/medical/" + "a" * (MAX_NAME_BYTES + 1),
        "/grid/medical" + "/aa" * (MAX_LFN_BYTES // 3),
        "/grid/medical/\ud800",
    ],
)
def test_names_that_could_be_misread_are_refused(text: str) -> None:
    """Empty ones, dots, control characters, too long ones and what is no Unicode."""
    with pytest.raises(MalformedNameError):
        Lfn.parse(text)


def test_a_surl_names_a_hospital_and_a_guid() -> None:
    """IPv6 in brackets."""
    for host in ("mdm.example.org", "[2001:db8::1]"):
        surl = Surl.parse(f"srm://{host}:8443/mdm/{GUID}")
        assert (surl.host, surl.port, str(surl)) == (host, 8443, f"srm://{host}:8443/mdm/{GUID}")
    for text in (f"https://a:1/mdm/{GUID}", "srm://a:1/mdm/b", f"srm://a/mdm/{GUID}"):
        with pytest.raises(MalformedNameError):
            Surl.parse(text)


def test_a_subject_is_eighty_random_bits() -> None:
    """As 16 letters, with or without what stands before them in a name."""
    subject = SubjectId.from_random(bytes(range(10)))
    assert SubjectId.parse(f"sub-{subject}") == subject
    for octets in (bytes(9), bytes(11)):
        with pytest.raises(MalformedNameError):
            SubjectId.from_random(octets)
    with pytest.raises(MalformedNameError):
        SubjectId("K7QF3X2MZT5WD4HA")


def test_localities_are_the_words_of_srm() -> None:
    """Gfal shows them as they are."""
    assert [str(each) for each in Locality] == ["ONLINE", "NEARLINE", "ONLINE_AND_NEARLINE", "LOST", "UNAVAILABLE"]


def test_the_worst_finding_decides() -> None:
    """Nothing found is well."""
    found = [Finding("a", "b", severity, "") for severity in (Severity.OK, Severity.FAULT, Severity.WARNING)]
    assert worst(found) is Severity.FAULT
    assert worst([]) is Severity.OK


def test_an_error_is_given_once_more_for_another_who_waits() -> None:
    """The same class and words, another exception."""
    error = ERRORS_BY_CODE["malformed-name"]("x") if "malformed-name" in ERRORS_BY_CODE else MalformedNameError("x")
    twin = again(error)
    assert twin is not error
    assert (type(twin), str(twin)) == (type(error), "x")


def test_below_is_the_directory_and_all_in_it_by_whole_names() -> None:
    """A name that begins alike is another one."""
    series = Lfn.parse("/grid/medical/a/neuro")
    assert series.is_below(series)
    assert (series / "x.dcm").is_below(series)
    assert not Lfn.parse("/grid/medical/a/neurology/x.dcm").is_below(series)
    assert not series.parent.is_below(series)
