"""The pseudonymous patient: an id that says nothing."""

from __future__ import annotations

import base64
import dataclasses
import re
from typing import Final, Self

from mdmfs.model.errors import MalformedNameError

SUBJECT_ID_OCTETS: Final = 10
_TEXT = re.compile(r"[a-z2-7]{16}")


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class SubjectId:
    """80 random bits as 16 letters of base32 in lower case (RFC 4648 section 6)."""

    text: str

    def __post_init__(self) -> None:
        """Refuse any other text."""
        if not _TEXT.fullmatch(self.text):
            message = "a subject id has 16 letters of base32, in lower case"
            raise MalformedNameError(message)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an id, with or without ``sub-`` before it; raises ``MalformedNameError``."""
        return cls(text.removeprefix("sub-"))

    @classmethod
    def from_random(cls, octets: bytes) -> Self:
        """Make an id of 10 random bytes."""
        if len(octets) != SUBJECT_ID_OCTETS:
            message = f"a subject id is made of {SUBJECT_ID_OCTETS} bytes"
            raise MalformedNameError(message)
        return cls(base64.b32encode(octets).decode().lower())

    def __str__(self) -> str:
        """Write the 16 letters."""
        return self.text
