"""One pass over one object: applies a rule to each element at every depth, and remembers what it took away.

The instances of a series have most elements in common: a ``Memory`` holds what became of those of the last one.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, TypeAlias

from mdmfs.hospital.deid.charsets import codec_within, in_utf_8
from mdmfs.hospital.deid.codes import Code, known_code
from mdmfs.hospital.deid.elements import HEAD_SIZE, LONG_VRS, SHORT_VRS, Element, Elements, ReadHead
from mdmfs.hospital.deid.encode import head
from mdmfs.hospital.deid.policy import Option, Policy
from mdmfs.hospital.deid.pseudonyms import Subject, shift_date, shift_date_and_time, shift_time
from mdmfs.hospital.deid.terms import TECHNIQUE

TEXT_VRS: Final = frozenset(b"AE LO LT PN SH ST UC UR UT".split())
"""VRs in which people write what they like."""
STRING_VRS: Final = TEXT_VRS | frozenset(b"AS CS DA DS DT IS TM UI".split())
NUMBER_SIZES: Final = {
    **dict.fromkeys((b"US", b"SS"), 2),
    **dict.fromkeys((b"UL", b"SL", b"FL", b"AT"), 4),
    **dict.fromkeys((b"UV", b"SV", b"FD"), 8),
}
"""Bytes of one value of each binary VR that holds numbers or tags."""
_UNTRACED_VRS: Final = (SHORT_VRS | LONG_VRS) - TEXT_VRS - {b"SQ", b"UI", b"UN"}
"""VRs of which nothing is remembered when no rule speaks of the element."""

SCHEME: Final = 0x00080102
CODE_VALUES: Final = (0x00080100, 0x00080119, 0x00080120)


MIN_JOINED: Final = 6
"""Letters or digits of a name or number from which on it is found in others, and however it is parted."""
_LETTERS_AND_DIGITS: Final = re.compile(rb"[a-z0-9]+")
MAX_REMEMBERED: Final = 8 * 2**10
"""Bytes of a value that is remembered at most."""


class Trace(enum.IntEnum):
    """What a value that is taken away could tell, and therefore how it is searched for afterwards."""

    NONE = 0
    NAME = 1
    """A person's name: prefix and suffix tell nothing."""
    IDENTITY = 2
    """Numbers, addresses, places, dates."""
    DESCRIPTION = 3
    """Free text and private text, in which ordinary words are to be expected."""
    UID = 4
    RETAINED = 5
    """Not taken away: a text that an option lets out as it is. What stands in it may stand in the output."""


class Traces:
    """The values that were removed or replaced; hospital zone only, shows nothing of itself."""

    __slots__ = ("_notes", "codec", "codec_within")

    def __init__(self, codec: str) -> None:
        self.codec: Final = codec
        """Of the object: that of all values here which do not read as UTF-8."""
        self.codec_within = codec
        """Of the data set or item that is gone through."""
        self._notes: Final[list[tuple[Trace, bytes]]] = []

    def add(self, kind: Trace, value: bytes) -> None:
        """Remember a value, if it says anything."""
        if value:
            self._notes.append((kind, value))
            if self.codec_within != self.codec:
                self._notes.extend((kind, text) for text in in_utf_8(value, self.codec_within))

    def values(self, kind: Trace) -> list[bytes]:
        """Give the values of one kind."""
        return [value for noted, value in self._notes if noted is kind]

    @property
    def count(self) -> int:
        """How many values there are."""
        return len(self._notes)

    def since(self, count: int) -> list[tuple[Trace, bytes]]:
        """Give what came after so many values."""
        return self._notes[count:]

    def repeat(self, notes: list[tuple[Trace, bytes]]) -> None:
        """Remember again what ``since`` gave of an element that was the same."""
        self._notes.extend(notes)


class Written(NamedTuple):
    """What became of an element of the top level."""

    vr: bytes
    source: bytes
    """The end of its head, with what VR and length it came, and its value."""
    octets: bytes
    """As it is written."""
    traces: list[tuple[Trace, bytes]]


class Memory:
    """What became of the elements of the last header of a series, by tag; hospital zone only, shows nothing of itself.

    An element that comes again becomes the same again under the same circumstances, so it makes no difference to any
    output whether there is a memory. For one header at a time.
    """

    __slots__ = ("_circumstances", "_written")

    def __init__(self) -> None:
        self._circumstances: tuple[object, ...] = ()
        self._written: dict[int, Written] = {}

    def under(self, circumstances: tuple[object, ...]) -> dict[int, Written]:
        """Give what is remembered under these circumstances, to be gone on with; nothing where they have changed."""
        if circumstances != self._circumstances:
            self._circumstances, self._written = circumstances, {}
        return self._written


