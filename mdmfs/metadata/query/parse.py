"""Parse: the text of a query to its syntax, by recursive descent, within bounds of length, depth and count.

Written by hand: the grammar has fifteen rules, and an error has to name the column in words (docs/adr/0009).
"""

from __future__ import annotations

import datetime as dt
import functools
import math
import re
from typing import Final, NamedTuple

from mdmfs.metadata.query.syntax import And, Condition, Literal, Name, Not, Operator, Or, Order, Query, Test
from mdmfs.model.errors import MalformedQueryError

MAX_BYTES: Final = 4096
KNOWN: Final = 256
MAX_DEPTH: Final = 32
MAX_TESTS: Final = 100
MAX_VALUES: Final = 200
"""In the list of one ``in``."""
MAX_TEXT: Final = 1024
"""Characters of a text in quotation marks."""
MAX_WILDCARDS: Final = 8
MAX_KEYS: Final = 8
MAX_LIMIT: Final = 10_000_000
_INTEGER_LIMIT: Final = 2**63
_SHOWN: Final = 24

_TOKEN: Final = re.compile(
    r"""\s*(?:
      (?P<date>date\s*\(\s*(?P<day>\d{4}-\d{2}-\d{2})\s*\))
    | (?P<name>[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z][A-Za-z0-9_]*){0,8})
    | (?P<number>[+-]?(?:\d+(?:\.\d+)?(?:[eE][+-]?\d{1,3})?))
    | (?P<text>"(?:[^"\\]|\\["\\])*")
    | (?P<sign>==|!=|<=|>=|<|>|\(|\)|,)
    )""",
    re.VERBOSE | re.ASCII,
)
_KEYWORDS: Final = frozenset(
    {"and", "or", "not", "like", "in", "is", "missing", "order", "by", "asc", "desc", "limit", "true", "false"}
)
_COMPARISONS: Final = {one.value: one for one in Operator if one.value[0] in "=!<>"}
_CLOSES: Final = "after ( follow conditions and a )"


class Token(NamedTuple):
    """A word of a query."""

    kind: str
    """``keyword``, ``name``, ``value``, ``sign`` or ``end``."""
    text: str
    column: int
    value: str | int | float | bool | dt.date = ""


@functools.lru_cache(KNOWN)
def parse(text: str) -> Query:
    """Read a query; raises ``MalformedQueryError`` that says in which column it stops being one.

    The same text is read once: pages of an answer and directories that are listed again ask the same question.
    """
    return _Parser(_tokens(text)).query()


def refuse(column: int, message: str) -> MalformedQueryError:
    """Make the error for a fault at a column, from 1."""
    return MalformedQueryError(f"column {column}: {message}")


def _tokens(text: str) -> list[Token]:
    try:
        length = len(text.encode())
    except UnicodeEncodeError as error:
        raise refuse(error.start + 1, "this is no valid Unicode") from error
    if length > MAX_BYTES:
        raise refuse(1, f"a query has at most {MAX_BYTES} bytes, this one {length}")
    if "\0" in text:
        raise refuse(text.index("\0") + 1, "a query holds no NUL character")
    found, position, end = [], 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            raise _unreadable(text, position)
        found.append(_token(match))
        position = match.end()
    return [*found, Token("end", "the end of the query", end + 1)]


def _unreadable(text: str, position: int) -> MalformedQueryError:
    position += len(text[position:]) - len(text[position:].lstrip())
    if text[position] == '"':
        return refuse(position + 1, 'this text does not end, or has a \\ before something else than " or \\')
    if text[position] == "=":
        return refuse(position + 1, "equal is written ==")
    if text[position] == "'":
        return refuse(position + 1, 'texts stand in double quotation marks: "..."')
    return refuse(position + 1, f"{text[position]!r} means nothing here")


def _token(match: re.Match[str]) -> Token:
    kind = match.lastgroup if match["date"] is None else "date"
    text, column = match[kind or 0], match.start(kind or 0) + 1
    if kind == "date":
        return Token("value", text, column, _date(match["day"], column))
    if kind == "number":
        return Token("value", text, column, _number(text, column))
    if kind == "text":
        written = re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
        if len(written) > MAX_TEXT:
            raise refuse(column, f"a text has at most {MAX_TEXT} characters, this one {len(written)}")
        return Token("value", "a text", column, written)
    if text in {"true", "false"}:
        return Token("value", text, column, text == "true")
    return Token("keyword" if text in _KEYWORDS else str(kind), text, column)


def _date(text: str, column: int) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError as error:
        raise refuse(column, f"{text} is no day of the calendar") from error


def _number(text: str, column: int) -> int | float:
    if text.lstrip("+-").isdigit():
        digits = text.lstrip("+-").lstrip("0")
        number = int(text) if len(digits) <= len(str(_INTEGER_LIMIT)) else _INTEGER_LIMIT
        if not -_INTEGER_LIMIT < number < _INTEGER_LIMIT:
            raise refuse(column, "this number is too large: whole numbers have 63 bits")
        return number
    value = float(text)
    if not math.isfinite(value):
        raise refuse(column, "this number is too large")
    return value


