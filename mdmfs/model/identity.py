"""Who calls: distinguished names as parsed RDN sequences, VOMS FQANs, and the principal that both make."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Self

from mdmfs.model.errors import CredentialExpiredError, MalformedNameError

MAX_DN_BYTES: Final = 4096
MAX_FQAN_BYTES: Final = 1024

Ava = tuple[str, str]
"""An attribute type in its canonical spelling, and a value."""
Rdn = tuple[Ava, ...]
"""The attributes of one relative distinguished name, sorted: their order says nothing (X.501 section 9.3)."""

_OIDS: Final = {
    "CN": "2.5.4.3",
    "SURNAME": "2.5.4.4",
    "SERIALNUMBER": "2.5.4.5",
    "C": "2.5.4.6",
    "L": "2.5.4.7",
    "ST": "2.5.4.8",
    "STREET": "2.5.4.9",
    "O": "2.5.4.10",
    "OU": "2.5.4.11",
    "TITLE": "2.5.4.12",
    "DESCRIPTION": "2.5.4.13",
    "POSTALCODE": "2.5.4.17",
    "NAME": "2.5.4.41",
    "GIVENNAME": "2.5.4.42",
    "INITIALS": "2.5.4.43",
    "DNQUALIFIER": "2.5.4.46",
    "PSEUDONYM": "2.5.4.65",
    "ORGANIZATIONIDENTIFIER": "2.5.4.97",
    "UID": "0.9.2342.19200300.100.1.1",
    "DC": "0.9.2342.19200300.100.1.25",
    "EMAILADDRESS": "1.2.840.113549.1.9.1",
}
_ALIASES: Final = {
    "COMMONNAME": "CN",
    "SN": "SURNAME",
    "COUNTRYNAME": "C",
    "LOCALITYNAME": "L",
    "S": "ST",
    "STATEORPROVINCENAME": "ST",
    "STREETADDRESS": "STREET",
    "ORGANIZATIONNAME": "O",
    "ORGANIZATIONALUNITNAME": "OU",
    "T": "TITLE",
    "GN": "GIVENNAME",
    "USERID": "UID",
    "DOMAINCOMPONENT": "DC",
    "EMAIL": "EMAILADDRESS",
    "E": "EMAILADDRESS",
}
_CANONICAL_TYPES: Final = {**_ALIASES, **{name: name for name in _OIDS}, **{oid: name for name, oid in _OIDS.items()}}
_OID_TEXT: Final = re.compile(r"[0-2](?:\.(?:0|[1-9][0-9]{0,38})){1,30}")

_ESCAPE: Final = re.compile(r"\\([0-9A-Fa-f]{2})|\\(.?)", re.DOTALL)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_BARRED_IN_RFC4514: Final = re.compile(r'\\.|(["<>;])', re.DOTALL)
_INVISIBLE: Final = "\x00-\x1f\x7f-\xa0\xad\u061c\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff\ufff9-\ufffb"
"""Fixed, not asked of the Unicode tables: the canonical form must not change with the version of Python."""
_TO_ESCAPE: Final = re.compile(rf"([/+\\])|([{_INVISIBLE}]|^\x20|\x20\Z)")
_SHORT_STRING: Final = re.compile(r"(?P<tag>0[cC]|13|16)(?P<length>[0-7][0-9A-Fa-f])(?P<octets>(?:[0-9A-Fa-f]{2})+)")
"""Tag (UTF8String, PrintableString, IA5String), length and contents."""


@dataclasses.dataclass(frozen=True, slots=True)
class Dn:
    """A distinguished name: its RDNs from the root of the tree (``DC=org``) to the leaf (``CN=...``).

    Two names are equal when their RDNs are; the case of values and every blank in them count. The types are brought
    into one spelling (``Email``, ``E`` and 1.2.840.113549.1.9.1 are EMAILADDRESS; what has no name here stays a dotted
    OID).
    ``str`` writes the slash form, injectively: equal names have equal strings and no others do.
    """

    rdns: tuple[Rdn, ...]
    _text: str = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Bring types and the order within RDNs into one form; raises ``MalformedNameError``."""
        if not self.rdns:
            message = "a DN has at least one part"
            raise MalformedNameError(message)
        object.__setattr__(self, "rdns", tuple(_canonical_rdn(rdn) for rdn in self.rdns))
        object.__setattr__(self, "_text", "".join("/" + _join(rdn) for rdn in self.rdns))
        if len(self._text.encode()) > MAX_DN_BYTES:
            message = f"a DN has at most {MAX_DN_BYTES} bytes"
            raise MalformedNameError(message)

    @classmethod
    def parse(cls, text: str) -> Self:
        r"""Read ``/DC=org/CN=Jane Doe`` or RFC 4514 (``CN=Jane Doe,DC=org``); raises ``MalformedNameError``.

        In the slash form a ``/``, ``+`` or ``\`` inside a value is written with a ``\`` before it. Unescaped they
        always divide: ``/CN=host/a.b`` is refused, not guessed at.
        """
        if len(text) > MAX_DN_BYTES or _CONTROL.search(text):
            message = f"a DN has at most {MAX_DN_BYTES} bytes and no bare control character (write \\0A)"
            raise MalformedNameError(message)
        if text.startswith("/"):
            return cls(tuple(_parse_rdn(rdn) for rdn in _split(text[1:], "/")))
        _refuse_barred(text)
        return cls(tuple(_parse_rdn(_strip(rdn), _strip) for rdn in reversed(_split(text, ","))))

    def __str__(self) -> str:
        """Write the slash form, which ``parse`` reads back to the same name."""
        return self._text

    def __truediv__(self, ava: Ava) -> Dn:
        """Name an entry below this one."""
        return Dn((*self.rdns, (ava,)))