_NOTHING: Final[Mapping[int, Written]] = {}

Apply: TypeAlias = "Callable[[Walk, Element, Rule], bytes]"
"""Turns an element of the input into one of the output, or into nothing."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """What becomes of the elements of one tag."""

    apply: Apply
    vr: bytes
    """The VR of PS3.6; empty where it depends on other elements."""
    head: bytes
    """Tag and VR as they are written."""
    fallback: bytes = b""
    """The whole element that stands where the value cannot stay: nothing, an empty one, or one with a dummy."""
    trace: Trace = Trace.NONE
    words: frozenset[bytes] = frozenset()
    """Which words may stay, where words may."""
    choice: tuple[bytes, ...] = ()
    """The VRs between which other elements choose, or between which writers do."""
    option: Option | None = None
    """The option that made this rule; None where the Basic Profile did, or the attribute is in no table."""


@dataclasses.dataclass(frozen=True, slots=True)
class RuleSet:
    """The rules of one policy for one SOP class."""

    top: Mapping[int, Rule]
    nested: Mapping[int, Rule]
    unruled: Callable[[Walk, Element, list[bytes]], bytes]
    """Deals with private elements, repeating groups and tags that PS3.6 does not know."""
    repeatable: frozenset[int]
    """Tags of the top level of whose rules nothing counts but the element, and what ``Walk.remember`` compares."""


class Scope:
    """One data set or item while it is walked through."""

    __slots__ = ("_by_tag", "_code", "creators", "depth", "elements", "safe")

    def __init__(self, elements: Elements, depth: int, by_tag: dict[int, Element] | None = None) -> None:
        self.elements = elements
        self.depth = depth
        self.creators: dict[int, tuple[bytes, int]] = {}
        """For each private block (group and high byte) its creator's element, and where in the output that goes."""
        self.safe: dict[int, Rule] = {}
        """The rules of all elements that may stay in these blocks."""
        self._by_tag = by_tag or {}
        self._code: Code | None = None

    def find(self, tag: int) -> Element | None:
        """Find an element of this data set or item."""
        if not self._by_tag:
            self._by_tag = {element[0]: element for element in self.elements}
        return self._by_tag.get(tag)

    def code(self, octets: bytes) -> Code:
        """Give the concept that the elements here code, as it is in the table."""
        if self._code is None:
            values = [self._text(octets, tag) for tag in CODE_VALUES[:2]]
            self._code = known_code(self._text(octets, SCHEME), next(filter(None, values), b""))
        return self._code

    def _text(self, octets: bytes, tag: int) -> bytes:
        element = self.find(tag)
        return b"" if element is None else octets[element[2] : element[3]].strip(b" \0")


