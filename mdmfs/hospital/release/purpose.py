"""What a user says he reads for, as it goes to the audit log."""

from __future__ import annotations

from mdmfs.wire.messages.files import MAX_REASON


def printable(told: str) -> str:
    """Leave out what cannot be printed, and what is too long."""
    return "".join(character for character in told[:MAX_REASON] if character.isprintable())
