"""A keystore gives each share to whom its ACLs allow it, takes it from its hospital alone, and forgets it for ever."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import prometheus_client
import pytest
import structlog.testing
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from mdmfs.access.acl import Acl, Entry, EntryKind, Right
from mdmfs.keystore.keystore import Keystore
from mdmfs.keystore.notary import Notary
from mdmfs.model.errors import (
    AccessDeniedError,
    ConfigurationError,
    CredentialExpiredError,
    MalformedMessageError,
    StoreError,
)
from mdmfs.model.identity import Dn, Fqan, Principal
from mdmfs.model.names import Guid
from mdmfs.sharing.shamir import Share
from mdmfs.wire.messages.keystores import (
    AskEpoch,
    AskStatus,
    AskWitnessed,
    Certify,
    Collect,
    ConfirmEpoch,
    KeyEntry,
    KeyStatus,
    Outcome,
    Register,
    SetAcls,
    Unregister,
    VersionedAcl,
    Witness,
)
from mdmfs.wire.messages.message import MAX_BATCH
from tests.twins import certificates as make
from tests.twins.keystores import HOSPITAL, always_current, principal, random_guid, shares_of
from tests.twins.shelf import MemoryShelf

OTHER_HOSPITAL = Dn.parse("/DC=org/DC=demo/CN=other hospital")
READER = Dn.parse("/DC=org/DC=demo/CN=reader")
STRANGER = Dn.parse("/DC=org/DC=demo/CN=stranger")
NOW = 1e9
ROOT_ID, OPEN_ID, CLOSED_ID, UNKNOWN_ID = (letter * 16 for letter in (b"r", b"o", b"c", b"u"))

DONE, DENIED, UNKNOWN, CONFLICT, DESTROYED, STALE = Outcome


def acl(*entries: Entry, owner: Dn = HOSPITAL) -> bytes:
    """Write an ACL."""
    return Acl(str(owner), entries).encode()


def user(dn: Dn, rights: Right, not_after: float | None = None) -> Entry:
    """Name a person in an ACL."""
    return Entry(EntryKind.USER, str(dn), rights.value, not_after)


@pytest.fixture
def shelf() -> MemoryShelf:
    """Hold nothing yet."""
    return MemoryShelf()


@pytest.fixture
async def keystore(shelf: MemoryShelf) -> Keystore:
    """Give a keystore of two hospitals; the reader may traverse the root and read what is under OPEN_ID."""
    made = Keystore(shelf, [HOSPITAL, OTHER_HOSPITAL], lambda: NOW, always_current(HOSPITAL, OTHER_HOSPITAL))
    await set_acls(
        made,
        (ROOT_ID, 1, acl(user(READER, Right.TRAVERSE))),
        (OPEN_ID, 1, acl(user(READER, Right.READ))),
        (CLOSED_ID, 1, acl(user(READER, Right.NONE))),
    )
    return made


async def set_acls(keystore: Keystore, *acls: tuple[bytes, int, bytes], dn: Dn = HOSPITAL) -> list[Outcome]:
    """Send ACLs as (id, version, octets)."""
    message = SetAcls([VersionedAcl(*each) for each in acls])
    return (await keystore.set_acls(principal(dn), message)).outcomes


async def register(
    keystore: Keystore,
    guid: Guid,
    *,
    chain: Sequence[bytes] = (ROOT_ID, OPEN_ID),
    share: bytes | None = None,
    dn: Dn = HOSPITAL,
) -> tuple[Outcome, bytes]:
    """Deposit one share; give what came of it, and the share."""
    octets = share or shares_of(guid, bytes(32))[0].encode()
    message = Register([KeyEntry(octets, [list(chain)])])
    return (await keystore.register(principal(dn), message)).outcomes[0], octets


async def collect(keystore: Keystore, *guids: Guid, caller: Principal | None = None) -> list[tuple[Outcome, bytes]]:
    """Ask as the reader, or somebody else."""
    message = Collect([guid.octets for guid in guids])
    collected = await keystore.collect(caller or principal(READER), message)
    return list(zip(collected.outcomes, collected.shares, strict=True))


# who may read


async def test_the_reader_gets_what_the_acls_allow_and_a_stranger_nothing(keystore: Keystore) -> None:
    """The share comes back byte by byte, to the reader and to the hospital that owns it."""
    guid = random_guid()
    _, share = await register(keystore, guid)
    assert await collect(keystore, guid) == [(DONE, share)]
    assert await collect(keystore, guid, caller=principal(HOSPITAL)) == [(DONE, share)]
    assert await collect(keystore, guid, caller=principal(STRANGER)) == [(DENIED, b"")]
    assert await collect(keystore, guid, caller=principal(OTHER_HOSPITAL)) == [(DENIED, b"")]


@pytest.mark.parametrize("order", list(itertools.permutations((OPEN_ID, CLOSED_ID, OPEN_ID))))
async def test_each_guid_of_a_batch_is_authorized_on_its_own(keystore: Keystore, order: Sequence[bytes]) -> None:
    """Hydra stopped checking a batch at its first entry allowed; here exactly the two allowed come back."""
    guids = [random_guid() for _ in order]
    for guid, own_acl in zip(guids, order, strict=True):
        await register(keystore, guid, chain=[ROOT_ID, own_acl])
    outcomes = [outcome for outcome, _ in await collect(keystore, *guids)]
    assert outcomes == [DONE if own_acl == OPEN_ID else DENIED for own_acl in order]


@settings(deadline=None)
@given(kinds=st.lists(st.sampled_from(["open", "closed", "destroyed", "nowhere", "no acl"]), max_size=30))
def test_no_mixture_of_a_batch_gives_a_share_too_many(kinds: list[str]) -> None:
    """Whatever stands beside it, a GUID gets what it would get alone, and a share only with DONE."""
    trio.run(_check_mixture, kinds)


async def _check_mixture(kinds: list[str]) -> None:
    keystore = Keystore(MemoryShelf(), [HOSPITAL], lambda: NOW, always_current(HOSPITAL))
    await set_acls(keystore, (OPEN_ID, 1, acl(user(READER, Right.READ))), (CLOSED_ID, 1, acl()))
    chains = {"open": OPEN_ID, "closed": CLOSED_ID, "destroyed": OPEN_ID, "no acl": UNKNOWN_ID}
    expected = {"open": DONE, "closed": DENIED, "destroyed": DESTROYED, "nowhere": UNKNOWN, "no acl": DENIED}
    guids = [random_guid() for _ in kinds]
    for guid, kind in zip(guids, kinds, strict=True):
        if kind in chains:
            await register(keystore, guid, chain=[chains[kind]])
        if kind == "destroyed":
            await keystore.unregister(principal(HOSPITAL), Unregister([guid.octets]))
    answers = await collect(keystore, *guids)
    assert [outcome for outcome, _ in answers] == [expected[kind] for kind in kinds]
    assert all(bool(share) == (outcome is DONE) for outcome, share in answers)


@pytest.mark.parametrize(
    "chain", [[], [UNKNOWN_ID], [ROOT_ID, UNKNOWN_ID], [UNKNOWN_ID, OPEN_ID], [CLOSED_ID, OPEN_ID], [ROOT_ID]]
)
async def test_a_chain_with_a_gap_or_a_closed_link_denies(keystore: Keystore, chain: list[bytes]) -> None:
    """No ids, an unknown id anywhere, a directory that may not be traversed, traversal without reading: all are no."""
    guid = random_guid()
    await register(keystore, guid, chain=chain)
    assert await collect(keystore, guid) == [(DENIED, b"")]


async def test_an_acl_under_the_guid_counts_in_place_of_the_shared_one(keystore: Keystore) -> None:
    """It may come before the key or after it, and is its owner's alone."""
    closed, open_, later = random_guid(), random_guid(), random_guid()
    await register(keystore, closed)
    await register(keystore, open_)
    nobody = acl()
    await set_acls(keystore, (closed.octets, 2, nobody), dn=OTHER_HOSPITAL)
    assert [outcome for outcome, _ in await collect(keystore, closed, open_)] == [DONE, DONE]
    await set_acls(keystore, (closed.octets, 2, nobody), (later.octets, 2, nobody))
    assert await collect(keystore, closed) == [(DENIED, b"")]
    await register(keystore, later)
    assert [outcome for outcome, _ in await collect(keystore, later, open_)] == [DENIED, DONE]


