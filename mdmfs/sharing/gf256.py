"""Arithmetic in GF(2^8) with the polynomial 0x11b (FIPS 197 section 4.2), on whole byte strings at once.

A byte string times a number is one ``bytes.translate``. Table look-ups are not constant in time: against one who can
measure the processor's caches while keys are split or combined this does not protect.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

ORDER: Final = 256
_POLYNOMIAL: Final = 0x11B
_UNITS: Final = ORDER - 1
"""How many elements have an inverse; the powers of the generator 3 run through them all."""


def _powers_of_three() -> list[int]:
    powers, power = [], 1
    for _ in range(_UNITS):
        powers.append(power)
        doubled = power << 1
        power ^= doubled ^ (_POLYNOMIAL if doubled & ORDER else 0)
    return powers


_POWERS: Final = bytes(_powers_of_three() * 2)
_LOGARITHMS: Final = bytes([_UNITS, *sorted(range(_UNITS), key=_POWERS.__getitem__)])
"""Of 1 to 255, base 3; zero has none and gets 255, which no product of others reaches."""


def _times_table(factor: int) -> bytes:
    if factor == 0:
        return bytes(ORDER)
    logarithm = _LOGARITHMS[factor]
    return _LOGARITHMS.translate(_POWERS[logarithm : logarithm + _UNITS] + b"\0")


TIMES: Final = tuple(_times_table(factor) for factor in range(ORDER))
"""``TIMES[a][b]`` is a times b, and ``octets.translate(TIMES[a])`` is a times each byte."""


def invert(element: int) -> int:
    """Give the element whose product with this one is 1; ``ZeroDivisionError`` for 0."""
    if element == 0:
        message = "0 has no inverse"
        raise ZeroDivisionError(message)
    return _POWERS[_UNITS - _LOGARITHMS[element]]


def add(left: bytes, right: bytes) -> bytes:
    """Add byte by byte, which is XOR; both have the same length."""
    return (int.from_bytes(left, "little") ^ int.from_bytes(right, "little")).to_bytes(len(left), "little")


def evaluate(coefficients: Sequence[bytes], x: int) -> bytes:
    """Give the value at ``x`` of the polynomials whose coefficients these are, lowest first (Horner)."""
    times_x = TIMES[x]
    value = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        value = add(value.translate(times_x), coefficient)
    return value


def interpolate(points: Sequence[tuple[int, bytes]], at: int) -> bytes:
    """Give the value at ``at`` of the lowest polynomials through these points (Lagrange).

    The points' first parts differ from each other, their second parts are equally long.
    """
    length = len(points[0][1])
    total = 0
    for weight, (_, value) in zip(_weights(tuple(x for x, _ in points), at), points, strict=True):
        total ^= int.from_bytes(value.translate(TIMES[weight]), "little")
    return total.to_bytes(length, "little")


@functools.lru_cache(maxsize=1024)
def _weights(xs: tuple[int, ...], at: int) -> tuple[int, ...]:
    weights = []
    for x in xs:
        weight = 1
        for other in xs:
            if other != x:
                weight = TIMES[TIMES[weight][at ^ other]][invert(x ^ other)]
        weights.append(weight)
    return tuple(weights)