class _Parser:
    """Goes through the tokens once; each method reads one rule of the grammar."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._position = 0
        self._depth = 0
        self._tests = 0

    def query(self) -> Query:
        condition = None if self._begins("order", "limit") or self._next.kind == "end" else self._disjunction()
        order: tuple[Order, ...] = ()
        if self._skip("order"):
            self._expect("by", 'after "order" follows "by"')
            order = self._keys()
        limit = self._limit() if self._skip("limit") else None
        if self._next.kind != "end":
            raise refuse(self._next.column, f'expected "and", "or", "order by", "limit" or the end, not {self._shown}')
        return Query(condition, order, limit)

    @property
    def _next(self) -> Token:
        return self._tokens[self._position]

    @property
    def _shown(self) -> str:
        return self._next.text if len(self._next.text) <= _SHOWN else self._next.text[:_SHOWN] + "..."

    def _begins(self, *words: str) -> bool:
        return self._next.kind in {"keyword", "sign"} and self._next.text in words

    def _take(self) -> Token:
        token = self._next
        self._position += 1
        return token

    def _skip(self, word: str) -> bool:
        if self._begins(word):
            self._position += 1
            return True
        return False

    def _expect(self, word: str, otherwise: str) -> None:
        if not self._skip(word):
            raise refuse(self._next.column, f"{otherwise}, not {self._shown}")

    def _disjunction(self) -> Condition:
        operands = [self._conjunction()]
        while self._skip("or"):
            operands.append(self._conjunction())
        flat = [inner for one in operands for inner in (one.operands if isinstance(one, Or) else (one,))]
        return flat[0] if len(flat) == 1 else Or(tuple(flat))

    def _conjunction(self) -> Condition:
        operands = [self._negation()]
        while self._skip("and"):
            operands.append(self._negation())
        flat = [inner for one in operands for inner in (one.operands if isinstance(one, And) else (one,))]
        return flat[0] if len(flat) == 1 else And(tuple(flat))

    def _negation(self) -> Condition:
        column = self._next.column
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise refuse(column, f"brackets and nots are nested more than {MAX_DEPTH} deep")
        if self._skip("not"):
            found: Condition = Not(self._negation())
        elif self._skip("("):
            found = self._disjunction()
            self._expect(")", _CLOSES)
        else:
            found = self._test()
        self._depth -= 1
        return found

    def _test(self) -> Test:
        self._tests += 1
        if self._tests > MAX_TESTS:
            raise refuse(self._next.column, f"a query has at most {MAX_TESTS} tests")
        name = self._name("a condition begins with the name of an attribute")
        token = self._take()
        if token.kind == "sign" and token.text in _COMPARISONS:
            return Test(name, _COMPARISONS[token.text], (self._value(),))
        if token.kind == "keyword" and token.text == "like":
            return Test(name, Operator.LIKE, (self._pattern(),))
        if token.kind == "keyword" and token.text == "in":
            return Test(name, Operator.IN, self._values())
        if token.kind == "keyword" and token.text == "is":
            operator = Operator.PRESENT if self._skip("not") else Operator.MISSING
            self._expect("missing", 'after "is" follows "missing" or "not missing"')
            return Test(name, operator, ())
        self._position -= 1
        raise refuse(token.column, f"after {name.text} follows ==, !=, <, <=, >, >=, like, in or is, not {self._shown}")

    def _name(self, otherwise: str) -> Name:
        if self._next.kind != "name":
            raise refuse(self._next.column, f"{otherwise}, not with {self._shown}")
        token = self._take()
        return Name(token.text, token.column)

    def _value(self) -> Literal:
        if self._next.kind != "value":
            what = 'a "text", a number, true, false or date(2024-12-31)'
            raise refuse(self._next.column, f"here stands {what}, not {self._shown}")
        token = self._take()
        return Literal(token.value, token.column)

    def _pattern(self) -> Literal:
        pattern = self._value()
        if not isinstance(pattern.value, str):
            raise refuse(pattern.column, 'after "like" stands a text with % and _')
        if pattern.value.count("%") > MAX_WILDCARDS:
            raise refuse(pattern.column, f"a pattern has at most {MAX_WILDCARDS} times %")
        return pattern

    def _values(self) -> tuple[Literal, ...]:
        self._expect("(", 'after "in" follows (')
        values = [self._value()]
        while self._skip(","):
            if len(values) == MAX_VALUES:
                raise refuse(self._next.column, f"a list has at most {MAX_VALUES} values")
            values.append(self._value())
        self._expect(")", "after ( follow values with commas between them, and a )")
        return tuple(values)

    def _keys(self) -> tuple[Order, ...]:
        keys = [self._key()]
        while self._skip(","):
            keys.append(self._key())
        if len(keys) > MAX_KEYS:
            raise refuse(keys[MAX_KEYS].name.column, f"a result is ordered by at most {MAX_KEYS} attributes")
        return tuple(keys)

    def _key(self) -> Order:
        name = self._name('after "order by" follows the name of an attribute')
        is_descending = self._skip("desc")
        if not is_descending:
            self._skip("asc")
        return Order(name, is_descending)

    def _limit(self) -> int:
        token = self._next
        if not isinstance(token.value, int) or isinstance(token.value, bool) or not 0 < token.value <= MAX_LIMIT:
            raise refuse(token.column, f'after "limit" follows a number from 1 to {MAX_LIMIT}, not {self._shown}')
        self._position += 1
        return token.value
