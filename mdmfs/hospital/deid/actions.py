"""What can become of an element: the actions D, Z, X, K, C and U of PS3.15 Table E.1-1a, one function each.

Each takes the walk, the element and its rule and gives the element as it is written, or nothing.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Final

from mdmfs.hospital.deid.charsets import decode, readings, without_accents
from mdmfs.hospital.deid.codes import known_scheme
from mdmfs.hospital.deid.content import is_content, is_personal
from mdmfs.hospital.deid.elements import (
    OFFSET_TABLES,
    PRIVATE_BIT,
    Element,
    Elements,
    read_implicit_head,
    read_sequence,
)
from mdmfs.hospital.deid.encode import encode, encode_items, head
from mdmfs.hospital.deid.pseudonyms import is_temporal, shift_date_time
from mdmfs.hospital.deid.refusal import Reason, RefusedError
from mdmfs.hospital.deid.tables.dictionary import TIME_OF_DATE
from mdmfs.hospital.deid.tables.uids import KNOWN_UIDS
from mdmfs.hospital.deid.terms import DESCRIPTORS, EQUIPMENT, TECHNIQUE, clean
from mdmfs.hospital.deid.untold import may_be_descriptor, may_be_numbers
from mdmfs.hospital.deid.walk import CODE_VALUES, MIN_JOINED, NUMBER_SIZES, Rule, Trace, Walk, trace_of

_NUMBER: Final = rb" *(?:[+-]?(?:\d{1,24}(?:\.\d{0,24})?|\.\d{1,24})(?:[eE][+-]?\d{1,4})? *)?"
_NUMBERS: Final = re.compile(_NUMBER + rb"(?:\\" + _NUMBER + rb")*")
_are_numbers: Final = _NUMBERS.fullmatch
_CODE: Final = re.compile(rb"[A-Z0-9_ ]{0,16}")
_CODES: Final = re.compile(rb"[A-Z0-9_ ]{0,16}(?:\\[A-Z0-9_ ]{0,16})*")
_MAY_BE_CODES: Final = frozenset({b"CS", b"UN", b""})
_CODE_WORDS: Final = re.compile(rb"[a-z]+")
_AGE: Final = re.compile(rb"(\d{3})([DWMY])")
_UIDS: Final = re.compile(rb"[0-9.]{1,64}(?:\\[0-9.]{1,64})*")
_PLAIN: Final = re.compile(r"[\x20-\x7e\r\n]+")
_FOREIGN: Final = re.compile(r"\w*[^\x00-\x7f]\w*|\x1b")
_LETTERS: Final = re.compile(r"[a-z]+")
_RUNS: Final = re.compile(r"[a-z0-9]+")
_LIKE_A_UID: Final = re.compile(r"(?:\d+\.){4}\d")
MIN_TYPED: Final = 4
"""Letters of a name from which on it goes from the words of a technique: shorter ones are how machines name those."""
_MEASURE: Final = re.compile(rb"(?:\d{1,3}(?:\.\d{1,4})?)?")
_ZONE: Final = re.compile(rb"[+-](?:0\d|1[0-4])[0-5]\d")
_KNOWN_UIDS: Final = frozenset(uid.encode() for uid in KNOWN_UIDS)
_DATE_OF_TIME: Final = {time: date for date, time in TIME_OF_DATE.items()}

MAX_TABLE: Final = 2**18
"""Bytes: a lookup table has 2^16 entries of two at most (PS3.3 C.11.1.1.1), and its segments hardly need more."""
OLDEST_YEARS: Final = 89
OLDEST: Final = b"090Y"
"""Stands for all ages of 90 and more (45 CFR 164.514(b)(2)(i)(C))."""
_IN_A_YEAR: Final = {b"D": 365.25, b"W": 365.25 / 7, b"M": 12.0, b"Y": 1.0}


def drop(walk: Walk, element: Element, rule: Rule) -> bytes:
    """X, Z or D: take the value away; the rule holds what stands in its place."""
    if rule.trace or element[4]:
        walk.note(element, rule.trace)
    return rule.fallback


def keep_numbers(walk: Walk, element: Element, rule: Rule) -> bytes:
    """K: keep decimal or integer strings that are numbers; raises where they are not."""
    value = walk.octets[element[2] : element[3]].strip(b" \0")
    if not _are_numbers(value):
        raise RefusedError(Reason.INVALID_VALUE, element[0])
    if b" " in value:
        value = b"\\".join(number.strip() for number in value.split(b"\\"))
    return encode(rule.head, value)


def keep_binary(walk: Walk, element: Element, rule: Rule) -> bytes:
    """K: keep numbers in binary; raises if the length is not that of whole numbers.

    Of what came without a VR, nothing stays that could be text.
    """
    value = walk.octets[element[2] : element[3]]
    is_untold = element[1] == b"UN" or (not element[1] and element[0] & PRIVATE_BIT)
    if is_untold and not may_be_numbers(value, rule.head[4:6]):
        return rule.fallback
    if len(value) % NUMBER_SIZES[rule.head[4:6]]:
        raise RefusedError(Reason.MALFORMED, element[0])
    return encode(rule.head, value)


def keep_octets(walk: Walk, element: Element, rule: Rule) -> bytes:
    """K: keep a table of numbers as it is, unless it came as UN or is longer than any."""
    if element[1] == b"UN" or (element[3] - element[2] > MAX_TABLE and element[0] not in OFFSET_TABLES):
        return rule.fallback
    return encode(rule.head, walk.octets[element[2] : element[3]])


def keep_chosen(walk: Walk, element: Element, rule: Rule) -> bytes:
    """K: keep numbers whose VR depends on other elements (PS3.5 section A.1 and Annex A notes)."""
    vr = element[1]
    value = walk.octets[element[2] : element[3]]
    if (vr == b"UN" and not may_be_descriptor(value)) or len(value) > MAX_TABLE:
        return rule.fallback
    if vr not in rule.choice:
        vr = b"SS" if walk.is_signed and b"SS" in rule.choice else b"US"
        if b"OW" in rule.choice and element[3] - element[2] > NUMBER_SIZES[b"US"]:
            vr = b"OW"
    return encode(head(element[0], vr), value)


def keep_codes(walk: Walk, element: Element, rule: Rule) -> bytes:
    """K: keep code strings; a value with other characters stays only if it consists of reviewed words.

    What says by its VR that it is something else, such as a name in capitals, goes.
    """
    if element[1] not in _MAY_BE_CODES:
        return drop(walk, element, dataclasses.replace(rule, trace=rule.trace or trace_of(element)))
    value = walk.value(element)
    if not _CODES.fullmatch(value):
        codes = [_repaired(code) for code in value.split(b"\\")]
        if not any(codes):
            return rule.fallback
        value = b"\\".join(codes)
    elif b" \\" in value or b"\\ " in value:
        value = b"\\".join(code.strip() for code in value.split(b"\\"))
    return encode(rule.head, value)


def _repaired(code: bytes) -> bytes:
    words = _CODE_WORDS.findall(code.lower())
    if _CODE.fullmatch(code):
        return code.strip()
    is_known = words and all(word in TECHNIQUE or word in EQUIPMENT for word in words)
    upper = code.upper().strip()
    return upper if is_known and _CODE.fullmatch(upper) else b""


def keep_age(walk: Walk, element: Element, rule: Rule) -> bytes:
    """K: keep an age, but no age above 89 years."""
    match = _AGE.fullmatch(walk.value(element))
    if match is None:
        return rule.fallback
    years = int(match[1]) / _IN_A_YEAR[match[2]]
    return encode(rule.head, OLDEST if years >= OLDEST_YEARS + 1 else match[0])


def keep_measure(walk: Walk, element: Element, rule: Rule) -> bytes:
    """K: keep a person's size or weight, which has three digits before the point at most."""
    value = walk.value(element)
    return encode(rule.head, value) if _MEASURE.fullmatch(value) else rule.fallback


