"""Shamir's sharing of a file key, byte by byte over GF(2^8): k of n shares give the key, fewer give nothing.

A sharing cannot tell a right key from a wrong one: the commitment of the sealed object does. So ``candidates`` gives
every key that the shares make, and once one has opened the object, ``lying_shares`` names who gave a wrong share.
"""

from __future__ import annotations

import dataclasses
import itertools
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple, Self

from mdmfs.model.errors import IntegrityError, MalformedMessageError, TooFewSharesError
from mdmfs.model.names import Guid
from mdmfs.sharing.gf256 import evaluate, interpolate

SECRET_SIZE: Final = 32
SPLIT_ID_SIZE: Final = 16
SHARE_VERSION: Final = 1
SHARE_SIZE: Final = 72
MAX_TOTAL: Final = 255
MAX_GENERATION: Final = 2**32 - 1

_RECORD: Final = struct.Struct(">B16sI16sBBB32s")


@dataclasses.dataclass(frozen=True, slots=True)
class Share:
    """One of the ``total`` parts of a key, of which ``threshold`` make it."""

    version: int
    guid: Guid
    generation: int
    """Of the key, from 0."""
    split_id: bytes
    """16 random bytes that all shares of one split have, and no others."""
    threshold: int
    total: int
    x: int
    """Which share it is, 1 to ``total``."""
    y: bytes = dataclasses.field(repr=False)

    def __post_init__(self) -> None:
        """Refuse what no split makes, with ``MalformedMessageError``."""
        reason = self._defect()
        if reason:
            message = f"this is no share of {self.guid}: {reason}"
            raise MalformedMessageError(message)

    def encode(self) -> bytes:
        """Write the record of 72 bytes (docs/sealed-object.md, "Share record")."""
        return _RECORD.pack(
            self.version,
            self.guid.octets,
            self.generation,
            self.split_id,
            self.threshold,
            self.total,
            self.x,
            self.y,
        )

    @classmethod
    def parse(cls, octets: bytes) -> Self:
        """Read what ``encode`` wrote; raises ``MalformedMessageError``."""
        if len(octets) != SHARE_SIZE:
            message = f"a share record has {SHARE_SIZE} bytes, not {len(octets)}"
            raise MalformedMessageError(message)
        version, guid, *others = _RECORD.unpack(octets)
        return cls(version, Guid(guid), *others)

    def _defect(self) -> str:
        if self.version != SHARE_VERSION:
            return f"version {self.version} is not {SHARE_VERSION}"
        if not 0 <= self.generation <= MAX_GENERATION:
            return f"generation {self.generation} is out of range"
        if len(self.split_id) != SPLIT_ID_SIZE or len(self.y) != SECRET_SIZE:
            return f"a split id has {SPLIT_ID_SIZE} bytes and a value {SECRET_SIZE}"
        if not 1 <= self.threshold <= self.total <= MAX_TOTAL:
            return f"{self.threshold} of {self.total} is no threshold"
        if not 1 <= self.x <= self.total:
            return f"{self.x} is not between 1 and {self.total}"
        return ""


class Split(NamedTuple):
    """What the shares of one split have in common; made a dozen times for each file that is opened."""

    guid: Guid
    generation: int
    split_id: bytes
    threshold: int
    total: int


def split(  # noqa: PLR0913 each is a field of the record
    secret: bytes | memoryview,
    *,
    guid: Guid,
    generation: int,
    threshold: int,
    total: int,
    split_id: bytes,
    coefficients: bytes,
) -> list[Share]:
    """Split a key of 32 bytes into ``total`` shares, x = 1 to ``total``.

    ``coefficients`` are 32 random bytes for each share of the threshold but one, ``split_id`` 16 random bytes; both
    come from the system's random generator and are never used again. ``ValueError`` for anything else.
    """
    if not 1 <= threshold <= total <= MAX_TOTAL:
        message = f"a key cannot be split {threshold} of {total}"
        raise ValueError(message)
    if len(secret) != SECRET_SIZE or len(coefficients) != (threshold - 1) * SECRET_SIZE:
        message = f"a split needs {SECRET_SIZE} bytes of key, and as many of randomness for each share needed but one"
        raise ValueError(message)
    # a coefficient may be zero, the highest too: leaving values out would tell something about the key
    polynomial = [bytes(secret), *(coefficients[i : i + SECRET_SIZE] for i in range(0, len(coefficients), SECRET_SIZE))]
    return [
        Share(SHARE_VERSION, guid, generation, split_id, threshold, total, x, evaluate(polynomial, x))
        for x in range(1, total + 1)
    ]


