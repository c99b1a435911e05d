"""What the standard and a policy say about each tag, before any VR or value is looked at (PS3.15 E.1 to E.3)."""

from __future__ import annotations

import dataclasses
import functools
from typing import Final

from mdmfs.hospital.deid.policy import Option, Policy
from mdmfs.hospital.deid.tables import profile, safe_private, types

_COLUMNS: Final = {
    "descriptors": Option.CLEAN_DESCRIPTORS,
    "graphics": Option.CLEAN_GRAPHICS,
    "structured": Option.STRUCTURED_CONTENT,
    "full_dates": Option.FULL_DATES,
    "modified_dates": Option.MODIFIED_DATES,
    "patient": Option.PATIENT_CHARACTERISTICS,
    "device": Option.DEVICE,
    "institution": Option.INSTITUTION,
    "safe_private": Option.SAFE_PRIVATE,
}
"""The columns of Table E.1-1 that the engine offers, in the order in which they decide; the others count for nothing.

Dates before devices: on the date of a calibration both have an action, and a date that stayed would tell the shift.
"""
_IDENTITY_COLUMNS: Final = frozenset({"institution", "uids"})

TYPE_1: Final = "1"
TYPE_2: Final = "2"


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One row of Table E.1-1."""

    action: str
    """D, Z, X or U, or several of them from which the type of the attribute chooses."""
    options: dict[str, str]

    @property
    def is_identity(self) -> bool:
        """Tell whether no option but that of institutions keeps it: its values name people, places or records."""
        return self.options.keys() <= _IDENTITY_COLUMNS

    def option_actions(self, policy: Policy) -> list[tuple[Option, str]]:
        """List the options of the policy that have an action here, K or C, the one that decides first."""
        found = ((option, self.options.get(column)) for column, option in _COLUMNS.items() if option in policy)
        return [(option, action) for option, action in found if action is not None]

    def resolve(self, required: str | None) -> str:
        """Choose one of D, Z, X, U from a compound action by the attribute's type (PS3.15 Table E.1-1a).

        X/Z/U* is U whatever the type: references between instances stay, under pseudonymous UIDs.
        """
        choices = self.action.split("/")
        if "U*" in choices:
            return "U"
        order = {TYPE_1: "DUZX", TYPE_2: "ZDUX", None: "XZDU"}[required]
        if choices == ["Z"] and required == TYPE_1:
            return "D"
        return next(action for action in order if action in choices)


def _read_profile() -> dict[int, Row]:
    rows = {}
    for line in profile.ROWS.splitlines():
        tag, action, *options = line.split()
        if "x" not in tag and tag != "private":
            rows[int(tag, 16)] = Row(action, dict(option.split("=") for option in options))
    return rows


def _read_safe_private() -> dict[tuple[str, int, int], bytes]:
    elements = {}
    for line in safe_private.ROWS.splitlines():
        group, creator, tags = line.split("|")
        for tag in tags.split():
            number, vr = tag.split(":")
            elements[creator, int(group, 16), int(number, 16)] = vr.encode()
    return elements | REVIEWED_PRIVATE


REVIEWED_PRIVATE: Final = {
    # Mosaics cannot be taken apart without the number of their tiles.
    ("SIEMENS MR HEADER", 0x0019, 0x0A): b"US",
    # Distortion correction needs the bandwidth along the phase encoding.
    ("SIEMENS MR HEADER", 0x0019, 0x28): b"FD",
    # Slice timing of functional series.
    ("SIEMENS MR HEADER", 0x0019, 0x29): b"FD",
    # Diffusion gradients of GE.
    ("GEMS_ACQU_01", 0x0019, 0xBB): b"DS",
    ("GEMS_ACQU_01", 0x0019, 0xBC): b"DS",
    ("GEMS_ACQU_01", 0x0019, 0xBD): b"DS",
}
"""Numbers beside the standard's list without which diffusion and functional MR are ruined: creator, group, element."""

PROFILE: Final = _read_profile()
"""Table E.1-1 but for its last rows: curves, overlays and private elements, which are dealt with by group."""
SAFE_PRIVATE: Final = _read_safe_private()
"""The VR of each private element that may stay, by creator, group and the low byte of its number."""
CSA_CREATOR: Final = "SIEMENS CSA HEADER"
"""Its image header is kept in part, see ``csa``."""
SAFE_CREATORS: Final = frozenset({CSA_CREATOR, *(creator for creator, _, _ in SAFE_PRIVATE)})


@functools.lru_cache(maxsize=1)
def _types_by_class() -> dict[str, dict[str, dict[int, str]]]:
    by_class: dict[str, dict[str, dict[int, str]]] = {}
    levels: dict[str, dict[int, str]] = {}
    for line in types.ROWS.splitlines():
        first, *words = line.split()
        if first == "class":
            levels = {"top": {}, "nested": {}}
            by_class |= dict.fromkeys(words, levels)
        else:
            levels[first] |= dict.fromkeys((int(tag, 16) for tag in words[1:]), words[0])
    return by_class


def required_types(sop_class: str, *, is_nested: bool) -> dict[int, str]:
    """Give the attributes of type 1 and 2 (also 1C and 2C) that a class has at the top level, or below it."""
    return _types_by_class()[sop_class]["nested" if is_nested else "top"]
