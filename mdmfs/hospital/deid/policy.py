"""A policy: what a project's agreement lets out, parsed from one TOML text; registrations hold its digest."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import re
import tomllib
from collections.abc import Iterator
from typing import Final, NoReturn, Self, TypeVar

from mdmfs.model.errors import ConfigurationError

_E = TypeVar("_E", bound=enum.StrEnum)

POLICY_FORMAT: Final = 1

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,23}")
_WORD: Final = re.compile(r"[a-z]{1,32}")
_UID: Final = re.compile(r"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))+")
_PRINTABLE: Final = re.compile(r"[ -~]{0,64}")
_STATEMENT: Final = re.compile(r"(?=[^ ])[ -~]{8,200}")
_MAX_SIZE: Final = 65535
_KEYS: Final = ("name", "heads", "times", "options", "terms", "known_uids", "regions", "reviews", "approvals")
_REVIEW_KEYS: Final = ("sop_class", "manufacturer", "model", "rows", "columns", "review")
_REGION_KEYS: Final = ("sop_class", "manufacturer", "model", "rows", "columns", "blank", "keep_ultrasound")
_CORNERS: Final = 4


class Heads(enum.StrEnum):
    """What happens to images from which a face could be rebuilt; a policy must choose."""

    REFUSE = "refuse"
    AGREEMENT = "agreement"
    """They are released, marked (0028,0302) = YES, to the group that signed."""


class Times(enum.StrEnum):
    """Whether the times of day move by the subject's extra seconds."""

    SHIFT = "shift"
    KEEP = "keep"
    """For kinetics that need the hour of the day; the conformance statement names the risk."""


class Option(enum.StrEnum):
    """The options of PS3.15 Table E.1-1 that the engine offers beside the Basic Profile."""

    CLEAN_GRAPHICS = "clean-graphics"
    CLEAN_DESCRIPTORS = "clean-descriptors"
    STRUCTURED_CONTENT = "clean-structured-content"
    FULL_DATES = "retain-full-dates"
    MODIFIED_DATES = "retain-modified-dates"
    PATIENT_CHARACTERISTICS = "retain-patient-characteristics"
    DEVICE = "retain-device"
    INSTITUTION = "retain-institution"
    SAFE_PRIVATE = "retain-safe-private"


APPROVED_BY_NAME: Final = frozenset({Option.FULL_DATES, Option.INSTITUTION})
"""Options that a policy may claim only with a statement of who approved them."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rectangle:
    """A part of an image, in pixels from its upper left corner."""

    x: int
    y: int
    width: int
    height: int


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """Which objects are meant; empty or 0 asks for nothing."""

    sop_class: str
    manufacturer: str = ""
    model: str = ""
    rows: int = 0
    columns: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Review:
    """Objects of which people have looked at a sample and found nothing that the header's rules leave in."""

    kind: Kind
    review: str
    """Who looked at how many of them, and when."""


@dataclasses.dataclass(frozen=True, slots=True)
class RegionRule:
    """What is blanked in the images of one kind of machine."""

    kind: Kind
    blank: tuple[Rectangle, ...] = ()
    keep_ultrasound: bool = False
    """Blank all but Sequence of Ultrasound Regions (0018,6011), and ``blank`` in these."""