def combine(shares: Sequence[Share]) -> bytes:
    """Make the key of at least ``threshold`` shares of one split.

    Raises ``TooFewSharesError``; ``IntegrityError`` for shares of different splits, files, generations or thresholds,
    for two with the same x, and for more than the threshold that contradict each other. With exactly the threshold a
    wrong share gives a wrong key, which only the commitment of the sealed object tells.
    """
    if not shares:
        message = "no share was given"
        raise TooFewSharesError(message)
    guid, threshold = shares[0].guid, shares[0].threshold
    if len({split_of(share) for share in shares}) > 1:
        message = f"the shares given for {guid} are of different splits and never combine"
        raise IntegrityError(message)
    if not _has_distinct_x(shares):
        message = f"two of the shares given for {guid} claim the same x"
        raise IntegrityError(message)
    if len(shares) < threshold:
        message = f"{len(shares)} shares of {guid} were given, {threshold} make the key"
        raise TooFewSharesError(message)
    points = [(share.x, share.y) for share in shares]
    enough, more = points[:threshold], points[threshold:]
    if any(interpolate(enough, x) != y for x, y in more):
        message = f"the shares given for {guid} contradict each other"
        raise IntegrityError(message)
    return interpolate(enough, 0)


def another_share(shares: Sequence[Share], x: int) -> Share:
    """Give the share at ``x`` of the split that these are of, which are at least ``threshold`` and proven right.

    Raises as ``combine`` does, and ``MalformedMessageError`` for an ``x`` that the split has not.
    """
    combine(shares)
    # its x is judged before there is anything at it: at 0 lies the key
    place = dataclasses.replace(shares[0], x=x)
    points = [(share.x, share.y) for share in shares[: place.threshold]]
    return dataclasses.replace(place, y=interpolate(points, x))


def candidates(shares: Iterable[Share]) -> Iterator[tuple[tuple[Share, ...], bytes]]:
    """Give each set of ``threshold`` shares of one split, and its key, in the order the shares came.

    The caller tries the keys against the commitment of the sealed object; without a lie the first of the right split
    opens it. Nothing is given where no split has enough shares. The number of sets is "threshold of shares given", so
    the caller brings one share for each keystore he asked, and no more.
    """
    for group in _by_split(shares):
        for chosen in itertools.combinations(group, group[0].threshold):
            if _has_distinct_x(chosen):
                yield chosen, interpolate([(share.x, share.y) for share in chosen], 0)


def lying_shares(secret: bytes | memoryview, shares: Iterable[Share]) -> tuple[Share, ...]:
    """Name the shares that contradict a key that is proven right.

    In each split, at least ``threshold`` shares must lie on one polynomial through the key, and those off it are named;
    should several polynomials hold equally many shares, those off them all. A split in which too few agree names
    nobody, and another split id alone is no lie: it is an older share of the same file, or a newer one.
    """
    return tuple(liar for group in _by_split(shares) for liar in _liars_of(bytes(secret), group))


def _liars_of(secret: bytes, group: Sequence[Share]) -> list[Share]:
    threshold = group[0].threshold
    if _all_agree(secret, group):
        return []
    agreements = set()
    for chosen in itertools.combinations(group, threshold - 1):
        if _has_distinct_x(chosen):
            points = [(0, secret), *((share.x, share.y) for share in chosen)]
            agreements.add(frozenset(share for share in group if interpolate(points, share.x) == share.y))
    most = max((len(agreement) for agreement in agreements), default=0)
    if most < threshold:
        return []
    honest = frozenset().union(*(agreement for agreement in agreements if len(agreement) == most))
    return [share for share in group if share not in honest]


def _all_agree(secret: bytes, group: Sequence[Share]) -> bool:
    """Ask whether all lie on one polynomial through the key: what is true of every file, day after day."""
    threshold = group[0].threshold
    if len(group) < threshold or not _has_distinct_x(group):
        return False
    points = [(share.x, share.y) for share in group]
    enough, more = points[:threshold], points[threshold:]
    return interpolate(enough, 0) == secret and all(interpolate(enough, x) == y for x, y in more)


def _by_split(shares: Iterable[Share]) -> list[list[Share]]:
    """Divide shares by the split they are of, in the order they came; who comes twice counts once.

    This is done for each open: a tuple of plain values takes a third of the time of a ``Split``, or a share, as key.
    """
    groups: dict[tuple[bytes, bytes, int, int, int], dict[tuple[int, int, bytes], Share]] = {}
    for share in shares:
        split = share.split_id, share.guid.octets, share.generation, share.threshold, share.total
        groups.setdefault(split, {}).setdefault((share.version, share.x, share.y), share)
    return [list(group.values()) for group in groups.values()]


def split_of(share: Share) -> Split:
    """Say which split a share is of."""
    return Split(share.guid, share.generation, share.split_id, share.threshold, share.total)


def _has_distinct_x(shares: Sequence[Share]) -> bool:
    return len({share.x for share in shares}) == len(shares)