async def test_an_acl_under_the_guid_opens_no_directory_above_the_file(keystore: Keystore) -> None:
    """It stands in the place of the last one alone."""
    inside, outside = random_guid(), random_guid()
    await register(keystore, inside, chain=[ROOT_ID, CLOSED_ID, OPEN_ID])
    await register(keystore, outside, chain=[ROOT_ID, ROOT_ID, CLOSED_ID])
    own = acl(user(READER, Right.READ))
    await set_acls(keystore, (inside.octets, 1, own), (outside.octets, 1, own))
    assert [outcome for outcome, _ in await collect(keystore, inside, outside)] == [DENIED, DONE]


async def test_one_open_alias_is_enough_and_no_alias_is_none(keystore: Keystore) -> None:
    """A file with two names is read by either; one without names by its hospital only."""
    two, none = random_guid(), random_guid()
    entries = [
        KeyEntry(shares_of(two, bytes(32))[0].encode(), [[CLOSED_ID, OPEN_ID], [ROOT_ID, OPEN_ID]]),
        KeyEntry(shares_of(none, bytes(32))[0].encode(), []),
    ]
    assert (await keystore.register(principal(HOSPITAL), Register(entries))).outcomes == [DONE, DONE]
    assert [outcome for outcome, _ in await collect(keystore, two, none)] == [DONE, DENIED]