def keep_listed(walk: Walk, element: Element, rule: Rule) -> bytes:
    """K: keep a code string if it is one of the defined terms."""
    value = walk.value(element)
    return encode(rule.head, value) if value in rule.words or not value else rule.fallback


def keep_zone(walk: Walk, element: Element, rule: Rule) -> bytes:
    """C: keep an offset from UTC, and nothing else that stands in its place."""
    value = walk.value(element)
    return encode(rule.head, value) if _ZONE.fullmatch(value) else rule.fallback


def keep_words(walk: Walk, element: Element, rule: Rule) -> bytes:
    """C: keep the reviewed words of a text."""
    words = rule.words
    if element[0] in DESCRIPTORS:
        words = walk.descriptor_words
    elif words is not EQUIPMENT and not words.isdisjoint(walk.forbidden):
        words -= {word for word in walk.forbidden if len(word) >= MIN_TYPED}
    texts = []
    for text in _readable(walk, walk.value(element)).split(b"\\"):
        kept, removed = clean(text, words)
        if walk.holds_number(kept):
            kept, removed = b"", text
        walk.traces.add(rule.trace, removed)
        texts.append(kept)
    kept = b"\\".join(filter(None, texts))
    return encode(rule.head, kept) if kept else rule.fallback


def _readable(walk: Walk, value: bytes) -> bytes:
    """Give a text without words that are not in ASCII: bytes of other scripts would pass for letters."""
    if value.isascii() and b"\x1b" not in value:
        return value
    walk.traces.add(Trace.DESCRIPTION, value)
    return _FOREIGN.sub("\x80", readings(value, walk.traces.codec_within)[0]).encode("latin_1")


