"""Splitting and combining: every key comes back from any k shares, and k - 1 give nothing."""

from __future__ import annotations

import itertools

import pytest

from mdmfs.model.errors import IntegrityError, MalformedMessageError, TooFewSharesError
from mdmfs.model.names import Guid
from mdmfs.sharing.shamir import Share, another_share, candidates, combine, split
from tests.twins.octets import octets

GUID = Guid(octets(16, "guid"))
SPLIT_ID = octets(16, "split")
SCHEMES = [(threshold, total) for total in range(1, 10) for threshold in range(1, min(total, 5) + 1)]


def split_it(secret: bytes, threshold: int, total: int, seed: str = "") -> list[Share]:
    """Split with randomness that is the same in every run."""
    return split(
        secret,
        guid=GUID,
        generation=7,
        threshold=threshold,
        total=total,
        split_id=SPLIT_ID,
        coefficients=octets(32 * (threshold - 1), seed),
    )


@pytest.mark.parametrize(("threshold", "total"), SCHEMES)
def test_any_k_shares_give_the_key(threshold: int, total: int) -> None:
    """Every subset of k of n, with eight keys that hold all byte values, all zeroes and all ones among them."""
    secrets = [bytes(range(start, start + 32)) for start in range(0, 256, 32)]
    for secret in [*secrets, bytes(32), b"\xff" * 32]:
        shares = split_it(secret, threshold, total)
        assert [share.x for share in shares] == list(range(1, total + 1))
        for chosen in itertools.combinations(shares, threshold):
            assert combine(chosen) == secret


@pytest.mark.parametrize(("threshold", "total"), [(1, 1), (2, 3), (3, 5)])
def test_every_byte_value_at_every_position_comes_back(threshold: int, total: int) -> None:
    """256 keys that put each value at each of the 32 places, with every subset of shares."""
    for value in range(256):
        secret = bytes((value + 7 * at) % 256 for at in range(32))
        for chosen in itertools.combinations(split_it(secret, threshold, total, str(value)), threshold):
            assert combine(chosen) == secret


def test_random_keys_are_never_lost() -> None:
    """10,000 keys, each from three pairs of shares; a bench runs a million."""
    keys = octets(32 * 10_000, "keys")
    for at in range(0, len(keys), 32):
        first, second, third = split_it(keys[at : at + 32], 2, 3, str(at))
        assert combine((first, second)) == combine((third, second)) == combine((first, third)) == keys[at : at + 32]


@pytest.mark.parametrize(("threshold", "total"), [(2, 3), (3, 5), (5, 9)])
def test_the_order_of_the_shares_does_not_count_and_more_than_enough_agree(threshold: int, total: int) -> None:
    """Shares come from whoever answers first."""
    secret = octets(32, "secret")
    shares = split_it(secret, threshold, total)
    for start in range(total):
        turned = shares[start:] + shares[:start]
        assert combine(turned) == combine(turned[::-1]) == combine(turned[:threshold]) == secret


def test_a_key_from_its_memory_view_splits_like_its_bytes() -> None:
    """The owner of a key need not copy it first."""
    secret = octets(32, "secret")
    assert split_it(memoryview(secret), 2, 3) == split_it(secret, 2, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("x", range(3))
def test_one_share_of_a_split_by_two_takes_every_value_equally_often(x: int) -> None:
    """Over all randomness, whatever the key: an exact count, for 32 key bytes at once, zeroes among them."""
    secret = bytes([0, 0xFF, *range(1, 31)])
    seen: list[set[int]] = [set() for _ in secret]
    for value in range(256):
        y = split_with(secret, 2, 3, bytes([value]) * 32)[x].y
        for at, octet in enumerate(y):
            seen[at].add(octet)
    assert all(len(values) == 256 for values in seen)


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(range(4), 2)))
def test_two_shares_of_a_split_by_three_take_every_pair_of_values_once(first: int, second: int) -> None:
    """All 65,536 pairs of coefficients give all 65,536 pairs of bytes: two shares do not narrow the key down."""
    seen: set[tuple[int, int]] = set()
    for high in range(256):
        for low in range(0, 256, 32):
            shares = split_with(b"\x5a" * 32, 3, 4, bytes([high]) * 32 + bytes(range(low, low + 32)))
            seen.update(zip(shares[first].y, shares[second].y, strict=True))
    assert len(seen) == 65_536


