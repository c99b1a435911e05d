"""Values whose VR nobody told, in the place of numbers: they stay only as far as they could not be text instead.

Archives with an old dictionary write what they do not know as UN, and Implicit VR tells nothing of private elements.
What is lost that way are long lists of integers; diffusion, mosaics and times of slices stay.
"""

from __future__ import annotations

import re
import struct
from typing import Final

MAX_INTEGER: Final = 2**24
"""Integers from here on have a fourth byte, and four letters are a name."""
MIN_FLOAT: Final = 1e-9
MAX_FLOAT: Final = 2.0**17
"""Beyond, the last byte of an IEEE 754 number may be a letter, so that any text would be numbers."""
BITS: Final = range(8, 17)
"""Of an entry in a lookup table; the third number of its descriptor (PS3.3 C.7.6.3.1.5, C.11.2.1.1)."""

_TEXT: Final = re.compile(rb"[\t\n\f\r\x1b -=A-~\x80-\xbd\xc0-\xff]*\0?")
"""Any text but for ``>``, ``?``, ``@`` and their like, with one of which nearly every number ends."""
_PLAIN: Final = re.compile(rb"[\t\n\f\r\x1b -~]*\0*")
"""Any text in ASCII, with these in it too, and as many zeros behind it as fill its field."""
_WORD: Final = re.compile(rb"[0-9A-Za-z]{3}")
"""What such a text must hold to say anything. Of single numbers of 64 bits one in some hundreds looks like that, of
vectors none; letters of other scripts beside ``?`` are not looked for, since of those numbers one in fifty does."""
_FORMATS: Final = {
    b"US": "H",
    b"SS": "h",
    b"UL": "I",
    b"SL": "i",
    b"UV": "Q",
    b"SV": "q",
    b"AT": "H",
    b"FL": "f",
    b"FD": "d",
}
_ONE_TAG: Final = 2
"""Group and element."""
_DESCRIPTOR: Final = 3


def may_be_numbers(octets: bytes, vr: bytes) -> bool:
    """Tell whether a value can be the numbers of a binary VR, and hold no text of four letters."""
    count, rest = divmod(len(octets), struct.calcsize(_FORMATS[vr]))
    if rest:
        return False
    numbers = struct.unpack(f"<{count}{_FORMATS[vr]}", octets)
    if vr == b"AT":
        return count <= _ONE_TAG and not _may_be_text(octets)
    if vr in {b"FL", b"FD"}:
        is_plausible = all(number == 0 or MIN_FLOAT <= abs(number) < MAX_FLOAT for number in numbers)
        return is_plausible and not _may_be_text(octets)
    return count <= 1 and all(abs(number) < MAX_INTEGER for number in numbers)


def may_be_descriptor(octets: bytes) -> bool:
    """Tell whether a value can be one number of 16 bits, or the three that describe a lookup table."""
    count, rest = divmod(len(octets), struct.calcsize("H"))
    numbers = struct.unpack(f"<{count}H", octets[: len(octets) - rest])
    return not rest and (count <= 1 or (count == _DESCRIPTOR and numbers[-1] in BITS))


def _may_be_text(octets: bytes) -> bool:
    is_plain = _PLAIN.fullmatch(octets) and _WORD.search(octets)
    return bool(is_plain or _TEXT.fullmatch(octets))