async def test_dns_are_compared_by_structure(keystore: Keystore) -> None:
    """A value that only looks like the reader's DN as a string is somebody else."""
    guid = random_guid()
    await register(keystore, guid)
    forged = Principal(Dn(((("DC", "org"),), (("DC", "demo/CN=reader"),))), (), 4e9)
    assert str(forged.dn).replace("\\", "") == str(READER)
    assert await collect(keystore, guid, caller=forged) == [(DENIED, b"")]
    reordered = Principal(Dn((*READER.rdns[1:], READER.rdns[0])), (), 4e9)
    assert await collect(keystore, guid, caller=reordered) == [(DENIED, b"")]
    same = Principal(Dn.parse("CN=reader,DC=demo,DC=org"), (), 4e9)
    assert [outcome for outcome, _ in await collect(keystore, guid, caller=same)] == [DONE]


async def test_a_group_of_voms_may_read(keystore: Keystore) -> None:
    """Groups decide like names do."""
    guid = random_guid()
    rights = (Right.READ | Right.TRAVERSE).value
    await set_acls(keystore, (b"g" * 16, 1, acl(Entry(EntryKind.GROUP, "/neuro", rights))))
    await register(keystore, guid, chain=[b"g" * 16, b"g" * 16])
    member = Principal(STRANGER, (Fqan.parse("/neuro/Role=analyst"),), 4e9)
    assert [outcome for outcome, _ in await collect(keystore, guid, caller=member)] == [DONE]
    other = Principal(STRANGER, (Fqan.parse("/neurology"),), 4e9)
    assert [outcome for outcome, _ in await collect(keystore, guid, caller=other)] == [DENIED]


async def test_an_expired_credential_gets_nothing_not_even_its_own(keystore: Keystore) -> None:
    """The clock decides at each request, for the hospital too."""
    guid = random_guid()
    await register(keystore, guid)
    for dn in (READER, HOSPITAL):
        with pytest.raises(CredentialExpiredError):
            await collect(keystore, guid, caller=principal(dn, not_after=NOW))
    with pytest.raises(CredentialExpiredError):
        await keystore.register(principal(HOSPITAL, not_after=NOW - 1), Register([]))


async def test_an_entry_of_an_acl_ends_when_it_says(shelf: MemoryShelf, keystore: Keystore) -> None:
    """The same shelf answers otherwise a second later."""
    guid = random_guid()
    await set_acls(keystore, (b"t" * 16, 1, acl(user(READER, Right.READ, not_after=NOW + 1))))
    await register(keystore, guid, chain=[b"t" * 16])
    assert [outcome for outcome, _ in await collect(keystore, guid)] == [DONE]
    later = Keystore(shelf, [HOSPITAL], lambda: NOW + 1, always_current(HOSPITAL))
    assert [outcome for outcome, _ in await collect(later, guid)] == [DENIED]


# who may write