class Walk:
    """Goes through one object under the rules of one policy for one subject."""

    def __init__(
        self, octets: bytes, read_head: ReadHead, rules: RuleSet, policy: Policy, subject: Subject, traces: Traces
    ) -> None:
        self.octets: Final = octets
        self.read_head: Final = read_head
        self.rules: Final = rules
        self.policy: Final = policy
        self.subject: Final = subject
        self.traces: Final = traces
        self.scope = Scope([], 0)
        self.is_signed = False
        """Whether Pixel Representation (0028,0103) says two's complement: it decides between US and SS."""
        self.keeps_private: Final = Option.SAFE_PRIVATE in policy
        """Whether safe private elements stay."""
        self.descriptor_words = descriptor_words(policy.terms)
        """What may stay in free text."""
        self.forbidden: frozenset[bytes] = frozenset()
        self._numbers: list[bytes] = []
        self._written: dict[int, Written] | None = None
        """What is remembered of elements of the top level; None where nothing is."""
        self._moved: dict[tuple[bytes, bytes], tuple[bytes | None, bytes | None]] = {}
        self._pseudonyms: dict[bytes, bytes] = {}

    def value(self, element: Element) -> bytes:
        """Give an element's value without the padding around it."""
        return self.octets[element[2] : element[3]].strip(b" \0")

    def forbid(self, words: frozenset[bytes]) -> None:
        """Let words of names and numbers in this object, in lower case, go from text even where they could stay."""
        self.forbidden = words
        self._numbers = [word for word in words if len(word) >= MIN_JOINED and not word.isalpha()]
        if not self.descriptor_words.isdisjoint(words):
            self.descriptor_words -= words

    def holds_number(self, text: bytes) -> bool:
        """Tell whether a number of the patient stands in a text of words that may stay, whatever parts it there."""
        joined = b"".join(_LETTERS_AND_DIGITS.findall(text.lower()))
        return any(number in joined for number in self._numbers)

    def remember(self, memory: Memory) -> None:
        """Do nothing twice that was done for the header before; everything else about this walk is settled already."""
        of_policy = self.rules, self.policy, self.subject
        self._written = memory.under((*of_policy, self.read_head, self.traces.codec, self.is_signed, self.forbidden))

    def move(self, date: bytes, time: bytes) -> tuple[bytes | None, bytes | None]:
        """Move a DA and its TM as one instant, or each by itself where it has no valid partner.

        Remembered, since each of the two elements asks. None stands for a value that is no date or no time.
        """
        moved = self._moved.get((date, time))
        if moved is None:
            times = self.policy.times
            moved = shift_date_and_time(date, time, self.subject, times) or (
                shift_date(date, self.subject) if date else b"",
                shift_time(time, self.subject, times) if time else b"",
            )
            self._moved[date, time] = moved
        return moved

    def pseudonymous_uid(self, uid: bytes) -> bytes:
        """Map a UID, once for all the places where it stands."""
        mapped = self._pseudonyms.get(uid)
        if mapped is None:
            mapped = self._pseudonyms[uid] = self.subject.pseudonymous_uid(uid)
        return mapped

    def dataset(
        self,
        elements: Elements,
        rules: Mapping[int, Rule],
        depth: int = 0,
        *,
        by_tag: dict[int, Element] | None = None,
    ) -> list[bytes]:
        """Give for each element what is written of it, in the same order; nothing is empty bytes."""
        outer, self.scope = self.scope, Scope(elements, depth, by_tag)
        around = self._enter(elements)
        safe, octets = self.scope.safe, self.octets
        known = _NOTHING if depth or self._written is None else self._written
        out: list[bytes] = []
        for element in elements:
            tag, vr, start, stop, _ = element
            before = known.get(tag)
            if before is not None and before.vr == vr and before.source == octets[start - HEAD_SIZE : stop]:
                out.append(before.octets)
                self.traces.repeat(before.traces)
                continue
            rule = rules.get(tag)
            if rule is not None:
                out.append(self._ruled(element, rule) if depth else self._ruled_at_top(element, rule))
            elif vr in _UNTRACED_VRS and tag not in safe:  # most elements of many scanners
                out.append(b"")
            else:
                out.append(self.rules.unruled(self, element, out))
        self.scope, self.traces.codec_within = outer, around
        return out

    def _enter(self, elements: Elements) -> str:
        """Read what follows in the characters of a data set or item; gives the codec of what it lies in."""
        around = self.traces.codec_within
        self.traces.codec_within = codec_within(elements, self.octets, around)
        return around

    def _ruled(self, element: Element, rule: Rule) -> bytes:
        is_as_expected = element[1] == rule.vr or not element[1]
        return rule.apply(self, element, rule) if is_as_expected else self._reconcile(element, rule)

    def _ruled_at_top(self, element: Element, rule: Rule) -> bytes:
        """Apply a rule, and remember what came of it where that can come again."""
        count = self.traces.count
        written = self._ruled(element, rule)
        tag, vr, start, stop, _ = element
        if self._written is not None and tag in self.rules.repeatable and stop - start <= MAX_REMEMBERED:
            self._written[tag] = Written(vr, self.octets[start - HEAD_SIZE : stop], written, self.traces.since(count))
        return written

    def note(self, element: Element, kind: Trace) -> None:
        """Remember what is taken away with an element, all that is nested in it included."""
        if kind:
            self.traces.add(kind, self.value(element))
        for item in element[4] or ():
            around = self._enter(item)
            for inner in item:
                rule = self.rules.nested.get(inner[0])
                inner_kind = trace_of(inner) if rule is None else rule.trace
                if inner_kind or inner[4]:
                    self.note(inner, inner_kind)
            self.traces.codec_within = around

    def _reconcile(self, element: Element, rule: Rule) -> bytes:
        """Apply a rule to an element that came with another VR than PS3.6 gives it."""
        vr = element[1]
        is_text = vr in STRING_VRS and rule.vr in STRING_VRS
        if is_text or vr in rule.choice or (vr == b"UN" and rule.vr != b"SQ"):
            return rule.apply(self, element, rule)
        if vr in NUMBER_SIZES and rule.vr in NUMBER_SIZES:
            return rule.apply(self, element, dataclasses.replace(rule, head=head(element[0], vr)))
        self.note(element, rule.trace or trace_of(element))
        return rule.fallback


@functools.lru_cache(maxsize=128)
def descriptor_words(terms: frozenset[str]) -> frozenset[bytes]:
    """Give the reviewed words, and those of a policy."""
    return TECHNIQUE | frozenset(term.encode() for term in terms)


def trace_of(element: Element) -> Trace:
    """Tell how to remember an element of which only the VR is known."""
    if element[1] == b"UI":
        return Trace.UID
    return Trace.DESCRIPTION if element[1] in TEXT_VRS else Trace.NONE