@dataclasses.dataclass(frozen=True, slots=True)
class Fqan:
    """A fully qualified attribute name of VOMS: a group by its path, first the VO, and a role in that group or None."""

    groups: tuple[str, ...]
    role: str | None = None

    def __post_init__(self) -> None:
        """Refuse what VOMS would not issue, and take ``Role=NULL`` for no role."""
        if self.role == "NULL":
            object.__setattr__(self, "role", None)
        words = self.groups if self.role is None else (*self.groups, self.role)
        if not self.groups or not all(_FQAN_WORD.fullmatch(word) for word in words) or {".", ".."} & set(words):
            message = "an FQAN is written /VO/GROUP/Role=ROLE, its words of letters, digits, _, - and ."
            raise MalformedNameError(message)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``/vo/group/Role=x/Capability=NULL``; role and capability may be absent; a capability is dropped."""
        match = _FQAN_TEXT.fullmatch(text) if len(text) <= MAX_FQAN_BYTES else None
        if match is None:
            message = f"an FQAN is written /VO/GROUP/Role=ROLE and has at most {MAX_FQAN_BYTES} bytes"
            raise MalformedNameError(message)
        return cls(tuple(match["groups"].split("/")[1:]), match["role"])

    def __str__(self) -> str:
        """Write the normal form, without ``Role=NULL`` and without a capability."""
        return "".join("/" + group for group in self.groups) + (f"/Role={self.role}" if self.role else "")

    def is_within(self, wanted: Fqan) -> bool:
        """Ask whether a holder of this FQAN is a member of ``wanted``.

        Groups are compared by whole segments: who is in ``/vo/group/sub``, or has a role there, is in ``/vo/group`` and
        in ``/vo`` too, because VOMS admits nobody to a group who is not in the groups above it. (LFC compared
        whole strings and relied on the proxy naming every group; a proxy that names one group suffices here.) A role is
        held in one group only: ``/vo/Role=x`` is met by exactly ``/vo/Role=x``.
        """
        if wanted.role is not None:
            return self == wanted
        return self.groups[: len(wanted.groups)] == wanted.groups

    def memberships(self) -> Iterator[Fqan]:
        """Give every FQAN that this one is within, itself first."""
        if self.role is not None:
            yield self
        for length in range(len(self.groups), 0, -1):
            yield Fqan(self.groups[:length])


_FQAN_WORD: Final = re.compile(r"[A-Za-z0-9_.-]+")
_FQAN_TEXT: Final = re.compile(
    r"(?P<groups>(?:/[A-Za-z0-9_.-]+)+)(?:/Role=(?P<role>[A-Za-z0-9_.-]+))?(?:/Capability=[A-Za-z0-9_.-]+)?"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Principal:
    """Who calls, as the chain of certificates proves it: the end entity's DN, VOMS FQANs, and the end of it all."""

    dn: Dn
    fqans: tuple[Fqan, ...]
    not_after: float
    """Seconds since the epoch at which the first certificate of the chain, or attribute certificate, ends."""
    memberships: frozenset[str] = dataclasses.field(init=False, repr=False, compare=False)
    """The normal form of every FQAN that one of the principal's is within."""

    def __post_init__(self) -> None:
        """Work the memberships out once: decisions are many."""
        names = frozenset(str(wider) for fqan in self.fqans for wider in fqan.memberships())
        object.__setattr__(self, "memberships", names)

    def refuse_expired(self, now: float) -> None:
        """Raise ``CredentialExpiredError`` where the chain has ended."""
        if now >= self.not_after:
            message = "the certificate or proxy has expired; get a new one"
            raise CredentialExpiredError(message)


