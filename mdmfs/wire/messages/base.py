"""What every message is, and how a failure is told."""

from __future__ import annotations

from typing import Final, Self

import msgspec

from mdmfs.model.errors import ERRORS_BY_CODE, MdmfsError

MEDIA_TYPE: Final = "application/msgpack"
MAX_MESSAGE_BYTES: Final = 16 * 2**20
MAX_BATCH: Final = 10_000


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
        """Make the error again that a peer told of."""
        return ERRORS_BY_CODE.get(self.code, MdmfsError)(self.message, what_to_do=self.what_to_do)
