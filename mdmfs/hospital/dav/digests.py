"""Digests of sealed objects in the words of RFC 3230, as programs of the grid ask for them."""

from __future__ import annotations

import base64
import collections
import enum
import hashlib
import re
import zlib
from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

import trio

from mdmfs.hospital.kept.staged import StagedObject
from mdmfs.wire.service import Octets

MAX_REMEMBERED: Final = 10_000
_WISH: Final = re.compile(r"\s*(?P<name>[A-Za-z0-9-]+)\s*(?:;\s*q\s*=\s*(?P<quality>[01](?:\.[0-9]{0,3})?))?\s*")


class Algorithm(enum.StrEnum):
    """An algorithm by its name in ``Want-Digest`` and ``Digest`` (IANA's registry of HTTP digest algorithms)."""

    ADLER32 = "adler32"
    MD5 = "md5"
    SHA256 = "sha-256"


def wanted(headers: Mapping[str, str]) -> Algorithm | None:
    """Give the algorithm that ``Want-Digest`` likes best of those that are known; None where it wants none."""
    best: tuple[float, Algorithm] | None = None
    for wish in headers.get("want-digest", "").split(","):
        match = _WISH.fullmatch(wish)
        name = match["name"].lower() if match else ""
        if match is None or name not in set(Algorithm):
            continue
        quality = float(match["quality"] or 1)
        if quality and (best is None or quality > best[0]):
            best = quality, Algorithm(name)
    return None if best is None else best[1]


class _Sum(Protocol):
    def update(self, octets: Octets, /) -> None: ...

    def digest(self) -> bytes: ...


class _Adler32:
    def __init__(self) -> None:
        self._value = zlib.adler32(b"")

    def update(self, octets: Octets, /) -> None:
        self._value = zlib.adler32(octets, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


class _Sealing(NamedTuple):
    salt: bytes
    algorithm: Algorithm


class Digests:
    """The digests of staged objects, made when somebody asks and remembered for their sealing."""

    def __init__(self) -> None:
        self._known: collections.OrderedDict[_Sealing, str] = collections.OrderedDict()

    async def of(self, staged: StagedObject, algorithm: Algorithm) -> str:
        """Give the value of ``Digest`` for a whole object, which is waited for; raises as its reader does."""
        sealing = _Sealing(staged.salt, algorithm)
        if sealing not in self._known:
            self._known[sealing] = _written(algorithm, await _digest(staged, algorithm))
            if len(self._known) > MAX_REMEMBERED:
                self._known.popitem(last=False)
        return self._known[sealing]


async def _digest(staged: StagedObject, algorithm: Algorithm) -> bytes:
    total = _sum(algorithm)
    reader = staged.open()
    try:
        async for piece in reader.octets(0, staged.size):
            await trio.to_thread.run_sync(total.update, piece)
    finally:
        reader.close()
    return total.digest()


def _sum(algorithm: Algorithm) -> _Sum:
    match algorithm:
        case Algorithm.ADLER32:
            return _Adler32()
        case Algorithm.MD5:
            return hashlib.md5(usedforsecurity=False)
        case Algorithm.SHA256:
            return hashlib.sha256()


def _written(algorithm: Algorithm, digest: bytes) -> str:
    """Write Adler-32 in hexadecimal digits, as the grid does, and the others in base64 (RFC 3230 section 4.1.1)."""
    text = digest.hex() if algorithm is Algorithm.ADLER32 else base64.b64encode(digest).decode("ascii")
    return f"{algorithm}={text}"