def _canonical_rdn(rdn: Sequence[Ava]) -> Rdn:
    canonical = tuple(sorted((_canonical_type(kind), _valid_value(value)) for kind, value in rdn))
    if not canonical or len(set(canonical)) != len(canonical):
        message = "an RDN names at least one attribute, and none twice"
        raise MalformedNameError(message)
    return canonical


def _canonical_type(text: str) -> str:
    kind = _CANONICAL_TYPES.get(text.upper() if text.isascii() else text)
    if kind is not None:
        return kind
    if not _OID_TEXT.fullmatch(text):
        message = (
            "an attribute type of a DN is a known name (CN, O, DC, ...) or a dotted OID; / and , divide, \\/ does not"
        )
        raise MalformedNameError(message)
    return text


def _valid_value(value: str) -> str:
    try:
        octets = value.encode()
    except UnicodeEncodeError as error:
        message = "a value in a DN is valid Unicode"
        raise MalformedNameError(message) from error
    if not octets:
        message = "a value in a DN is not empty"
        raise MalformedNameError(message)
    return value


def _split(text: str, separator: str) -> list[str]:
    """Divide at each separator that has no backslash before it; the pieces keep their escapes."""
    pieces, start = [], 0
    for match in re.finditer(rf"\\.|[{separator}]", text, re.DOTALL):
        if match[0] == separator:
            pieces.append(text[start : match.start()])
            start = match.end()
    return [*pieces, text[start:]]


def _parse_rdn(text: str, strip: Callable[[str], str] = str) -> Rdn:
    return tuple(_parse_ava(strip(piece), strip) for piece in _split(text, "+"))


def _parse_ava(text: str, strip: Callable[[str], str]) -> Ava:
    kind, equals, value = text.partition("=")
    if not equals:
        message = "each part of a DN is written TYPE=value; inside a value write \\/, \\+ and \\\\"
        raise MalformedNameError(message)
    value = strip(value)
    is_encoded = strip is _strip and value.startswith("#")
    return strip(kind), _decode_string(value[1:]) if is_encoded else _unescape(value)


def _strip(text: str) -> str:
    """Take away blanks around a part of RFC 4514, where one that counts is escaped."""
    text = text.lstrip(" ")
    while text.endswith(" ") and not _ends_escaped(text):
        text = text[:-1]
    return text


def _ends_escaped(text: str) -> bool:
    before = text[:-1]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1


def _refuse_barred(text: str) -> None:
    if any(match[1] for match in _BARRED_IN_RFC4514.finditer(text)):
        message = 'in RFC 4514 form ", <, > and ; inside a value are written with a backslash before them'
        raise MalformedNameError(message)


def _unescape(text: str) -> str:
    octets, start = bytearray(), 0
    try:
        for match in _ESCAPE.finditer(text):
            octets += text[start : match.start()].encode()
            octets += bytes.fromhex(match[1]) if match[1] else _escaped_character(match[2]).encode()
            start = match.end()
        return (octets + text[start:].encode()).decode()
    except UnicodeError as error:
        message = "the value of a DN is not valid UTF-8"
        raise MalformedNameError(message) from error


def _escaped_character(character: str) -> str:
    if not character or character not in '/+\\,"<>;=# ':
        message = "a backslash in a DN stands before a special character or two hexadecimal digits"
        raise MalformedNameError(message)
    return character


def _decode_string(digits: str) -> str:
    """Read the hexadecimal form ``#0C024142`` (RFC 4514 section 2.4) of a string of less than 128 bytes."""
    refusal = MalformedNameError(
        "a value after # is the DER of a UTF8String, PrintableString or IA5String in hexadecimal"
    )
    match = _SHORT_STRING.fullmatch(digits)
    if match is None or len(match["octets"]) != 2 * int(match["length"], 16):
        raise refusal
    try:
        return bytes.fromhex(match["octets"]).decode("utf-8" if match["tag"] in {"0c", "0C"} else "ascii")
    except UnicodeError as error:
        raise refusal from error


def _join(rdn: Rdn) -> str:
    return "+".join(f"{kind}={_TO_ESCAPE.sub(_escape, value)}" for kind, value in rdn)


def _escape(match: re.Match[str]) -> str:
    if match[1]:
        return "\\" + match[1]
    return "".join(f"\\{octet:02X}" for octet in match[2].encode())