@pytest.mark.parametrize("dn", [READER, STRANGER, Dn.parse("/DC=org/DC=demo/CN=hospital/CN=proxy")])
async def test_nobody_but_a_listed_hospital_writes_or_asks_for_status(keystore: Keystore, dn: Dn) -> None:
    """A user who registers, destroys, sets ACLs or looks around is refused whole, and that is on record."""
    guid = random_guid()
    _, share = await register(keystore, guid)
    entry, rights = KeyEntry(share, [[OPEN_ID]]), acl(user(dn, Right.READ), owner=dn)
    for refused in (
        lambda: keystore.register(principal(dn), Register([entry])),
        lambda: keystore.unregister(principal(dn), Unregister([guid.octets])),
        lambda: keystore.set_acls(principal(dn), SetAcls([VersionedAcl(OPEN_ID, 9, rights)])),
        lambda: keystore.status(principal(dn), AskStatus([guid.octets])),
        lambda: keystore.certify(principal(dn), Certify([guid.octets])),
        lambda: keystore.witness(principal(dn), Witness(bytes(16), 1, bytes(32), 1, bytes(64))),
        lambda: keystore.witnessed(principal(dn), AskWitnessed()),
        lambda: keystore.epoch(principal(dn), AskEpoch()),
        lambda: keystore.confirm(principal(dn), ConfirmEpoch(1, bytes(16), bytes(16))),
    ):
        with structlog.testing.capture_logs() as lines, pytest.raises(AccessDeniedError):
            await refused()
        assert [(line["event"], line["dn"]) for line in lines] == [("refused", str(dn))]
    assert await collect(keystore, guid) == [(DONE, share)]


async def test_a_hospital_cannot_touch_anothers_entries(keystore: Keystore) -> None:
    """It cannot replace, destroy or see them, nor open them by an ACL under the same id."""
    guid = random_guid()
    _, share = await register(keystore, guid)
    newer = shares_of(guid, bytes(32), generation=5)[0].encode()
    assert (await register(keystore, guid, share=newer, dn=OTHER_HOSPITAL))[0] is DENIED
    other = principal(OTHER_HOSPITAL)
    assert (await keystore.unregister(other, Unregister([guid.octets]))).outcomes == [DENIED]
    assert (await keystore.status(other, AskStatus([guid.octets]))).statuses == [KeyStatus(DENIED)]
    everyone = acl(Entry(EntryKind.OTHER, "", 31))
    assert await set_acls(keystore, (OPEN_ID, 99, everyone), (ROOT_ID, 99, everyone), dn=OTHER_HOSPITAL) == [DONE] * 2
    assert await collect(keystore, guid, caller=other) == [(DENIED, b"")]
    assert await collect(keystore, guid, caller=principal(STRANGER)) == [(DENIED, b"")]
    assert await collect(keystore, guid) == [(DONE, share)]


async def test_two_hospitals_with_the_same_acl_ids_share_no_decision(keystore: Keystore) -> None:
    """Not even within one batch."""
    mine, others = random_guid(), random_guid()
    await register(keystore, mine)
    await set_acls(keystore, (ROOT_ID, 1, acl()), (OPEN_ID, 1, acl()), dn=OTHER_HOSPITAL)
    await register(keystore, others, dn=OTHER_HOSPITAL)
    for order in ([mine, others], [others, mine]):
        outcomes = [outcome for outcome, _ in await collect(keystore, *order)]
        assert outcomes == [DONE if guid == mine else DENIED for guid in order]


async def test_a_hospitals_tombstone_does_not_bind_another(keystore: Keystore) -> None:
    """Destroying what one does not have denies the GUID to oneself alone."""
    guid = random_guid()
    other = principal(OTHER_HOSPITAL)
    assert (await keystore.unregister(other, Unregister([guid.octets]))).outcomes == [DONE]
    outcome, share = await register(keystore, guid)
    assert outcome is DONE
    assert await collect(keystore, guid) == [(DONE, share)]
    assert (await register(keystore, guid, dn=OTHER_HOSPITAL))[0] is DESTROYED


