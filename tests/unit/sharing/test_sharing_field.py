"""The field's tables against a multiplication bit by bit, and its laws."""

from __future__ import annotations

import functools
import itertools

import pytest
import shamir_mnemonic.shamir as slip39

from mdmfs.sharing.gf256 import ORDER, TIMES, add, evaluate, interpolate, invert
from tests.twins.octets import octets


def bitwise_product(left: int, right: int) -> int:
    """Multiply polynomials over GF(2) and reduce by x^8 + x^4 + x^3 + x + 1, as FIPS 197 section 4.2 says it."""
    product = 0
    for bit in range(8):
        if right >> bit & 1:
            product ^= left << bit
    for bit in range(14, 7, -1):
        if product >> bit & 1:
            product ^= 0x11B << (bit - 8)
    return product


def test_every_product_is_the_one_worked_out_bit_by_bit() -> None:
    """All 65,536."""
    for left in range(ORDER):
        assert TIMES[left] == bytes(bitwise_product(left, right) for right in range(ORDER))


def test_the_example_of_the_standard() -> None:
    """FIPS 197 section 4.2: {57} times {83} is {c1}, {57} times {13} is {fe}."""
    assert TIMES[0x57][0x83] == 0xC1
    assert TIMES[0x57][0x13] == 0xFE


def test_every_element_but_zero_has_its_inverse() -> None:
    """Their product is 1, by the independent multiplication."""
    assert all(bitwise_product(element, invert(element)) == 1 for element in range(1, ORDER))
    with pytest.raises(ZeroDivisionError, match="no inverse"):
        invert(0)


@pytest.mark.parametrize("length", [0, 1, 32, 100])
def test_addition_is_xor(length: int) -> None:
    """And undoes itself, leading and trailing zeroes kept."""
    left, right = bytes(length), octets(length, "right")
    assert add(left, right) == right
    assert add(right, right) == left
    assert add(octets(length), right) == bytes(a ^ b for a, b in zip(octets(length), right, strict=True))


@pytest.mark.parametrize("degree", range(5))
@pytest.mark.parametrize("x", [0, 1, 2, 9, 255])
def test_a_polynomial_s_value_is_the_sum_of_its_powers(degree: int, x: int) -> None:
    """Horner's rule against powers multiplied out, on 32 polynomials at once."""
    coefficients = [octets(32, f"{degree} {power}") for power in range(degree + 1)]
    expected = bytearray(32)
    for power, coefficient in enumerate(coefficients):
        factor = functools.reduce(bitwise_product, [x] * power, 1)
        for at in range(32):
            expected[at] ^= bitwise_product(coefficient[at], factor)
    assert evaluate(coefficients, x) == expected


@pytest.mark.parametrize("degree", range(5))
def test_enough_points_give_the_polynomial_everywhere(degree: int) -> None:
    """Any ``degree`` + 1 points, in any order, at zero, at the points themselves and elsewhere."""
    coefficients = [octets(32, f"{degree} {power}") for power in range(degree + 1)]
    for xs in itertools.islice(itertools.permutations([1, 2, 7, 0, 200, 255], degree + 1), 50):
        points = [(x, evaluate(coefficients, x)) for x in xs]
        for at in (0, 1, 3, 200, 254):
            assert interpolate(points, at) == evaluate(coefficients, at)


@pytest.mark.parametrize(("threshold", "total"), [(1, 1), (2, 3), (3, 5), (5, 9)])
def test_an_independent_arithmetic_of_the_field_finds_the_same_key_and_shares(threshold: int, total: int) -> None:
    """SLIP-39's reference works in the same field, with tables of logarithms: at 0 lies our key, at x our share."""
    secret = octets(32, "secret")
    polynomial = [secret, *(octets(32, f"coefficient {power}") for power in range(1, threshold))]
    points = [(x, evaluate(polynomial, x)) for x in range(1, total + 1)]
    for chosen in itertools.combinations(points, threshold):
        theirs = [slip39.RawShare(x, y) for x, y in chosen]
        assert slip39._interpolate(theirs, 0) == secret  # noqa: SLF001 the arithmetic itself
        assert all(slip39._interpolate(theirs, x) == y for x, y in points)  # noqa: SLF001
        assert interpolate(chosen, 0) == secret
