"""The names of files: LFN (what people type), GUID (what never changes), SURL (where a replica lies)."""

from __future__ import annotations

import dataclasses
import re
import uuid
from typing import Final, NamedTuple, Self

from mdmfs.model.errors import MalformedNameError

ROOT_PREFIX: Final = "/grid/medical"
MAX_NAME_BYTES: Final = 255
MAX_LFN_BYTES: Final = 4000
GUID_SIZE: Final = 16

FORBIDDEN_IN_NAMES = re.compile(r"[/\x00-\x1f\x7f]")
_GUID_TEXT = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_SURL_TEXT = re.compile(r"srm://(?P<host>[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})/mdm/(?P<guid>.+)")


class _Octets(NamedTuple):
    octets: bytes


class Guid(_Octets):
    """Names one rendition of one image for ever: 16 random bytes, written as a UUID in lower case.

    A tuple, since each open hashes and compares some forty of them.
    """

    __slots__ = ()

    def __new__(cls, octets: bytes) -> Self:
        """Refuse anything but 16 bytes."""
        if len(octets) != GUID_SIZE:
            message = f"a GUID has {GUID_SIZE} bytes, not {len(octets)}"
            raise MalformedNameError(message)
        return tuple.__new__(cls, (octets,))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx``; raises ``MalformedNameError``."""
        if not _GUID_TEXT.fullmatch(text.lower()):
            message = "a GUID is written as a UUID, 8-4-4-4-12 hexadecimal digits"
            raise MalformedNameError(message)
        return cls(bytes.fromhex(text.replace("-", "")))

    @classmethod
    def from_random(cls, octets: bytes) -> Self:
        """Make a GUID (RFC 4122 version 4) of 16 random bytes."""
        return cls(uuid.UUID(bytes=octets, version=4).bytes)

    def __str__(self) -> str:
        """Write the canonical text form."""
        digits = self.octets.hex()
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Lfn:
    """A logical file name: the parts of a path below ``/grid/medical``; no parts name the root itself."""

    parts: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse names that a file system or a terminal could misread."""
        for part in self.parts:
            _refuse_bad_name(part)
        if len(str(self).encode()) > MAX_LFN_BYTES:
            message = f"an LFN has at most {MAX_LFN_BYTES} bytes"
            raise MalformedNameError(message)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``/grid/medical/...``, with or without ``lfn:`` before it; raises ``MalformedNameError``."""
        path = text.removeprefix("lfn:").rstrip("/")
        if path != ROOT_PREFIX and not path.startswith(ROOT_PREFIX + "/"):
            message = f"an LFN begins with {ROOT_PREFIX}/"
            raise MalformedNameError(message)
        below = path.removeprefix(ROOT_PREFIX).removeprefix("/")
        return cls(tuple(below.split("/")) if below else ())

    def __str__(self) -> str:
        """Write the absolute path."""
        return "/".join((ROOT_PREFIX, *self.parts))

    def __truediv__(self, name: str) -> Lfn:
        """Name an entry of this directory."""
        return Lfn((*self.parts, name))

    def is_below(self, directory: Lfn) -> bool:
        """Ask whether this is a directory, or something below it."""
        return self.parts[: len(directory.parts)] == directory.parts

    @property
    def name(self) -> str:
        """The last part; empty for the root."""
        return self.parts[-1] if self.parts else ""

    @property
    def parent(self) -> Lfn:
        """The directory above; the root is its own parent."""
        return Lfn(self.parts[:-1])


@dataclasses.dataclass(frozen=True, slots=True)
class Surl:
    """A storage URL: which storage element (here, which hospital) can bring a GUID online."""

    host: str
    port: int
    guid: Guid

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``srm://HOST:PORT/mdm/GUID``; raises ``MalformedNameError``."""
        match = _SURL_TEXT.fullmatch(text)
        if match is None:
            message = "a SURL is written srm://HOST:PORT/mdm/GUID"
            raise MalformedNameError(message)
        return cls(match["host"], int(match["port"]), Guid.parse(match["guid"]))

    def __str__(self) -> str:
        """Write the URL."""
        return f"srm://{self.host}:{self.port}/mdm/{self.guid}"


def _refuse_bad_name(part: str) -> None:
    if part in {"", ".", ".."} or FORBIDDEN_IN_NAMES.search(part):
        message = "a name in an LFN is not empty, not . or .., and has no slash and no control character"
        raise MalformedNameError(message)
    try:
        length = len(part.encode())
    except UnicodeEncodeError as error:
        message = "a name in an LFN is valid Unicode"
        raise MalformedNameError(message) from error
    if length > MAX_NAME_BYTES:
        message = f"a name in an LFN has at most {MAX_NAME_BYTES} bytes"
        raise MalformedNameError(message)