def map_uids(walk: Walk, element: Element, rule: Rule) -> bytes:
    """U: replace UIDs by the subject's, but those that PS3.6 registers."""
    uids = []
    for uid in walk.value(element).split(b"\\"):
        if uid and uid not in _KNOWN_UIDS:
            walk.traces.add(Trace.UID, uid)
            uids.append(walk.pseudonymous_uid(uid))
        else:
            uids.append(uid)
    return encode(rule.head, b"\\".join(uids), b"\0")


def keep_registered_uids(walk: Walk, element: Element, rule: Rule) -> bytes:
    """K: keep UIDs that PS3.6 or the policy lists; raises for others."""
    value = walk.value(element)
    for uid in value.split(b"\\"):
        if uid and uid not in _KNOWN_UIDS and uid.decode("latin_1") not in walk.policy.known_uids:
            raise RefusedError(Reason.UNKNOWN_UID, element[0])
    return encode(rule.head, value, b"\0")


def retain_uids(walk: Walk, element: Element, rule: Rule) -> bytes:
    """K: keep UIDs that name a device, not an instance; what is none goes, and one with a number of the patient."""
    value = walk.value(element)
    if not _UIDS.fullmatch(value) or _names(walk.forbidden, value.decode("ascii")):
        return drop(walk, element, rule)
    return encode(rule.head, value, b"\0")


def retain_text(walk: Walk, element: Element, rule: Rule) -> bytes:
    """K: keep a text that names a device or an institution, written in ASCII; not one that also names a person."""
    plain = without_accents(decode(walk.value(element), walk.traces.codec_within) or "")
    if not _PLAIN.fullmatch(plain) or _LIKE_A_UID.search(plain) or _names(walk.forbidden, plain.lower()):
        return drop(walk, element, rule)
    walk.traces.add(Trace.RETAINED, plain.encode())
    return encode(rule.head, plain.encode())


def _names(forbidden: frozenset[bytes], text: str) -> bool:
    """Tell whether a text in lower case holds a word that is forbidden, a longer one in whatever way."""
    words = {word.encode() for pattern in (_LETTERS, _RUNS) for word in pattern.findall(text)}
    joined = "".join(_RUNS.findall(text)).encode()
    return not forbidden.isdisjoint(words) or any(len(word) >= MIN_JOINED and word in joined for word in forbidden)


def keep_dates(walk: Walk, element: Element, rule: Rule) -> bytes:
    """K: keep dates and times as they are."""
    value = walk.value(element)
    is_kept = all(not each or is_temporal(each, rule.vr) for each in value.split(b"\\"))
    return encode(rule.head, value) if is_kept else rule.fallback


def shift_dates(walk: Walk, element: Element, rule: Rule) -> bytes:
    """C: move dates, each with its time of day where it has one."""
    value = walk.value(element)
    walk.traces.add(rule.trace, value)
    dates = value.split(b"\\")
    times = _partners(walk, TIME_OF_DATE.get(element[0]), len(dates))
    return _written(rule, [walk.move(date, time)[0] for date, time in zip(dates, times, strict=True)])


