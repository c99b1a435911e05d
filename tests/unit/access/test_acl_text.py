"""ACLs as text and their editing: one reading only, whatever stands in a DN, and ``setfacl``'s options."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdmfs.access.acl import Acl, Entry, EntryKind, Right, parse_rights
from mdmfs.access.edit import MAX_ENTRIES, Edit, EditKind, edited, endless, without_ended
from mdmfs.access.text import MAX_TEXT, AclText, format_acl, parse_acl, parse_names
from mdmfs.model.errors import MalformedNameError
from mdmfs.model.identity import Dn

OWNER = "/O=x/CN=owner"
JANE, JOE = "/O=x/CN=jane", "/O=x/CN=joe"
END = 1_800_000_000.0


def entry(kind: EntryKind, name: str, rights: str, end: float | None = None) -> Entry:
    """Make an entry of letters."""
    return Entry(kind, name, parse_rights(rights).value, end)


BASE = Acl(
    OWNER,
    (entry(EntryKind.OWNER, "", "rwxa"), entry(EntryKind.USER, JANE, "rx"), entry(EntryKind.MASK, "", "rx")),
    (entry(EntryKind.OWNER, "", "rwxa"),),
)
VALUES = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=12)
QUALIFIERS = st.lists(VALUES, min_size=1, max_size=3).map(
    lambda values: str(Dn(tuple((("CN", value),) for value in values)))
)
ENTRIES = st.lists(
    st.builds(
        Entry,
        st.just(EntryKind.USER),
        QUALIFIERS,
        st.integers(0, 31),
        st.none() | st.integers(1, 2**32).map(float),
    ),
    max_size=6,
    unique_by=lambda one: one.qualifier,
).map(lambda found: tuple(sorted(found, key=lambda one: one.qualifier)))


@settings(max_examples=300)
@given(ENTRIES, ENTRIES)
def test_what_is_written_is_read_again(entries: tuple[Entry, ...], defaults: tuple[Entry, ...]) -> None:
    """Whatever stands in a DN: colons, commas, hashes, line feeds; as lines, and as one list."""
    acl = Acl(OWNER, entries, defaults)
    text = format_acl(acl)
    assert parse_acl(text) == AclText(entries, defaults)
    assert parse_acl(",".join(text.splitlines())) == AclText(entries, defaults)


@pytest.mark.parametrize("end", ["0027-01-31T12:00:00Z", "2027-01-31T12:00:00Z"])
def test_an_end_is_written_as_it_was_read(end: str) -> None:
    """Also one of a year with less than four digits, which somebody has mistyped."""
    text = format_acl(Acl(OWNER, tuple(parse_acl(f"user:{JANE}:rx@{end}").entries)))
    assert end in text


def test_getfacls_form_is_understood() -> None:
    """Short kinds, comments, what a mask takes away, ends."""
    text = f"# file: x\n# owner: y\n\nu::rwxa\nu:{JANE}:rw---\t#effective:r----\ng:/v/g:rx@2027-01-15T08:00:00Z\nm::r\n"
    read = parse_acl(text + "o::---\nd:u::rx")
    assert read.entries == (
        entry(EntryKind.OWNER, "", "rwxa"),
        entry(EntryKind.USER, JANE, "rw"),
        entry(EntryKind.GROUP, "/v/g", "rx", END),
        entry(EntryKind.MASK, "", "r"),
        entry(EntryKind.OTHER, "", ""),
    )
    assert read.defaults == (entry(EntryKind.OWNER, "", "rx"),)
    assert f"user:{JANE}:rw---\t#effective:r----" in format_acl(Acl(OWNER, read.entries))


@pytest.mark.parametrize(
    "text",
    [
        "user:/O=x/CN=a",
        "user:/O=x/CN=a:rz",
        "group::rx",
        "owner:/O=x:r",
        "mask:/O=x/CN=a:r",
        "user:nothing:r",
        "user:/O=x/CN=a:rx@tomorrow",
        "user:/O=x/CN=a:rx@2027-02-30T08:00:00Z",
        "user::r@2027-01-15T08:00:00Z",
        "user:/O=x/CN=a:rx user:/O=x/CN=b",
        "x" * (MAX_TEXT + 1),
    ],
)
def test_what_is_no_entry_is_refused(text: str) -> None:
    """And the refusal says how it is written."""
    with pytest.raises(MalformedNameError):
        parse_acl(text)


def test_entries_to_remove_have_no_rights() -> None:
    """``-x`` names them, defaults too."""
    read = parse_names(f"u:{JANE},d:g:/v/g,m:")
    assert [one.kind for one in read.entries] == [EntryKind.USER, EntryKind.MASK]
    assert read.defaults == (entry(EntryKind.GROUP, "/v/g", ""),)
    with pytest.raises(MalformedNameError):
        parse_names("nobody")


def test_a_changed_entry_widens_the_mask_unless_told_otherwise() -> None:
    """As ``setfacl`` does: an entry that is given shall count."""
    more = Edit(EditKind.MODIFY, (entry(EntryKind.USER, JOE, "rwx"),))
    found = {one.kind: one.rights for one in edited(BASE, [more]).entries}
    assert Right(found[EntryKind.MASK]) == parse_rights("rwx")
    kept = {one.kind: one.rights for one in edited(BASE, [more], keeps_mask=True).entries}
    assert Right(kept[EntryKind.MASK]) == parse_rights("rx")
    named = Edit(EditKind.MODIFY, (*more.entries, entry(EntryKind.MASK, "", "r")))
    assert {one.kind: one.rights for one in edited(BASE, [named]).entries}[EntryKind.MASK] == parse_rights("r").value


def test_each_step_does_what_its_option_says() -> None:
    """Remove, clear, clear the defaults, replace; the owner's entry stays whatever comes."""
    gone = edited(BASE, [Edit(EditKind.REMOVE, (entry(EntryKind.USER, JANE, ""), entry(EntryKind.USER, JOE, "")))])
    assert [one.kind for one in gone.entries] == [EntryKind.OWNER, EntryKind.MASK]
    assert gone.defaults == BASE.defaults
    bare = edited(BASE, [Edit(EditKind.CLEAR)])
    assert ([one.kind for one in bare.entries], bare.defaults) == ([EntryKind.OWNER], ())
    assert edited(BASE, [Edit(EditKind.CLEAR_DEFAULTS)]) == Acl(BASE.owner, BASE.entries)
    one = entry(EntryKind.USER, JOE, "x")
    other = edited(BASE, [Edit(EditKind.REPLACE, (one,))])
    assert {(each.kind, each.qualifier) for each in other.entries} == {
        (EntryKind.OWNER, ""),
        (EntryKind.USER, JOE),
        (EntryKind.MASK, ""),
    }
    assert other.defaults == BASE.defaults
    assert edited(BASE, [Edit(EditKind.REPLACE, (), (one,))]).entries == BASE.entries
    with pytest.raises(MalformedNameError):
        edited(BASE, [Edit(EditKind.REMOVE, (entry(EntryKind.OWNER, "", ""),))])
    with pytest.raises(MalformedNameError):
        edited(BASE, [Edit(EditKind.MODIFY, (one, one))])
    many = tuple(entry(EntryKind.USER, f"/O=x/CN={number}", "r") for number in range(MAX_ENTRIES))
    with pytest.raises(MalformedNameError):
        edited(BASE, [Edit(EditKind.MODIFY, many)])
    with pytest.raises(MalformedNameError, match="at most 1024 entries"):
        edited(BASE, [Edit(EditKind.REMOVE, (*many, entry(EntryKind.USER, JOE, "")))])
    with pytest.raises(MalformedNameError, match="at most 64 edits"):
        edited(BASE, [Edit(EditKind.CLEAR)] * 65)


def test_ended_entries_are_left_out_and_brought_back() -> None:
    """By the clock that is given."""
    acl = edited(BASE, [Edit(EditKind.MODIFY, (entry(EntryKind.USER, JOE, "r", END),))])
    assert without_ended(acl, END - 1) == acl
    assert JOE not in {one.qualifier for one in without_ended(acl, END).entries}
    assert without_ended(endless(acl), END).entries == endless(acl).entries
