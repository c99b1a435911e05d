"""Share records, and shares that do not belong together."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from mdmfs.model.errors import IntegrityError, MalformedMessageError, TooFewSharesError
from mdmfs.model.names import Guid
from mdmfs.sharing.shamir import SHARE_SIZE, Share, combine, split
from tests.twins.octets import octets

SECRET = octets(32, "secret")
SHARES = split(
    SECRET,
    guid=Guid(octets(16, "guid")),
    generation=2**32 - 1,
    threshold=3,
    total=5,
    split_id=octets(16, "split"),
    coefficients=octets(64, "coefficients"),
)


def test_a_record_is_read_back() -> None:
    """72 bytes, whatever holds them."""
    for share in SHARES:
        encoded = share.encode()
        assert len(encoded) == SHARE_SIZE
        assert Share.parse(encoded) == share
        assert Share.parse(bytes(memoryview(encoded))) == share


def test_a_share_does_not_show_its_value() -> None:
    """Neither as text nor in hexadecimal digits, while all the rest is there for whoever looks for a fault."""
    text = repr(SHARES[0])
    assert repr(SHARES[0].y)[2:-1] not in text
    assert SHARES[0].y.hex() not in text
    assert "y=" not in text
    assert "x=1" in text


@pytest.mark.parametrize("length", [0, 1, SHARE_SIZE - 1, SHARE_SIZE + 1, 2 * SHARE_SIZE])
def test_a_record_of_another_length_is_refused(length: int) -> None:
    """Nothing is read of it."""
    with pytest.raises(MalformedMessageError, match=f"not {length}"):
        Share.parse(bytes(length))


@pytest.mark.parametrize(
    "change",
    [
        {"version": 0},
        {"version": 2},
        {"generation": -1},
        {"generation": 2**32},
        {"split_id": bytes(15)},
        {"split_id": b""},
        {"threshold": 0},
        {"threshold": 6},
        {"total": 256},
        {"total": 2},
        {"x": 0},
        {"x": 6},
        {"x": -1},
        {"y": bytes(31)},
        {"y": bytes(33)},
    ],
)
def test_a_share_that_no_split_makes_is_refused(change: dict[str, int | bytes]) -> None:
    """Above all x = 0, whose value is the key itself; the message has no byte of the value."""
    with pytest.raises(MalformedMessageError, match=str(SHARES[0].guid)) as caught:
        dataclasses.replace(SHARES[0], **change)  # type: ignore[arg-type]
    assert SHARES[0].y.hex() not in str(caught.value)


def test_every_record_either_parses_to_itself_or_is_refused() -> None:
    """Each byte flipped in each of its bits: never another error, never a record that writes differently."""
    encoded = SHARES[1].encode()
    for at, bit in itertools.product(range(SHARE_SIZE), range(8)):
        changed = encoded[:at] + bytes([encoded[at] ^ 1 << bit]) + encoded[at + 1 :]
        try:
            assert Share.parse(changed).encode() == changed
        except MalformedMessageError:
            continue


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_shares_are_no_key(count: int) -> None:
    """An error, not a wrong key."""
    with pytest.raises(TooFewSharesError):
        combine(SHARES[:count])


@pytest.mark.parametrize(
    "change",
    [
        {"split_id": octets(16, "another split")},
        {"generation": 0},
        {"guid": Guid(octets(16, "another file"))},
        {"threshold": 1},
        {"threshold": 2},
        {"total": 6},
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_shares_of_different_splits_never_combine(change: dict[str, int | bytes], place: int) -> None:
    """Whichever of them it is, and even if it claims that fewer shares suffice."""
    shares = SHARES[:3]
    shares[place] = dataclasses.replace(shares[place], **change)  # type: ignore[arg-type]
    with pytest.raises(IntegrityError, match="different splits"):
        combine(shares)


def test_one_share_does_not_count_twice() -> None:
    """Neither the same nor two that claim the same x, even where enough others are there."""
    claimed = dataclasses.replace(SHARES[3], x=1)
    for double in (SHARES[0], claimed):
        with pytest.raises(IntegrityError, match="same x"):
            combine([SHARES[0], SHARES[1], double])
        with pytest.raises(IntegrityError, match="same x"):
            combine([*SHARES, double])


@pytest.mark.parametrize("wrong", range(5))
def test_more_shares_than_needed_must_agree(wrong: int) -> None:
    """One wrong byte in any of five is noticed where three make the key."""
    shares = list(SHARES)
    shares[wrong] = dataclasses.replace(shares[wrong], y=bytes([shares[wrong].y[0] ^ 1]) + shares[wrong].y[1:])
    with pytest.raises(IntegrityError, match="contradict"):
        combine(shares)