async def test_what_a_hospital_registered_is_closed_once_it_is_not_listed(
    shelf: MemoryShelf, keystore: Keystore
) -> None:
    """Neither it nor its readers get anything; the other hospital's files stay readable."""
    mine, others = random_guid(), random_guid()
    await register(keystore, mine)
    await set_acls(keystore, (OPEN_ID, 1, acl(user(READER, Right.READ))), dn=OTHER_HOSPITAL)
    await register(keystore, others, chain=[OPEN_ID], dn=OTHER_HOSPITAL)
    remaining = Keystore(shelf, [OTHER_HOSPITAL], lambda: NOW, always_current(OTHER_HOSPITAL))
    assert [outcome for outcome, _ in await collect(remaining, mine, others)] == [DENIED, DONE]
    assert await collect(remaining, mine, caller=principal(HOSPITAL)) == [(DENIED, b"")]


# the life of an entry


async def test_the_identical_entry_again_is_done_and_another_is_a_conflict(keystore: Keystore) -> None:
    """A resent outbox changes nothing; another share or other ACLs of that generation do not slip in."""
    guid = random_guid()
    _, share = await register(keystore, guid)
    assert (await register(keystore, guid, share=share))[0] is DONE
    assert (await register(keystore, guid))[0] is CONFLICT
    assert (await register(keystore, guid, share=share, chain=[OPEN_ID]))[0] is CONFLICT
    assert await collect(keystore, guid) == [(DONE, share)]


async def test_a_later_generation_replaces_and_an_earlier_one_does_not(keystore: Keystore) -> None:
    """A key that was rotated does not come back."""
    guid = random_guid()
    one, two = (shares_of(guid, bytes(32), generation=generation)[0] for generation in (1, 2))
    assert (await register(keystore, guid, share=one.encode()))[0] is DONE
    assert (await register(keystore, guid, share=two.encode()))[0] is DONE
    assert (await register(keystore, guid, share=one.encode()))[0] is CONFLICT
    assert await collect(keystore, guid) == [(DONE, two.encode())]
    statuses = (await keystore.status(principal(HOSPITAL), AskStatus([guid.octets]))).statuses
    assert statuses == [KeyStatus(DONE, 2, two.split_id)]


async def test_what_was_destroyed_stays_destroyed(keystore: Keystore) -> None:
    """Not the same share again, not a later generation, and destroying twice is no error."""
    guid = random_guid()
    _, share = await register(keystore, guid)
    hospital = principal(HOSPITAL)
    for _ in range(2):
        assert (await keystore.unregister(hospital, Unregister([guid.octets]))).outcomes == [DONE]
        assert (await register(keystore, guid, share=share))[0] is DESTROYED
        later = shares_of(guid, bytes(32), generation=7)[0].encode()
        assert (await register(keystore, guid, share=later))[0] is DESTROYED
    assert await collect(keystore, guid) == [(DESTROYED, b"")]
    assert await collect(keystore, guid, caller=hospital) == [(DESTROYED, b"")]
    assert (await keystore.status(hospital, AskStatus([guid.octets]))).statuses == [KeyStatus(DESTROYED)]


async def test_what_is_destroyed_twice_was_destroyed_the_first_time(shelf: MemoryShelf) -> None:
    """So says the certificate, and until then backups may hold it."""
    now, guid = [NOW], random_guid()
    keystore = Keystore(shelf, [HOSPITAL], lambda: now[0], always_current(HOSPITAL))
    await register(keystore, guid)
    for _ in range(2):
        await keystore.unregister(principal(HOSPITAL), Unregister([guid.octets]))
        now[0] += 1
    assert [stone.destroyed_at for stone in shelf.page.tombstones(guid)] == [NOW]


async def test_a_batch_meets_itself_in_order(keystore: Keystore) -> None:
    """Two entries about one GUID in one batch are judged one after the other."""
    guid = random_guid()
    shares = [shares_of(guid, bytes(32))[0].encode() for _ in range(2)]
    entries = [KeyEntry(share, [[ROOT_ID, OPEN_ID]]) for share in (*shares, shares[0])]
    outcomes = (await keystore.register(principal(HOSPITAL), Register(entries))).outcomes
    assert outcomes == [DONE, CONFLICT, DONE]
    assert await collect(keystore, guid, guid) == [(DONE, shares[0])] * 2


# ACLs


