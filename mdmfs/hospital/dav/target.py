"""What a URL names: a directory, or the sealed object of a file, whose name ends in ``.sealed``. Pure.

The plaintext's own name is no URL: nobody may take ciphertext for an image, or one size for the other.
"""

from __future__ import annotations

import dataclasses
import re
import urllib.parse
from typing import Final, Self

from mdmfs.model.errors import MalformedNameError
from mdmfs.model.names import Guid, Lfn
from mdmfs.wire.messages.files import Node, NodeKind

SEALED_SUFFIX: Final = ".sealed"
GUID_PREFIX: Final = "/mdm/"
"""``/mdm/GUID``, the path of a SURL: names a file by its GUID, where only its name is needed."""
_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """What a path names, if it is there."""

    lfn: Lfn
    is_sealed: bool
    """Whether it is the sealed object of the file ``lfn``; else it is the directory ``lfn``."""

    @classmethod
    def parse(cls, path: str) -> Self:
        """Read the path of a URL, percent-encoded; raises ``MalformedNameError``."""
        if _ESCAPE.search(path):
            message = "a percent sign in a path stands before two hexadecimal digits"
            raise MalformedNameError(message)
        try:
            text = urllib.parse.unquote(path, encoding="utf-8", errors="strict")
        except UnicodeDecodeError as error:
            message = "the path of a URL is UTF-8, percent-encoded"
            raise MalformedNameError(message) from error
        return cls.of_text(text)

    @classmethod
    def of_text(cls, text: str) -> Self:
        """Read a path that is not encoded, as bodies in JSON hold it; raises ``MalformedNameError``."""
        lfn = Lfn.parse(re.sub("/{2,}", "/", text))
        if lfn.name.endswith(SEALED_SUFFIX) and len(lfn.name) > len(SEALED_SUFFIX):
            return cls(lfn.parent / lfn.name.removesuffix(SEALED_SUFFIX), is_sealed=True)
        return cls(lfn, is_sealed=False)

    def fits(self, node: Node) -> bool:
        """Whether it names this node of its LFN."""
        return self.is_sealed == (node.kind is NodeKind.FILE)


def path_of(lfn: Lfn, kind: NodeKind) -> str:
    """Write the path of a directory or of a file's sealed object, not encoded."""
    return str(lfn) + SEALED_SUFFIX if kind is NodeKind.FILE else str(lfn)


def href_of(lfn: Lfn, kind: NodeKind) -> str:
    """Write the path for a URL; a directory's ends with a slash (RFC 4918 section 5.2)."""
    encoded = urllib.parse.quote(path_of(lfn, kind), safe="/-_.~")
    return encoded if kind is NodeKind.FILE else encoded + "/"


def guid_of(path: str) -> Guid | None:
    """Read ``/mdm/GUID``; None for every other path. Raises ``MalformedNameError``."""
    return Guid.parse(path.removeprefix(GUID_PREFIX)) if path.startswith(GUID_PREFIX) else None
