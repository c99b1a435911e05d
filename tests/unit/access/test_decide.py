"""Decisions: the algorithm of POSIX.1e, held against a second, slower account of it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdmfs.access.acl import ACL_FORMAT, Acl, Entry, EntryKind, Right, format_rights, parse_rights
from mdmfs.access.decide import Granted, Grants, Refusal, Refused, decide, grant
from mdmfs.model.errors import MalformedNameError
from mdmfs.model.identity import Dn, Fqan, Principal
from mdmfs.model.names import Guid

DN_TEXTS = ["/O=x/CN=a", "/O=x/CN=b", "CN=a,O=x", "/O=x/CN=a\\/CN=b", "/O=x/CN=a/CN=b", "/O=x/E=a", "/O=x/Email=a"]
FQAN_TEXTS = ["/v", "/v/g", "/v/g/h", "/v/gg", "/v/Role=r", "/v/g/Role=r", "/v/g/Role=NULL", "/w"]
ENDS = st.none() | st.sampled_from([5.0, 10.0, 15.0])
NOW = 10.0
GUID = Guid.from_random(bytes(16))


def entries_of(kind: EntryKind, qualifiers: list[str]) -> st.SearchStrategy[Entry]:
    """Draw entries of one kind."""
    ends = st.none() if kind in {EntryKind.OWNER, EntryKind.MASK} else ENDS
    return st.builds(Entry, st.just(kind), st.sampled_from(qualifiers), st.integers(0, 31), ends)


ENTRIES = st.lists(
    st.one_of(
        entries_of(EntryKind.OWNER, [""]),
        entries_of(EntryKind.USER, DN_TEXTS),
        entries_of(EntryKind.GROUP, FQAN_TEXTS),
        entries_of(EntryKind.MASK, [""]),
        entries_of(EntryKind.OTHER, [""]),
    ),
    max_size=8,
    unique_by=lambda entry: (entry.kind, entry.qualifier),
).map(tuple)
ACLS = st.builds(Acl, st.sampled_from(DN_TEXTS), ENTRIES)
PRINCIPALS = st.builds(
    Principal,
    st.sampled_from(DN_TEXTS).map(Dn.parse),
    st.lists(st.sampled_from(FQAN_TEXTS).map(Fqan.parse), max_size=3).map(tuple),
    st.sampled_from([NOW - 1, NOW, NOW + 1]),
)
WIDE = Acl("/O=x/CN=owner", (Entry(EntryKind.OTHER, "", 31),))
RIGHTS = st.integers(0, 31).map(Right)


def allows(principal: Principal, acl: Acl, right: Right) -> bool:
    """Tell it again in other words: parsed names, one class after the other, sets of rights."""
    if principal.not_after <= NOW or not right:
        return False
    there = [entry for entry in acl.entries if entry.not_after is None or entry.not_after > NOW]

    def rights_of(kind: EntryKind, *, limited: bool = False) -> list[tuple[str, set[Right]]]:
        found = [(entry.qualifier, set(Right(entry.rights))) for entry in there if entry.kind == kind]
        for limit in [set(Right(entry.rights)) for entry in there if entry.kind == EntryKind.MASK and limited]:
            found = [(qualifier, rights & limit) for qualifier, rights in found]
        return found

    wanted = set(right)
    if Dn.parse(acl.owner).rdns == principal.dn.rdns:
        return any(wanted <= rights for _, rights in rights_of(EntryKind.OWNER))
    for qualifier, rights in rights_of(EntryKind.USER, limited=True):
        if Dn.parse(qualifier).rdns == principal.dn.rdns:
            return wanted <= rights
    in_groups = [
        rights
        for qualifier, rights in rights_of(EntryKind.GROUP, limited=True)
        if any(fqan.is_within(Fqan.parse(qualifier)) for fqan in principal.fqans)
    ]
    if in_groups:
        return any(wanted <= rights for rights in in_groups)
    return any(wanted <= rights for _, rights in rights_of(EntryKind.OTHER))


@settings(max_examples=300)
@given(PRINCIPALS, ACLS, RIGHTS)
def test_a_decision_is_what_posix_1e_says(principal: Principal, acl: Acl, right: Right) -> None:
    """Over random ACLs and principals the verdict is the reference's, with a reason for every no."""
    verdict = decide(principal, acl, right, NOW)
    assert verdict.allowed == allows(principal, acl, right)
    assert (verdict.refusal is None) == verdict.allowed
    assert not verdict.allowed or verdict.entry in acl.entries