async def test_versions_of_acls_only_go_up(keystore: Keystore) -> None:
    """A replayed old version does not give back what a newer one took."""
    guid = random_guid()
    await register(keystore, guid)
    opened, closed = acl(user(READER, Right.READ)), acl(user(READER, Right.NONE))
    assert await set_acls(keystore, (OPEN_ID, 2, closed)) == [DONE]
    assert await collect(keystore, guid) == [(DENIED, b"")]
    assert await set_acls(keystore, (OPEN_ID, 1, opened), (OPEN_ID, 2, opened)) == [CONFLICT, CONFLICT]
    assert await collect(keystore, guid) == [(DENIED, b"")]
    assert await set_acls(keystore, (OPEN_ID, 2, closed)) == [DONE]
    assert await set_acls(keystore, (OPEN_ID, 3, opened)) == [DONE]
    assert [outcome for outcome, _ in await collect(keystore, guid)] == [DONE]


async def test_one_message_closes_every_file_below_a_directory(keystore: Keystore) -> None:
    """However many files there are."""
    guids = [random_guid() for _ in range(20)]
    for guid in guids:
        await register(keystore, guid)
    assert [outcome for outcome, _ in await collect(keystore, *guids)] == [DONE] * 20
    await set_acls(keystore, (ROOT_ID, 2, acl()))
    assert [outcome for outcome, _ in await collect(keystore, *guids)] == [DENIED] * 20


# what the protocol does not know


@pytest.mark.parametrize("octets", [b"", b"x" * 15, b"x" * 17])
async def test_a_guid_of_another_length_spoils_the_whole_message(keystore: Keystore, octets: bytes) -> None:
    """Nothing of the batch is answered or destroyed."""
    guid = random_guid()
    _, share = await register(keystore, guid)
    for ask in (
        keystore.collect(principal(READER), Collect([guid.octets, octets])),
        keystore.unregister(principal(HOSPITAL), Unregister([guid.octets, octets])),
        keystore.status(principal(HOSPITAL), AskStatus([octets])),
    ):
        with pytest.raises(MalformedMessageError):
            await ask
    assert await collect(keystore, guid) == [(DONE, share)]


async def test_a_batch_with_one_malformed_entry_registers_nothing(keystore: Keystore) -> None:
    """A cut share, an id of 15 bytes, too many names, an endless chain: each is refused with all beside it."""
    guid = random_guid()
    share = shares_of(guid, bytes(32))[0].encode()
    bad = [
        KeyEntry(share[:-1], [[OPEN_ID]]),
        KeyEntry(b"", [[OPEN_ID]]),
        KeyEntry(share, [[OPEN_ID[:-1]]]),
        KeyEntry(share, [[OPEN_ID]] * 65),
        KeyEntry(share, [[OPEN_ID] * 257]),
    ]
    for entry in bad:
        with pytest.raises(MalformedMessageError):
            await keystore.register(principal(HOSPITAL), Register([KeyEntry(share, [[OPEN_ID]]), entry]))
    assert await collect(keystore, guid) == [(UNKNOWN, b"")]


@pytest.mark.parametrize(
    "bad", [(b"short", 1, acl()), (OPEN_ID, -1, acl()), (OPEN_ID, 2**63, acl()), (OPEN_ID, 9, b"no ACL")]
)
async def test_a_malformed_acl_changes_nothing(keystore: Keystore, bad: tuple[bytes, int, bytes]) -> None:
    """Nor does the good one beside it."""
    with pytest.raises(MalformedMessageError):
        await set_acls(keystore, (ROOT_ID, 9, acl()), bad)
    guid = random_guid()
    await register(keystore, guid)
    assert [outcome for outcome, _ in await collect(keystore, guid)] == [DONE]


async def test_what_is_just_within_bounds_is_taken(keystore: Keystore) -> None:
    """64 names of 256 ACLs, versions from 0 to the largest that a store of SQL holds, 10,000 GUIDs."""
    guid = random_guid()
    share = shares_of(guid, bytes(32))[0].encode()
    entry = KeyEntry(share, [[OPEN_ID] * 256] * 64)
    assert (await keystore.register(principal(HOSPITAL), Register([entry]))).outcomes == [DONE]
    versions = [(b"0" * 16, 0, acl()), (b"1" * 16, 2**63 - 1, acl())]
    assert await set_acls(keystore, *versions) == [DONE, DONE]
    assert len(await collect(keystore, *[guid] * MAX_BATCH)) == MAX_BATCH


