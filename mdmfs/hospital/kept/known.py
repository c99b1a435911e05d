"""Known headers: what arrives with the header that it was registered with becomes what it became then.

The engine gives the same bytes for the same bytes, so where a header has not changed, and the
pixels were let through as they came, there is nothing to do twice: the published header is taken from the file's prefix
object. A changed header, and whatever the engine did more to, goes through the engine again. Either way each segment is
compared with the registered digest before a byte of it is sealed. See docs/adr/0013-hot-path.md.
"""

from __future__ import annotations

import contextlib
import hashlib
from typing import Final, NamedTuple

import msgspec

from mdmfs.hospital.catalogue.records import Rendition
from mdmfs.hospital.deid.header import EXPLICIT_LITTLE, IMPLICIT_LITTLE, IdentifiedHeader
from mdmfs.hospital.deid.policy import Policy
from mdmfs.hospital.deid.pseudonyms import PatientKey
from mdmfs.hospital.deid.regions import region_rule
from mdmfs.model.errors import IntegrityError, WrongKeyError
from mdmfs.model.names import Guid
from mdmfs.sealing.header import FileKey, ObjectContext, Role
from mdmfs.sealing.layout import Buffer, plain_size
from mdmfs.sealing.unseal import unseal

_AS_THEY_LIE: Final = frozenset({IMPLICIT_LITTLE, EXPLICIT_LITTLE})
"""Of what is sent in these, pixels are published byte for byte."""


class Origin(NamedTuple):
    """By what the hospital knows a header again that it has registered; hospital zone only."""

    length: int
    """Bytes of the data set before the value of Pixel Data."""
    digest: bytes
    """SHA-256 of whose it is, in which PACS, how it is encoded, and of those bytes."""


def claim_of(patient: PatientKey, issuer: str, transfer_syntax: str) -> bytes:
    """Say for whom a header was registered, under which issuer of its PACS, and how it is encoded."""
    return msgspec.msgpack.encode([patient.issuer, patient.patient_id, issuer, transfer_syntax])


def origin_of(header: IdentifiedHeader, policy: Policy, claim: bytes, received: int, published: int) -> Origin | None:
    """Give what a header is known by; None where the engine does more than to replace it.

    ``received`` and ``published`` count the bytes behind the header, in the data set and in the file.
    """
    if header.pixels is None or header.transfer_syntax not in _AS_THEY_LIE or region_rule(header, policy) is not None:
        return None
    if not received == published == header.pixels[2]:
        return None
    return Origin(len(header.whole), _digest(claim, header.whole))


class KnownHeader:
    """A header that may arrive again, and what was published in its place."""

    def __init__(self, origin: Origin, claim: bytes, published: bytes, size: int) -> None:
        """Know it by its origin; ``published`` is all that comes before the pixels in a file of ``size`` bytes."""
        self._origin: Final = origin
        self._claim: Final = claim
        self._published: Final = published
        self._left = size - len(published)
        self._begun = bytearray()
        self._has_matched = False
        self.is_other = False
        """Whether something else has arrived, so that the engine must see it: ``begun``, then the rest."""

    @property
    def begun(self) -> bytes:
        """What has arrived and not been given as part of the file."""
        return bytes(self._begun)

    @property
    def has_matched(self) -> bool:
        """Whether the header has arrived as it was registered."""
        return self._has_matched

    def feed(self, octets: Buffer) -> list[Buffer]:
        """Take the next bytes of the data set; gives what follows in the file, as views that they are."""
        if self._has_matched:
            return self._body(memoryview(octets))
        whole = memoryview(octets)
        if self._begun or len(whole) < self._origin.length:
            self._begun += octets
            whole = memoryview(bytes(self._begun))
        if len(whole) < self._origin.length:
            return []
        if _digest(self._claim, whole[: self._origin.length]) != self._origin.digest:
            self.is_other = True
            self._begun[:] = whole
            return []
        self._has_matched = True
        return [self._published, *self._body(whole[self._origin.length :])]

    def _body(self, octets: memoryview) -> list[Buffer]:
        """Let pixels pass, and nothing behind them: the engine had let nothing pass there."""
        pixels = octets[: self._left]
        self._left -= len(pixels)
        return [pixels] if pixels else []


def known_header(
    found: tuple[Origin, bytes] | None, key: FileKey, guid: Guid, generation: int, rendition: Rendition, claim: bytes
) -> KnownHeader | None:
    """Open what is kept of a file, an origin and the sealed prefix object; None where that is nothing of use."""
    if found is None:
        return None
    origin, sealed = found
    with contextlib.suppress(IntegrityError, WrongKeyError, ValueError):
        octets = unseal(sealed, key, ObjectContext(Role.PREFIX, guid, generation, plain_size(len(sealed))))
        if len(octets) >= rendition.header_length:
            return KnownHeader(origin, claim, octets[: rendition.header_length], rendition.size)
    return None


def _digest(claim: bytes, header: Buffer) -> bytes:
    found = hashlib.sha256(len(claim).to_bytes(4))
    found.update(claim)
    found.update(header)
    return found.digest()