WAYS = st.lists(st.lists(ACLS | st.just(WIDE) | st.just(WIDE) | st.none(), max_size=3), max_size=3)


@given(PRINCIPALS, WAYS)
def test_a_file_is_granted_when_one_way_to_it_is_open(principal: Principal, aliases: list[list[Acl | None]]) -> None:
    """Every directory of that way must be traversable, its file readable, and no ACL of it unknown."""
    is_open = any(
        way
        and None not in way
        and all(allows(principal, acl, Right.TRAVERSE) for acl in way[:-1] if acl)
        and all(allows(principal, acl, Right.READ) for acl in way[-1:] if acl)
        for way in aliases
    )
    answer = grant(principal, GUID, aliases, NOW)
    assert isinstance(answer, Granted) == is_open
    if isinstance(answer, Granted):
        assert (answer.principal, answer.guid, answer.right) == (principal, GUID, Right.READ)


READER = Principal(Dn.parse("/O=x/CN=reader"), (Fqan.parse("/v/g"),), NOW + 1)
OPEN = Acl("/O=x/CN=owner", (Entry(EntryKind.USER, "/O=x/CN=reader", 31),))
SHUT = Acl("/O=x/CN=owner", (Entry(EntryKind.USER, "/O=x/CN=reader", 0), Entry(EntryKind.OTHER, "", 31)))


def test_one_open_way_is_enough_and_says_by_which_entry() -> None:
    """A file with a second name is read by whoever may reach either; the proof holds who, what and why."""
    answer = grant(READER, GUID, [[SHUT, OPEN], [OPEN, None], [OPEN, OPEN]], NOW)
    assert answer == Granted(READER, GUID, Right.READ, OPEN.entries[0])


def test_each_refusal_names_its_reason() -> None:
    """The audit tells an expired proxy from a closed directory and an unlisted name, and by which entry."""
    expired = Principal(READER.dn, (), NOW)
    nobody = Principal(Dn.parse("/O=x/CN=nobody"), (), NOW + 1)
    assert grant(READER, GUID, [], NOW) == Refused(Refusal.NO_ACL)
    assert grant(READER, GUID, [[]], NOW) == Refused(Refusal.NO_ACL)
    assert grant(READER, GUID, [[OPEN, None]], NOW) == Refused(Refusal.NO_ACL)
    assert grant(READER, GUID, [[SHUT, OPEN]], NOW) == Refused(Refusal.NO_TRAVERSE, SHUT.entries[0])
    assert grant(READER, GUID, [[OPEN, SHUT]], NOW) == Refused(Refusal.NOT_ALLOWED, SHUT.entries[0])
    assert grant(nobody, GUID, [[OPEN]], NOW) == Refused(Refusal.NO_ENTRY)
    assert grant(expired, GUID, [[OPEN]], NOW) == Refused(Refusal.CREDENTIAL_EXPIRED)
    assert grant(expired, GUID, [[OPEN, OPEN]], NOW) == Refused(Refusal.CREDENTIAL_EXPIRED)


def test_a_credential_whose_end_is_no_number_is_at_its_end() -> None:
    """NaN compares with nothing: the question is asked so that it closes."""
    assert grant(Principal(READER.dn, (), math.nan), GUID, [[OPEN]], NOW) == Refused(Refusal.CREDENTIAL_EXPIRED)


def test_an_entry_whose_end_is_no_number_is_not_there() -> None:
    """As above, for an entry."""
    acl = Acl("/O=x/CN=owner", (Entry(EntryKind.USER, "/O=x/CN=reader", 31, math.nan),))
    assert grant(READER, GUID, [[acl]], NOW) == Refused(Refusal.NO_ENTRY)


@pytest.mark.parametrize("kind", [EntryKind.MASK, EntryKind.OWNER])
def test_a_mask_cannot_end(kind: EntryKind) -> None:
    """With its mask gone an ACL would allow more than before."""
    with pytest.raises(MalformedNameError):
        Entry(kind, "", 1, 5.0)