@dataclasses.dataclass(frozen=True, slots=True)
class Policy:
    """One project's rules for de-identification; everything in it changes the bytes that come out."""

    name: str
    heads: Heads
    times: Times = Times.SHIFT
    options: frozenset[Option] = frozenset()
    terms: frozenset[str] = frozenset()
    """Words, in lower case, that may stay in descriptors beside the reviewed ones."""
    known_uids: frozenset[str] = frozenset()
    """Class, coding scheme and context group UIDs that may stay beside those of PS3.6 Annex A."""
    regions: tuple[RegionRule, ...] = ()
    """What is blanked in which images; the first rule that fits counts."""
    reviews: tuple[Review, ...] = ()
    """Which objects pass as they are although their class is closed."""
    approvals: tuple[tuple[str, str], ...] = ()
    """For each option that needs one, who approved it and on what ground; sorted."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a policy; raises ``ConfigurationError`` with the line and the field that it does not understand."""
        document = _Document.load(text)
        options = frozenset(document.choices("options", Option))
        return cls(
            name=document.text("name", _NAME),
            heads=document.choice("heads", Heads),
            times=document.choice("times", Times, Times.SHIFT),
            options=options,
            approvals=document.approvals(options),
            reviews=document.reviews(),
            terms=frozenset(document.texts("terms", _WORD)),
            known_uids=frozenset(document.texts("known_uids", _UID)),
            regions=document.regions(),
        )

    @property
    def digest(self) -> bytes:
        """SHA-256 of the canonical form: equal for policies that say the same, in whatever order and spacing."""
        canonical: dict[str, object] = {
            "format": POLICY_FORMAT,
            "name": self.name,
            "heads": self.heads,
            "times": self.times,
            "options": sorted(self.options),
            "terms": sorted(self.terms),
            "known_uids": sorted(self.known_uids),
        }
        if self.regions:
            canonical["regions"] = [_flat(rule) for rule in self.regions]
        if self.reviews:
            canonical["reviews"] = [_flat(review) for review in self.reviews]
        if self.approvals:
            canonical["approvals"] = dict(self.approvals)
        return hashlib.sha256(json.dumps(canonical, sort_keys=True, separators=(",", ":")).encode()).digest()

    @property
    def reviewed_kinds(self) -> list[Kind]:
        """What the policy names beyond the classes that are open anyway."""
        return [*(rule.kind for rule in self.regions), *(review.kind for review in self.reviews)]

    def __contains__(self, option: Option) -> bool:
        """Tell whether an option is claimed."""
        return option in self.options


def _flat(rule: RegionRule | Review) -> dict[str, object]:
    fields = dataclasses.asdict(rule)
    return {**fields.pop("kind"), **fields}


