"""A CA's signing policy: the names that a CA may sign, as grids write them beside its certificate.

The format is the extended ACL of Globus (``access_id_CA``, ``pos_rights``, ``cond_subjects``). What Globus would ignore
is refused here: a policy is read whole, or it allows nothing.
"""

from __future__ import annotations

import dataclasses
import re
import string
from collections.abc import Iterator
from typing import Final, NoReturn, Self

from mdmfs.model.errors import ConfigurationError, MalformedNameError
from mdmfs.model.identity import Dn
from mdmfs.pki.dn import avas_of_oneline, dn_of_oneline

MAX_BYTES: Final = 256 * 2**10
_TOKEN: Final = re.compile(
    r"(?P<blank>\s+)|(?P<comment>#[^\n]*)|'(?P<quoted>(?:[^'\\]|\\.)*)'|(?P<word>[^\s'][^\s]*)", re.DOTALL
)
_LIST: Final = re.compile(r'\s*(?:"[^"]+"\s*)+')
_FOLDED: Final = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


@dataclasses.dataclass(frozen=True, slots=True)
class Pattern:
    """Subjects by their beginning and end; the last ``*`` of a pattern stands for one character or more, as in Globus.

    Every other ``*`` and ``?`` stands for itself. ASCII letters are compared without their case, attribute types by
    what they mean (``E``, ``Email`` and ``emailAddress`` are one). A ``/`` inside a value does not divide it:
    ``/O=x/*`` is not for an O of ``x/y``; only ``/CN=host/*`` is for a CN of ``host/a.b`` too: hosts were named so.
    """

    beginnings: tuple[str, ...]
    end: str | None
    """None where there is no ``*``: then a beginning is the whole name."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read one pattern; raises ``MalformedNameError``."""
        if not text.startswith("/"):
            message = "a pattern for subjects begins with a slash"
            raise MalformedNameError(message)
        head, star, tail = text.rpartition("*")
        if not star:
            return cls((_plain_pattern(text),), None)
        beginning = _plain_pattern(head.removesuffix("/"))
        if not head.endswith("/"):
            beginnings: tuple[str, ...] = (beginning,)
        elif beginning.rpartition("/")[2].startswith("cn="):
            beginnings = (beginning + "/", beginning + "\\/")
        else:
            beginnings = (beginning + "/",)
        return cls(beginnings, _plain_pattern("/" + tail).removeprefix("/" if not tail.startswith("/") else ""))

    def matches(self, subject: Dn) -> bool:
        """Ask whether the pattern is for this subject."""
        name = _plain(subject)
        if self.end is None:
            return name in self.beginnings
        end = self.end
        return name.endswith(end) and any(
            name.startswith(beginning) and len(name) > len(beginning) + len(end) for beginning in self.beginnings
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Statement:
    """What one CA may sign: one pattern of each condition must match."""

    authority: str
    rights: tuple[tuple[tuple[Pattern, ...], ...], ...]

    def allows(self, subject: Dn) -> bool:
        """Ask whether one of the rights covers this subject."""
        return any(
            all(any(pattern.matches(subject) for pattern in patterns) for patterns in conditions)
            for conditions in self.rights
        )


@dataclasses.dataclass(frozen=True, slots=True)
class SigningPolicy:
    """The statements of one file."""

    statements: tuple[Statement, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a file; raises ``ConfigurationError`` for every token that is not understood."""
        if len(text) > MAX_BYTES:
            _refuse("it is too large")
        try:
            return cls(tuple(_statements(list(_tokens(text)))))
        except MalformedNameError as error:
            message = f"a signing policy cannot be used: {error}"
            raise ConfigurationError(message) from error

    def allows(self, authority: Dn, subject: Dn) -> bool:
        """Ask whether the CA may sign a certificate for this subject."""
        statement = self.of(authority)
        return statement is not None and statement.allows(subject)

    def of(self, authority: Dn) -> Statement | None:
        """Find what is said of a CA; of several statements the first counts, as in Globus."""
        name = _plain(authority)
        return next((one for one in self.statements if one.authority == name), None)


def _tokens(text: str) -> Iterator[str]:
    place = 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            _refuse("a string has no end")
        place = match.end()
        if match["quoted"] is not None:
            yield re.sub(r"\\(.)", r"\1", match["quoted"], flags=re.DOTALL)
        elif match["word"] is not None:
            yield match["word"]


def _statements(tokens: list[str]) -> Iterator[Statement]:
    """Read triples: who, what right, on what condition; they belong to the nearest one of the kind before."""
    authority, rights = "", list[list[tuple[Pattern, ...]]]()
    if not tokens or len(tokens) % 3:
        _refuse("it does not consist of lines with a kind, an authority and a value")
    for kind, by, value in zip(tokens[::3], tokens[1::3], tokens[2::3], strict=True):
        match kind, by:
            case "access_id_CA", "X509":
                if authority:
                    yield _statement(authority, rights)
                authority, rights = _plain(dn_of_oneline(value)), []
            case "pos_rights", "globus" if authority and value == "CA:sign":
                rights.append([])
            case "cond_subjects", "globus" if rights:
                rights[-1].append(_patterns(value))
            case _:
                _refuse("it has a line that is not understood, or not at this place")
    yield _statement(authority, rights)


def _statement(authority: str, rights: list[list[tuple[Pattern, ...]]]) -> Statement:
    if not rights or not all(rights):
        _refuse("a CA is named without a right, or a right without a condition")
    return Statement(authority, tuple(map(tuple, rights)))


def _patterns(value: str) -> tuple[Pattern, ...]:
    if '"' not in value:
        return (Pattern.parse(value.strip()),)
    if _LIST.fullmatch(value) is None:
        _refuse("the quotes of its subjects do not match")
    return tuple(Pattern.parse(one) for one in re.findall(r'"([^"]+)"', value))


def _plain(name: Dn) -> str:
    """Write a name so that equal names, and no others, have equal beginnings up to a ``/``."""
    return "".join("/" + "+".join(f"{kind}={_escape(value)}" for kind, value in rdn) for rdn in name.rdns).translate(
        _FOLDED
    )


def _plain_pattern(text: str) -> str:
    """Write a pattern, or a part of one, in the same way."""
    parts = avas_of_oneline(text) if text else ()
    return "".join("/" + (f"{kind}=" if kind else "") + _escape(value) for kind, value in parts).translate(_FOLDED)


def _escape(value: str) -> str:
    return re.sub(r"([/+\\])", r"\\\1", value)


def _refuse(reason: str) -> NoReturn:
    message = f"a signing policy cannot be used: {reason}"
    raise ConfigurationError(message)