@pytest.mark.parametrize(("threshold", "total"), [scheme for scheme in SCHEMES if scheme[0] > 1])
def test_too_few_shares_fit_any_other_key(threshold: int, total: int) -> None:
    """For k - 1 shares and any key there is randomness that gives these very shares: they cannot speak against it."""
    shares = split_it(octets(32, "secret"), threshold, total)[: threshold - 1]
    assert list(candidates(shares)) == []
    other = octets(32, "another key altogether")
    points = [(0, other), *((share.x, share.y) for share in shares)]
    forged = split_with(other, threshold, total, coefficients_through(points))
    assert [share.y for share in forged[: threshold - 1]] == [share.y for share in shares]


@pytest.mark.parametrize(("threshold", "total"), [(0, 0), (0, 3), (4, 3), (1, 0), (2, 256), (-1, 3)])
def test_a_scheme_that_nothing_could_combine_is_refused(threshold: int, total: int) -> None:
    """Above all one that would give no share and lose the key."""
    with pytest.raises(ValueError, match="cannot be split"):
        split_with(bytes(32), threshold, total, bytes(32 * max(0, threshold - 1)))


@pytest.mark.parametrize(("key_length", "randomness"), [(31, 32), (33, 32), (0, 32), (32, 0), (32, 31), (32, 64)])
def test_a_key_or_randomness_of_another_length_is_refused(key_length: int, randomness: int) -> None:
    """Too little randomness would give the key away."""
    with pytest.raises(ValueError, match="a split needs"):
        split_with(bytes(key_length), 2, 3, bytes(randomness))


def split_with(secret: bytes, threshold: int, total: int, coefficients: bytes) -> list[Share]:
    """Split with randomness of one's choice."""
    return split(
        secret,
        guid=GUID,
        generation=7,
        threshold=threshold,
        total=total,
        split_id=SPLIT_ID,
        coefficients=coefficients,
    )


def coefficients_through(points: list[tuple[int, bytes]]) -> bytes:
    """Give the coefficients, but the lowest, of the polynomials through these points: Newton's form multiplied out."""
    columns = [_newton([(x, y[at]) for x, y in points]) for at in range(32)]
    return b"".join(bytes(column[power] for column in columns) for power in range(1, len(points)))


def _newton(points: list[tuple[int, int]]) -> list[int]:
    polynomial, product = [0] * len(points), [1] + [0] * len(points)
    for count, (x, y) in enumerate(points):
        value, scale, power = 0, 0, 1
        for coefficient, factor in zip(polynomial, product, strict=False):
            value, scale, power = value ^ _times(coefficient, power), scale ^ _times(factor, power), _times(power, x)
        scale ^= _times(product[len(points)], power)
        step = _times(value ^ y, next(inverse for inverse in range(256) if _times(scale, inverse) == 1))
        polynomial = [a ^ _times(step, b) for a, b in zip(polynomial, product, strict=False)]
        if count + 1 < len(points):
            product = [_times(x, b) ^ a for a, b in zip([0, *product], product, strict=False)]
    return polynomial


def _times(left: int, right: int) -> int:
    product = 0
    while right:
        product ^= left if right & 1 else 0
        left = left << 1 ^ (0x11B if left & 0x80 else 0)
        right >>= 1
    return product


@pytest.mark.parametrize(("threshold", "total"), SCHEMES)
def test_a_lost_share_is_made_again_from_any_k_others(threshold: int, total: int) -> None:
    """It is the very share that was lost, bit by bit."""
    shares = split_it(octets(32, "key"), threshold, total)
    for lost in shares:
        for others in itertools.combinations([share for share in shares if share != lost], threshold):
            assert another_share(others, lost.x) == lost


def test_no_share_is_made_of_too_few_or_of_shares_that_do_not_fit() -> None:
    """Nor one that the split never had."""
    shares, others = split_it(octets(32, "key"), 2, 4), split_it(octets(32, "key"), 2, 4, "other")
    with pytest.raises(TooFewSharesError):
        another_share(shares[:1], 2)
    with pytest.raises(IntegrityError):
        another_share([*shares[:2], others[2]], 4)
    for x in (0, 5, 256):
        with pytest.raises(MalformedMessageError):
            another_share(shares[:2], x)