def shift_times(walk: Walk, element: Element, rule: Rule) -> bytes:
    """C: move times of day, each with its date where it has one."""
    times = walk.value(element).split(b"\\")
    dates = _partners(walk, _DATE_OF_TIME.get(element[0]), len(times))
    return _written(rule, [walk.move(date, time)[1] for date, time in zip(dates, times, strict=True)])


def shift_date_times(walk: Walk, element: Element, rule: Rule) -> bytes:
    """C: move values that are date and time in one."""
    values = walk.value(element).split(b"\\")
    return _written(
        rule, [shift_date_time(value, walk.subject, walk.policy.times) if value else b"" for value in values]
    )


def _partners(walk: Walk, tag: int | None, count: int) -> list[bytes]:
    """Give the values of the element that a date or time belongs to; empty ones if there are not as many."""
    element = None if tag is None else walk.scope.find(tag)
    values = [] if element is None else walk.value(element).split(b"\\")
    return values if len(values) == count else [b""] * count


def _written(rule: Rule, values: list[bytes | None]) -> bytes:
    valid = [value for value in values if value is not None]
    return encode(rule.head, b"\\".join(valid)) if len(valid) == len(values) else rule.fallback


def keep_code_value(walk: Walk, element: Element, rule: Rule) -> bytes:
    """C: keep a code that PS3.16 lists; a long code or URN is none of them."""
    code, value = walk.scope.code(walk.octets), walk.value(element)
    if value != code.value:
        walk.traces.add(Trace.DESCRIPTION, value)
    return encode(rule.head, code.value)


def keep_code_meaning(walk: Walk, element: Element, rule: Rule) -> bytes:
    """C: write the meaning that the table gives, whatever the object said."""
    walk.traces.add(Trace.DESCRIPTION, walk.value(element))
    return encode(rule.head, walk.scope.code(walk.octets).meaning)


def keep_code_scheme(walk: Walk, element: Element, rule: Rule) -> bytes:
    """C: keep the designator of a scheme that codes can be kept of."""
    has_code = any(walk.scope.find(tag) for tag in CODE_VALUES)
    scheme = walk.scope.code(walk.octets).scheme if has_code else known_scheme(walk.value(element))
    return encode(rule.head, scheme)


def name_subject(walk: Walk, element: Element, rule: Rule) -> bytes:
    """Write the subject's id where the patient's name, number or number in a trial stood."""
    walk.note(element, rule.trace)
    return encode(rule.head, walk.subject.label)


def recurse(walk: Walk, element: Element, rule: Rule) -> bytes:
    """Keep a sequence, and apply the rules to what is in it; of content items those go that tell who the subject is."""
    items = element[4]
    if items is None:
        sequence = element[0], b"SQ", element[2], element[3], None
        read_head = read_implicit_head if element[1] == b"UN" else walk.read_head
        items = read_sequence(sequence, walk.octets, read_head, walk.scope.depth)[4] or []
    if items and is_content(items[0]):
        items = _impersonal(walk, element, items)
    depth = walk.scope.depth + 1
    return encode_items(rule.head, [b"".join(walk.dataset(item, walk.rules.nested, depth)) for item in items])


def _impersonal(walk: Walk, element: Element, items: list[Elements]) -> list[Elements]:
    """Leave out content items, of reports or elsewhere, as PS3.15 E.3.4 has it."""
    kept = []
    for item in items:
        if is_personal(walk, item):
            walk.note((element[0], b"SQ", element[2], element[2], [item]), Trace.NONE)
        else:
            kept.append(item)
    return kept


def refuse_pixels(_walk: Walk, element: Element, _rule: Rule) -> bytes:
    """Refuse a second Pixel Data element behind the first."""
    raise RefusedError(Reason.PIXEL_LENGTH, element[0])


SELF_CONTAINED: Final = frozenset(
    {
        drop,
        keep_numbers,
        keep_binary,
        keep_octets,
        keep_chosen,
        keep_codes,
        keep_age,
        keep_measure,
        keep_listed,
        keep_zone,
        keep_words,
        map_uids,
        keep_registered_uids,
        retain_uids,
        retain_text,
        keep_dates,
        shift_date_times,
        name_subject,
        recurse,
    }
)
"""Those that look at no other element of the data set or item (``walk.Rule``)."""
