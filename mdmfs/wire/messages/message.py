"""What every message is, and how a failure is told."""

from __future__ import annotations

import re
from typing import Annotated, Final, Self

import msgspec

from mdmfs.model.errors import ERRORS_BY_CODE, MdmfsError

MEDIA_TYPE: Final = "application/msgpack"
MAX_MESSAGE_BYTES: Final = 16 * 2**20
MAX_BATCH: Final = 10_000
_MAX_TOLD: Final = 1000
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

Size = Annotated[int, msgspec.Meta(ge=0, le=2**60)]
"""In bytes. What is told of one hospital is shown beside others, and a number that cannot be shown would hide all."""
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Generation = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
"""Of a key."""
Threshold = Annotated[int, msgspec.Meta(ge=0, le=255)]
"""How many shares make a key; 0 where that is not told."""
Inode = Annotated[int, msgspec.Meta(ge=1, lt=2**62)]
"""The catalogue's number of a file or directory; the others are a mount's own."""
Instant = Annotated[float, msgspec.Meta(ge=0.0, le=253_402_300_799.0)]
"""In seconds since 1970, to the end of the year 9999."""


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The root of all messages."""


class Failure(Message, frozen=True, omit_defaults=True):
    """The body of every answer that is no success: a code of ``mdmfs.model.errors`` and a sentence for people."""

    code: str
    message: str
    incident: str = ""
    """Under which number the peer's log tells more; empty where there is no more to tell."""
    what_to_do: str = ""
    """Where that is not what the code stands for."""

    @classmethod
    def of(cls, error: MdmfsError) -> Self:
        """Tell of an error; where on this machine it arose stays here."""
        own = "" if error.what_to_do == type(error).what_to_do else error.what_to_do
        return cls(error.code, str(error), what_to_do=own)

    def error(self) -> MdmfsError:
        """Make the error again that a peer told of, its text fit for a log."""
        text, what_to_do, number = (
            _UNPRINTABLE.sub("?", one[:_MAX_TOLD]) for one in (self.message, self.what_to_do, self.incident)
        )
        incident = f" (incident {number[:32]})" if number else ""
        return ERRORS_BY_CODE.get(self.code, MdmfsError)(text + incident, what_to_do=what_to_do)
