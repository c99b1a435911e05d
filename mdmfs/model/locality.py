"""Where the bytes of a file are now, in the words of SRM and gfal."""

from __future__ import annotations

import enum


class Locality(enum.StrEnum):
    """The locality of a file (SRM v2.2 section 2.11, TFileLocality), as ``user.status`` shows it."""

    ONLINE = "ONLINE"
    """Sealed and at hand: staged at the hospital."""
    NEARLINE = "NEARLINE"
    """Only in the PACS: opening it causes a recall."""
    ONLINE_AND_NEARLINE = "ONLINE_AND_NEARLINE"
    """Staged, and in the PACS as ever."""
    LOST = "LOST"
    """The PACS no longer has it, or has something else under its UID."""
    UNAVAILABLE = "UNAVAILABLE"
    """The PACS cannot be asked at the moment."""
