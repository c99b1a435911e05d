"""What a disk or an attacker can do to ciphertext; for sealed objects of at least six chunks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from mdmfs.sealing.layout import HEADER_SIZE, SEALED_CHUNK_SIZE


def _flip(octets: bytes) -> bytes:
    middle = HEADER_SIZE + 3 * SEALED_CHUNK_SIZE + 100
    return octets[:middle] + bytes([octets[middle] ^ 1]) + octets[middle + 1 :]


def _swap(octets: bytes) -> bytes:
    first, second = (octets[HEADER_SIZE + n * SEALED_CHUNK_SIZE :][:SEALED_CHUNK_SIZE] for n in (1, 2))
    start = HEADER_SIZE + SEALED_CHUNK_SIZE
    return octets[:start] + second + first + octets[start + 2 * SEALED_CHUNK_SIZE :]


DAMAGES: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "flipped byte": _flip,
    "cut end": lambda octets: octets[:-1],
    "cut at a chunk's edge": lambda octets: octets[: HEADER_SIZE + 5 * SEALED_CHUNK_SIZE],
    "swapped chunks": _swap,
}
