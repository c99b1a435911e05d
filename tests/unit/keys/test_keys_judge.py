"""What is wrong with the shares of one file, and what makes it good: decided on values alone."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from mdmfs.hospital.catalogue.records import FileRecord, FileState, Rendition
from mdmfs.hospital.kept.escrow import key_check
from mdmfs.hospital.keys.amends import repair, resplit
from mdmfs.hospital.keys.judge import Fault, Held, judge, latest_held
from mdmfs.hospital.keys.selection import Selection
from mdmfs.model.subject import SubjectId
from mdmfs.sharing.shamir import Share
from mdmfs.wire.messages.keystores import Outcome
from tests.twins.keystores import random_guid, shares_of

GUID = random_guid()
SECRET = b"the key of the file, of 32 bytes"
GENERATION = 5
NAMES = ("k1", "k2", "k3", "k4")
FILE = FileRecord(
    guid=GUID,
    inode=2,
    project="p",
    acl=bytes(16),
    generation=GENERATION,
    threshold=2,
    key_check=key_check(SECRET, GUID, GENERATION),
    state=FileState.VISIBLE,
    modified=0.0,
    places=(),
    rendition=Rendition(0, 0, b"", b"", b"", bytes(32), 1, ""),
)
NONE = Held(Outcome.UNKNOWN, None)


def split(secret: bytes = SECRET, *, threshold: int = 2, total: int = 4, generation: int = GENERATION) -> list[Share]:
    """Split a key."""
    return shares_of(GUID, secret, threshold=threshold, total=total, generation=generation)


def having(**shares: Share) -> Mapping[str, Held]:
    """Have keystores hold shares, and the others none."""
    return {name: Held(Outcome.DONE, shares[name]) if name in shares else NONE for name in NAMES}


@pytest.mark.parametrize("outcome", list(Outcome))
def test_only_done_brings_a_share_and_only_one_of_the_file(outcome: Outcome) -> None:
    """Whatever a keystore sends, it is read."""
    share = split()[0]
    told = Held.parse(GUID, outcome, share.encode())
    assert told == Held(outcome, share if outcome is Outcome.DONE else None)
    for octets in (b"", b"noise", share.encode()[:-1], shares_of(random_guid(), SECRET)[0].encode()):
        assert Held.parse(GUID, outcome, octets) == Held(outcome, None)


def test_the_latest_generation_that_anybody_holds_is_told() -> None:
    """0 where nobody holds a share of it."""
    other = random_guid()
    first, second = split(generation=3)[0], split(generation=7)[1]
    answers = {"k1": [Held(Outcome.DONE, first), NONE], "k2": [Held(Outcome.DONE, second), NONE]}
    assert latest_held([GUID, other], answers) == {GUID: 7, other: 0}


def test_a_split_of_which_too_few_shares_are_there_makes_no_key() -> None:
    """However many keystores hold it: the one that does is the right one."""
    many, enough = split(threshold=3), split(threshold=2)
    verdict = judge(FILE, having(k1=many[0], k2=many[1], k3=enough[2], k4=enough[3]))
    assert verdict.secret == SECRET
    assert set(verdict.honest) == {"k3", "k4"}
    assert verdict.faults == {"k1": Fault.STALE, "k2": Fault.STALE}


def test_what_is_left_of_another_generation_is_stale_also_where_the_key_is_lost() -> None:
    """And a share of which nobody knows whether it is right is no fault."""
    verdict = judge(FILE, having(k1=split(generation=4)[0], k2=split()[1]))
    assert verdict.is_lost
    assert not verdict.honest
    assert verdict.faults == {"k1": Fault.STALE, "k3": Fault.MISSING, "k4": Fault.MISSING}


def test_each_answer_without_a_share_is_a_fault_of_its_own() -> None:
    """A tombstone is not mended, nor what belongs to another hospital."""
    shares = split()
    held = {
        **having(k1=shares[0], k2=shares[1]),
        "k3": Held(Outcome.DENIED, None),
        "k4": Held(Outcome.DESTROYED, None),
    }
    verdict = judge(FILE, held)
    assert verdict.faults == {"k3": Fault.FOREIGN, "k4": Fault.DESTROYED}
    assert repair(NAMES, GUID, verdict, held) is None


def test_a_keystore_gets_the_share_of_its_place_unless_another_has_it() -> None:
    """Two that hold the same share are one too few for a key."""
    shares = split()
    assert _repaired(having(k1=shares[0], k2=shares[1], k3=shares[2])) == {"k4": shares[3]}
    assert _repaired(having(k1=shares[3], k2=shares[1], k3=shares[2])) == {"k4": shares[0]}
    assert _repaired(having(k1=shares[2], k2=shares[3])) == {"k3": shares[0], "k4": shares[1]}


def test_no_share_is_made_that_the_split_does_not_have() -> None:
    """A fourth keystore gets none of three: the key has to be split anew for it."""
    three = split(total=3)
    assert _repaired(having(k1=three[0], k2=three[1], k3=three[2])) == {}
    assert _repaired(having(k1=three[0], k2=three[1])) == {"k3": three[2]}


def test_a_key_that_was_not_found_is_not_split() -> None:
    """Nothing is invented."""
    held = having(k1=split()[0])
    verdict = judge(FILE, held)
    assert resplit(NAMES, 2, verdict, held) is None
    assert repair(NAMES, GUID, verdict, held) is None


def test_everything_is_selected_by_naming_nothing_alone() -> None:
    """Whatever is named leaves something out."""
    assert Selection().is_everything
    assert not Selection((GUID,)).is_everything
    assert not Selection(subject=SubjectId.from_random(bytes(10))).is_everything
    assert not Selection(project="p").is_everything


def _repaired(held: Mapping[str, Held]) -> dict[str, Share]:
    shipment = repair(NAMES, GUID, judge(FILE, held), held)
    return {} if shipment is None else {name: Share.parse(octets) for name, octets in shipment.shares.items()}
