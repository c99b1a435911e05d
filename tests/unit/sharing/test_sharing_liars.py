"""Keystores that lie: the right key is found among the candidates, and the liars are named."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from mdmfs.model.names import Guid
from mdmfs.sharing.gf256 import TIMES, add, invert
from mdmfs.sharing.shamir import Share, candidates, lying_shares, split
from tests.twins.octets import octets

SECRET = octets(32, "secret")
GUID = Guid(octets(16, "guid"))


def split_it(threshold: int, total: int, seed: str = "", generation: int = 0) -> list[Share]:
    """Split the secret with randomness that is the same in every run."""
    return split(
        SECRET,
        guid=GUID,
        generation=generation,
        threshold=threshold,
        total=total,
        split_id=octets(16, seed),
        coefficients=octets(32 * (threshold - 1), seed),
    )


def lie(share: Share, seed: str = "a lie") -> Share:
    """Give the share another value."""
    return dataclasses.replace(share, y=octets(32, f"{seed} {share.x}"))


def test_without_a_lie_the_first_candidate_is_the_key() -> None:
    """And each set of shares comes once."""
    shares = split_it(2, 3)
    found = list(candidates(shares))
    assert [[share.x for share in chosen] for chosen, _ in found] == [[1, 2], [1, 3], [2, 3]]
    assert {key for _, key in found} == {SECRET}
    assert lying_shares(SECRET, shares) == ()


@pytest.mark.parametrize(("threshold", "total"), [(1, 3), (2, 3), (2, 5), (3, 5), (5, 9)])
def test_as_long_as_k_are_honest_the_key_is_found_and_the_liars_are_named(threshold: int, total: int) -> None:
    """Up to n - k liars, whoever they are."""
    honest = split_it(threshold, total)
    for count in range(1, total - threshold + 1):
        for liars in itertools.islice(itertools.combinations(range(total), count), 12):
            shares = [lie(share) if at in liars else share for at, share in enumerate(honest)]
            assert any(key == SECRET and set(chosen) <= set(honest) for chosen, key in candidates(shares))
            assert lying_shares(SECRET, shares) == tuple(shares[at] for at in liars)


def test_a_single_wrong_bit_is_a_lie() -> None:
    """In any byte of the value."""
    honest = split_it(2, 3)
    for at in range(32):
        wrong = dataclasses.replace(honest[1], y=add(honest[1].y, bytes(at) + b"\x01" + bytes(31 - at)))
        assert lying_shares(SECRET, [honest[0], wrong, honest[2]]) == (wrong,)


def test_a_share_that_steals_another_s_x_does_not_hide_the_key() -> None:
    """Both claims are tried, never together, and the false one is named."""
    honest = split_it(2, 3)
    thief = dataclasses.replace(honest[2], x=1)
    shares = [thief, honest[0], honest[1]]
    found = list(candidates(shares))
    assert [[share.x for share in chosen] for chosen, _ in found] == [[1, 2], [1, 2]]
    assert ((honest[0], honest[1]), SECRET) in found
    assert lying_shares(SECRET, shares) == (thief,)


def test_a_thief_of_an_x_is_named_beside_a_liar() -> None:
    """Three are needed; of the two that claim x = 2 the right one is believed."""
    honest = split_it(3, 5)
    thief = dataclasses.replace(honest[4], x=2)
    shares = [lie(honest[0]), honest[1], thief, honest[2], honest[3]]
    assert lying_shares(SECRET, shares) == (shares[0], thief)


def test_the_same_share_twice_is_one_share() -> None:
    """A repeated answer neither counts double nor makes a liar."""
    shares = split_it(2, 3)
    assert list(candidates([shares[0], shares[0]])) == []
    assert len(list(candidates([*shares, *shares]))) == 3
    assert lying_shares(SECRET, [*shares, *shares]) == ()


@pytest.mark.parametrize(
    "change", [{"split_id": bytes(16)}, {"generation": 1}, {"guid": Guid(bytes(16))}, {"threshold": 1}, {"total": 9}]
)
def test_candidates_are_made_within_one_split(change: dict[str, int | bytes]) -> None:
    """A share that says it is of another split is never mixed in, whatever else it says."""
    honest = split_it(2, 3)
    stranger = dataclasses.replace(honest[0], **change)  # type: ignore[arg-type]
    for chosen, key in candidates([stranger, *honest[1:]]):
        assert (key == SECRET) == (stranger not in chosen)
        assert len({share.split_id for share in chosen}) == 1
    assert lying_shares(SECRET, [stranger, *honest[1:]]) in ((), (stranger,))


def test_shares_of_an_older_split_give_their_own_candidates() -> None:
    """While keystores are replaced both splits are about; each gives the key, no mixture is tried, nobody lies."""
    old, new = split_it(2, 3, "old"), split_it(3, 5, "new")
    found = list(candidates([*old, *new]))
    assert len(found) == 3 + 10
    assert {key for _, key in found} == {SECRET}
    assert lying_shares(SECRET, [*old, *new]) == ()
    assert lying_shares(SECRET, [old[0], lie(old[1]), old[2], *new[:4], lie(new[4])]) == (lie(old[1]), lie(new[4]))


def test_where_too_few_agree_nobody_is_named() -> None:
    """With one share against one, the key alone does not tell which of them lies."""
    shares = split_it(2, 3)
    assert lying_shares(SECRET, [shares[0], lie(shares[1])]) == ()
    assert lying_shares(SECRET, [shares[0]]) == ()
    assert lying_shares(SECRET, []) == ()


def test_two_that_conspire_are_not_believed_against_two_honest_ones() -> None:
    """They can make values that give the key as well; with equal numbers, only who is on neither side is named."""
    first, second, third, fourth, fifth = split_it(2, 5)
    shift = octets(32, "shift")
    # two shares give y1 x2 / (x1 + x2) + y2 x1 / (x1 + x2): shifts in the ratio x1 to x2 cancel each other
    ratio = TIMES[second.x][invert(first.x)]
    false_first = dataclasses.replace(first, y=add(first.y, shift))
    false_second = dataclasses.replace(second, y=add(second.y, shift.translate(TIMES[ratio])))
    assert ((false_first, false_second), SECRET) in list(candidates([false_first, false_second]))
    assert lying_shares(SECRET, [false_first, false_second, third, fourth, lie(fifth)]) == (lie(fifth),)
    assert lying_shares(SECRET, [false_first, false_second, third, fourth, fifth]) == (false_first, false_second)
