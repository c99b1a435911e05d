"""PROPFIND: which properties are asked for, and the XML that answers (RFC 4918 sections 9.1 and 14). Pure.

What is asked comes from anybody with a certificate: it is small, and a document type or entity in it is refused.
"""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import Final, NamedTuple
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
from defusedxml import DefusedXmlException

from mdmfs.model.errors import MalformedMessageError

MAX_BODY_BYTES: Final = 16 * 2**10
MAX_PROPERTIES: Final = 64
DAV: Final = "DAV:"
LCGDM: Final = "LCGDM:"
"""The name space in which storage elements tell a file's mode."""
HEAD: Final = b'<?xml version="1.0" encoding="utf-8"?>\n<d:multistatus xmlns:d="DAV:" xmlns:l="LCGDM:">\n'
TAIL: Final = b"</d:multistatus>\n"
_PREFIXES: Final = {DAV: "d", LCGDM: "l"}
_NAME: Final = re.compile(r"\{(?P<space>[^{}]*)\}(?P<local>[^{}]+)")


class Property(NamedTuple):
    """The name of a property."""

    space: str
    local: str


class Resource(NamedTuple):
    """What is told of one file or directory."""

    href: str
    is_directory: bool
    length: int
    """Of the sealed object, in bytes."""
    modified: float
    """Seconds since the epoch."""
    guid: str


def _mode(resource: Resource) -> str:
    return "0040555" if resource.is_directory else "0100444"


_VALUES: Final[Mapping[Property, Callable[[Resource], str | None]]] = {
    Property(DAV, "resourcetype"): lambda it: "<d:collection/>" if it.is_directory else "",
    Property(DAV, "getcontentlength"): lambda it: None if it.is_directory else str(it.length),
    Property(DAV, "getcontenttype"): lambda it: None if it.is_directory else "application/octet-stream",
    Property(DAV, "getlastmodified"): lambda it: formatdate(it.modified, usegmt=True),
    Property(LCGDM, "mode"): _mode,
    Property(LCGDM, "guid"): lambda it: it.guid or None,
}
"""What each known property says in XML; None where a resource has it not."""


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """What a PROPFIND asks of each resource."""

    properties: tuple[Property, ...] = tuple(_VALUES)
    names_only: bool = False
    tells_missing: bool = False
    """Whether what a resource has not is answered with 404: only what was asked for by name."""

    @classmethod
    def parse(cls, body: bytes) -> Question:
        """Read the body of a PROPFIND; an empty one asks for everything. Raises ``MalformedMessageError``."""
        if not body.strip():
            return cls()
        if len(body) > MAX_BODY_BYTES:
            message = f"the body of a PROPFIND has at most {MAX_BODY_BYTES} bytes"
            raise MalformedMessageError(message)
        root = _parsed(body)
        if root.tag != f"{{{DAV}}}propfind":
            message = "the body of a PROPFIND is a DAV: propfind"
            raise MalformedMessageError(message)
        if root.find(f"{{{DAV}}}propname") is not None:
            return cls(names_only=True)
        asked = root.find(f"{{{DAV}}}prop")
        if asked is None:
            return cls()
        if len(asked) > MAX_PROPERTIES:
            message = f"a PROPFIND asks for at most {MAX_PROPERTIES} properties"
            raise MalformedMessageError(message)
        return cls(tuple(dict.fromkeys(map(_property_of, asked))), tells_missing=True)

    def answer(self, resource: Resource) -> bytes:
        """Write the response element of one resource."""
        found, missing = [], []
        for name in self.properties:
            value = _VALUES[name](resource) if name in _VALUES else None
            if value is None:
                missing.append(_element(name, ""))
            else:
                found.append(_element(name, "" if self.names_only else value))
        parts = [_propstat(found, "200 OK")] if found or not self.tells_missing else []
        if missing and self.tells_missing:
            parts.append(_propstat(missing, "404 Not Found"))
        return f"<d:response><d:href>{html.escape(resource.href)}</d:href>{''.join(parts)}</d:response>\n".encode()


def _parsed(body: bytes) -> Element:
    try:
        root: Element = defusedxml.ElementTree.fromstring(body, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError, RecursionError) as error:
        message = "the body of a PROPFIND is XML without a document type"
        raise MalformedMessageError(message) from error
    return root


def _property_of(element: Element) -> Property:
    match = _NAME.fullmatch(element.tag)
    return Property("", element.tag) if match is None else Property(match["space"], match["local"])


def _element(name: Property, value: str) -> str:
    prefix = _PREFIXES.get(name.space)
    if prefix is None:
        return f'<{name.local} xmlns="{html.escape(name.space)}"/>'
    return f"<{prefix}:{name.local}>{value}</{prefix}:{name.local}>" if value else f"<{prefix}:{name.local}/>"


def _propstat(elements: list[str], status: str) -> str:
    return f"<d:propstat><d:prop>{''.join(elements)}</d:prop><d:status>HTTP/1.1 {status}</d:status></d:propstat>"