@pytest.mark.parametrize(
    ("number", "when", "is_taken"),
    [
        (1, 0, True),
        (2**63 - 1, 2**63 - 1, True),
        (0, 0, False),
        (2**63, 0, False),
        (1, -1, False),
        (1, 2**63, False),
    ],
)
async def test_a_checkpoint_has_a_number_and_a_time_that_a_shelf_can_hold(
    shelf: MemoryShelf,
    keystore: Keystore,
    number: int,
    when: int,
    is_taken: bool,  # noqa: FBT001 a column
) -> None:
    """Records count from 1; and so does who asks for those behind one."""
    message = Witness(bytes(16), number, bytes(32), when, bytes(64))
    if is_taken:
        assert (await keystore.witness(principal(HOSPITAL), message)).outcomes == [DONE]
        found = await keystore.witnessed(principal(HOSPITAL), AskWitnessed(bytes(16), number - 1))
        assert found.checkpoints == [message]
    else:
        with pytest.raises(MalformedMessageError):
            await keystore.witness(principal(HOSPITAL), message)
        assert not shelf.page.checkpoints
    for after in (-1, 2**63 - 1):
        with pytest.raises(MalformedMessageError):
            await keystore.witnessed(principal(HOSPITAL), AskWitnessed(bytes(16), after))


async def test_a_batch_too_large_is_refused_before_anything(keystore: Keystore) -> None:
    """One more than MAX_BATCH."""
    with pytest.raises(MalformedMessageError, match="10000"):
        await keystore.collect(principal(READER), Collect([bytes(16)] * (MAX_BATCH + 1)))


# what is told


async def test_every_guid_is_logged_with_dn_and_reason_and_no_share(keystore: Keystore) -> None:
    """Hydra kept no record of who got which key."""
    opened, closed = random_guid(), random_guid()
    _, share = await register(keystore, opened)
    await register(keystore, closed, chain=[CLOSED_ID])
    with structlog.testing.capture_logs() as lines:
        await collect(keystore, opened, closed)
    told = {line["result"]: (line["dn"], line["guids"]) for line in lines if line["event"] == "collect"}
    assert told == {
        "done": (str(READER), [str(opened)]),
        "the deciding entry does not allow it": (str(READER), [str(closed)]),
    }
    assert share.hex() not in repr(lines)
    assert repr(share)[2:-1] not in repr(lines)


async def test_what_a_hospital_asks_and_orders_is_logged_with_its_outcome(keystore: Keystore) -> None:
    """Also the versions of ACLs, by their opaque ids."""
    kept, unknown = random_guid(), random_guid()
    with structlog.testing.capture_logs() as lines:
        await register(keystore, kept)
        await keystore.status(principal(HOSPITAL), AskStatus([kept.octets, unknown.octets]))
        await set_acls(keystore, (OPEN_ID, 9, acl()), (OPEN_ID, 8, acl()))
        await keystore.unregister(principal(HOSPITAL), Unregister([kept.octets]))
    assert {line["dn"] for line in lines} == {str(HOSPITAL)}
    told = [(line["event"], line["result"], line.get("guids") or line["acls"]) for line in lines]
    assert told == [
        ("register", "done", [str(kept)]),
        ("status", "done", [str(kept)]),
        ("status", "unknown", [str(unknown)]),
        ("set-acls", "done", {OPEN_ID.hex(): 9}),
        ("set-acls", "conflict", {OPEN_ID.hex(): 8}),
        ("unregister", "done", [str(kept)]),
    ]


async def test_a_large_batch_is_logged_in_lines_of_a_hundred(keystore: Keystore) -> None:
    """Nobody's GUID is left out."""
    guids = [random_guid() for _ in range(250)]
    with structlog.testing.capture_logs() as lines:
        await collect(keystore, *guids)
    assert [len(line["guids"]) for line in lines] == [100, 100, 50]
    assert [guid for line in lines for guid in line["guids"]] == [str(guid) for guid in guids]


async def test_shares_that_are_asked_for_are_counted_by_outcome(keystore: Keystore) -> None:
    """So that a rise of refusals is seen."""

    def counted(outcome: Outcome) -> float:
        return prometheus_client.REGISTRY.get_sample_value("mdmfs_asked_shares_total", {"outcome": outcome}) or 0

    closed = random_guid()
    await register(keystore, closed, chain=[CLOSED_ID])
    before = [counted(outcome) for outcome in (DONE, DENIED, UNKNOWN)]
    await collect(keystore, closed, closed, random_guid())
    assert [counted(outcome) for outcome in (DONE, DENIED, UNKNOWN)] == [before[0], before[1] + 2, before[2] + 1]