class _Document:
    """The TOML text and its values, so that an error can name its line."""

    def __init__(self, text: str, fields: dict[str, object]) -> None:
        self._lines = text.splitlines()
        self._fields = fields
        self._table_lines = range(len(self._lines))
        """Which lines are being read, by index: those of one table of ``[[regions]]`` or ``[[reviews]]``, or all."""

    @classmethod
    def load(cls, text: str) -> Self:
        try:
            document = cls(text, tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            message = f"the policy is not TOML: {error}"
            raise ConfigurationError(message) from error
        for field in document._fields:
            if field not in _KEYS:
                document._refuse(field, f"is none of {', '.join(_KEYS)}")
        return document

    def text(self, field: str, pattern: re.Pattern[str]) -> str:
        return self._checked(field, self._fields.get(field), pattern)

    def texts(self, field: str, pattern: re.Pattern[str]) -> list[str]:
        return [self._checked(field, value, pattern) for value in self._listed(field)]

    def choice(self, field: str, kind: type[_E], default: _E | None = None) -> _E:
        value = self._fields.get(field, default)
        return self._chosen(field, value, kind)

    def choices(self, field: str, kind: type[_E]) -> list[_E]:
        return [self._chosen(field, value, kind) for value in self._listed(field)]

    def regions(self) -> tuple[RegionRule, ...]:
        return tuple(self._region(table) for table in self._tables("regions"))

    def reviews(self) -> tuple[Review, ...]:
        return tuple(self._review(table) for table in self._tables("reviews"))

    def approvals(self, options: frozenset[Option]) -> tuple[tuple[str, str], ...]:
        """Read who approved what; each option that needs it has one, and no other has."""
        table = self._fields.get("approvals", {})
        if not isinstance(table, dict) or not set(table) <= set(APPROVED_BY_NAME):
            self._refuse("approvals", f"is a table of {', '.join(sorted(APPROVED_BY_NAME))}")
        given = {option: self._checked(option, statement, _STATEMENT) for option, statement in table.items()}
        for option in sorted(options & APPROVED_BY_NAME):
            if option not in given:
                self._refuse("options", f"holds {option}, and [approvals] does not say who approved it")
        if {Option.FULL_DATES, Option.MODIFIED_DATES} <= options:
            self._refuse("options", f"holds {Option.FULL_DATES} and {Option.MODIFIED_DATES}: choose one")
        return tuple(sorted((str(option), statement) for option, statement in given.items() if option in options))

    def _tables(self, field: str) -> Iterator[object]:
        """Give the tables of a list, and while one is read, know its lines."""
        everything = self._table_lines
        heads = [number for number in everything if self._lines[number].lstrip().startswith("[")]
        named = [n for n in heads if re.match(rf"\s*\[\[\s*{field}\s*]]", self._lines[n])]
        for number, table in enumerate(self._listed(field)):
            if number < len(named):
                stop = next((n for n in heads if n > named[number]), len(self._lines))
                self._table_lines = range(named[number], stop)
            yield table
        self._table_lines = everything

    def _table(self, field: str, table: object, keys: tuple[str, ...]) -> dict[str, object]:
        if not isinstance(table, dict) or not set(table) <= set(keys):
            self._refuse(field, f"is [[{field}]] tables of {', '.join(keys)}")
        return {str(key): value for key, value in table.items()}

    def _kind(self, table: dict[str, object]) -> Kind:
        return Kind(
            sop_class=self._checked("sop_class", table.get("sop_class"), _UID),
            manufacturer=self._checked("manufacturer", table.get("manufacturer", ""), _PRINTABLE),
            model=self._checked("model", table.get("model", ""), _PRINTABLE),
            rows=self._whole("rows", table.get("rows", 0)),
            columns=self._whole("columns", table.get("columns", 0)),
        )

    def _review(self, one: object) -> Review:
        table = self._table("reviews", one, _REVIEW_KEYS)
        return Review(self._kind(table), self._checked("review", table.get("review"), _STATEMENT))

    def _region(self, one: object) -> RegionRule:
        table = self._table("regions", one, _REGION_KEYS)
        rule = RegionRule(
            kind=self._kind(table),
            blank=self._rectangles(table.get("blank", [])),
            keep_ultrasound=table.get("keep_ultrasound", False) is True,
        )
        if not rule.blank and not rule.keep_ultrasound:
            self._refuse("blank", "or keep_ultrasound = true must say what is blanked")
        return rule

    def _rectangles(self, value: object) -> tuple[Rectangle, ...]:
        if not isinstance(value, list):
            self._refuse("blank", "is a list of [x, y, width, height]")
        rectangles = []
        for corners in value:
            if not isinstance(corners, list) or len(corners) != _CORNERS:
                self._refuse("blank", "is a list of [x, y, width, height]")
            rectangles.append(Rectangle(*(self._whole("blank", number) for number in corners)))
        return tuple(rectangles)

    def _whole(self, field: str, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_SIZE:
            self._refuse(field, f"is a whole number up to {_MAX_SIZE}")
        return value

    def _listed(self, field: str) -> list[object]:
        values = self._fields.get(field, [])
        if not isinstance(values, list):
            self._refuse(field, "is a list of texts")
        return values

    def _checked(self, field: str, value: object, pattern: re.Pattern[str]) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            self._refuse(field, f"must match {pattern.pattern}")
        return value

    def _chosen(self, field: str, value: object, kind: type[_E]) -> _E:
        for member in kind:
            if member.value == value:
                return member
        return self._refuse(field, f"is one of {', '.join(kind)}")

    def _refuse(self, field: str, problem: str) -> NoReturn:
        assigned = re.compile(rf"\s*[\"']?{re.escape(field)}[\"']?\s*=")
        number = next((n for n in self._table_lines if assigned.match(self._lines[n])), None)
        where = f"line {number + 1}" if number is not None else "it is missing"
        if number is None and self._table_lines.start:
            where = f"in the table of line {self._table_lines.start + 1}"
        message = f"the policy's field {field!r} {problem} ({where})"
        raise ConfigurationError(message)