@pytest.mark.parametrize("rights", [32, -1, 2**40])
def test_an_unknown_right_is_refused(rights: int) -> None:
    """A later version's right must not be read as an earlier one's."""
    with pytest.raises(MalformedNameError):
        Entry(EntryKind.OTHER, "", rights)


@given(ACLS)
def test_an_acl_reads_back_and_the_order_of_its_entries_does_not_count(acl: Acl) -> None:
    """Equal ACLs have equal bytes: that is how one stored ACL serves many files."""
    turned = Acl(acl.owner, tuple(reversed(acl.entries)))
    assert Acl.decode(acl.encode()).encode() == acl.encode() == turned.encode()
    assert set(Acl.decode(acl.encode()).entries) == set(acl.entries)


@given(st.binary(max_size=60))
def test_bytes_that_are_no_acl_are_refused(octets: bytes) -> None:
    """Closed on every error."""
    try:
        Acl.decode(octets)
    except MalformedNameError:
        return
    raise AssertionError


@pytest.mark.parametrize(("text", "written"), [("rx", "r-x--"), ("-", "-----"), ("iawxr", "rwxai"), ("", "-----")])
def test_rights_are_letters_in_any_order(text: str, written: str) -> None:
    """As ``getfacl`` writes them."""
    assert format_rights(parse_rights(text)) == written
    assert parse_rights(written) == parse_rights(text)


def test_other_letters_are_no_rights() -> None:
    """Nothing is passed over."""
    with pytest.raises(MalformedNameError):
        parse_rights("rq")


@pytest.mark.parametrize(
    ("kind", "qualifier"),
    [(EntryKind.USER, "jane"), (EntryKind.USER, ""), (EntryKind.GROUP, "vo"), (EntryKind.OTHER, "/CN=a")],
)
def test_an_entry_names_whom_its_kind_says(kind: EntryKind, qualifier: str) -> None:
    """A user by a DN, a group by an FQAN, the others by nothing."""
    with pytest.raises(MalformedNameError):
        Entry(kind, qualifier, 1)


def test_an_acl_names_nobody_twice_however_it_is_written() -> None:
    """Two spellings of one DN are one user."""
    twice = (Entry(EntryKind.USER, "/O=x/E=a", 0), Entry(EntryKind.USER, "emailAddress=a,O=x", 31))
    with pytest.raises(MalformedNameError):
        Acl("/O=x/CN=owner", twice)


def test_an_acl_of_another_format_is_refused() -> None:
    """A newer program's ACL may mean what this one cannot know."""
    with pytest.raises(MalformedNameError):
        Acl("/O=x/CN=owner", (), (), ACL_FORMAT + 1)


def test_a_child_begins_with_the_defaults_and_passes_them_on() -> None:
    """So one stored ACL serves everything below a directory."""
    entry = Entry(EntryKind.OTHER, "", 1)
    child = Acl("/O=x/CN=owner", (), (entry,)).inherited()
    assert (child.entries, child.defaults) == ((entry,), (entry,))
    assert child.inherited() == child


@settings(max_examples=200)
@given(st.lists(st.lists(st.sampled_from([b"open", b"shut", b"none"]), max_size=4).map(tuple), max_size=4))
def test_many_files_are_decided_as_each_alone(aliases: list[tuple[bytes, ...]]) -> None:
    """What siblings share is decided once, and the answers are those of ``grant``, for files in any order."""
    acls = {b"open": OPEN, b"shut": SHUT, b"none": None}
    other = Guid(bytes(range(16)))
    for principal in (READER, Principal(READER.dn, (), NOW)):
        asked: list[bytes] = []

        def acl(acl_id: bytes, asked: list[bytes] = asked) -> Acl | None:
            asked.append(acl_id)
            return acls[acl_id]

        grants = Grants(principal, acl, NOW)
        chains = [[acls[acl_id] for acl_id in chain] for chain in aliases]
        for guid in (GUID, other, GUID):
            assert grants.grant(guid, aliases) == grant(principal, guid, chains, NOW)
        assert len(asked) <= sum(map(len, set(aliases)))