async def test_what_is_destroyed_is_certified_and_what_is_not_is_named(shelf: MemoryShelf, tmp_path: Path) -> None:
    """Both are on record; and who cannot sign certifies nothing."""
    notary = Notary("k", make.host("keystore").save(tmp_path, "keystore"), 30)
    keystore = Keystore(shelf, [HOSPITAL], lambda: NOW, always_current(HOSPITAL), notary)
    kept, gone = random_guid(), random_guid()
    await register(keystore, kept)
    await keystore.unregister(principal(HOSPITAL), Unregister([gone.octets]))
    with structlog.testing.capture_logs() as lines:
        certificate = await keystore.certify(principal(HOSPITAL), Certify([kept.octets, gone.octets]))
    told = json.loads(certificate.document)
    assert (list(told["destroyed"]), told["not destroyed"]) == ([str(gone)], [str(kept)])
    assert [(line["result"], line["guids"]) for line in lines] == [
        ("not destroyed", [str(kept)]),
        ("destroyed", [str(gone)]),
    ]
    unable = Keystore(shelf, [HOSPITAL], lambda: NOW, always_current(HOSPITAL))
    with pytest.raises(ConfigurationError, match="no key to sign"):
        await unable.certify(principal(HOSPITAL), Certify([gone.octets]))


def test_no_message_shows_a_share() -> None:
    """Nor does a message that lands in a traceback."""
    share = shares_of(random_guid(), b"k" * 32, threshold=1)[0].encode()
    assert b"k" * 32 in share
    assert "kkk" not in repr(KeyEntry(share, [])) + repr(Register([KeyEntry(share, [])]))


# taking the place of a share


async def test_a_share_takes_the_place_of_the_one_it_names_and_of_no_other(
    keystore: Keystore, shelf: MemoryShelf
) -> None:
    """Of the same generation only where the split id fits; a lower generation never; twice is once."""
    guid = random_guid()
    old, new, other = (shares_of(guid, bytes(32), generation=2)[0] for _ in range(3))
    lower = shares_of(guid, bytes(32), generation=1)[0]

    async def replace(share: Share, replaces: bytes) -> Outcome:
        entry = KeyEntry(share.encode(), [[OPEN_ID]], replaces)
        return (await keystore.register(principal(HOSPITAL), Register([entry]))).outcomes[0]

    assert await replace(old, b"") is DONE
    for attempt, named in ((new, b""), (new, new.split_id), (new, other.split_id), (lower, old.split_id)):
        assert await replace(attempt, named) is CONFLICT
    assert [await replace(new, old.split_id) for _ in range(2)] == [DONE, DONE]
    assert await replace(other, old.split_id) is CONFLICT
    assert shelf.page.keys[guid].share == new.encode()


async def test_a_damaged_share_is_told_to_its_hospital_and_replaced_by_none(
    keystore: Keystore, shelf: MemoryShelf
) -> None:
    """Whoever restores the shelf loses less than whoever takes what comes next."""
    guid = random_guid()
    await register(keystore, guid)
    damaged = shelf.page.keys[guid] = msgspec.structs.replace(shelf.page.keys[guid], share=b"damaged")
    with pytest.raises(StoreError, match="damaged"):
        await keystore.status(principal(HOSPITAL), AskStatus([guid.octets]))
    with pytest.raises(StoreError, match="damaged"):
        await register(keystore, guid)
    assert shelf.page.keys[guid] == damaged


async def test_what_is_another_files_share_gives_way(keystore: Keystore, shelf: MemoryShelf) -> None:
    """It lies there by some damage, and nothing else could ever mend it."""
    guid, share = random_guid(), shares_of(random_guid(), bytes(32), generation=7)[0]
    _, right = await register(keystore, guid)
    shelf.page.keys[guid] = msgspec.structs.replace(shelf.page.keys[guid], share=share.encode())
    assert (await register(keystore, guid, share=right))[0] is DONE
    assert shelf.page.keys[guid].share == right
