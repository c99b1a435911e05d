"""A DN from the DER of a certificate: by the attributes themselves, never through a printed form.

Grid files (``.lsc``, ``.signing_policy``) hold names in the form that OpenSSL prints; they are read here too.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Final

from asn1crypto import parser, x509

from mdmfs.model.errors import MalformedNameError
from mdmfs.model.identity import Ava, Dn

_UNIVERSAL: Final = 0
_PRIMITIVE: Final = 0
_CODECS: Final = {
    12: "utf-8",  # UTF8String
    19: "ascii",  # PrintableString
    20: "ascii",  # TeletexString: beyond ASCII nobody agrees on what its bytes mean
    22: "ascii",  # IA5String
    28: "utf-32-be",  # UniversalString
    30: "utf-16-be",  # BMPString
}
_ESCAPED_OCTET: Final = re.compile(rb"\\x([0-9A-Fa-f]{2})")


def dn_of(name: x509.Name) -> Dn:
    """Read an X.501 name; raises ``MalformedNameError`` for one that is empty or whose values are not plain text.

    A NUL is refused: what compares names as C strings would end there.
    """
    return Dn(tuple(tuple(_ava(attribute) for attribute in rdn) for rdn in name.chosen))


def _ava(attribute: x509.NameTypeAndValue) -> Ava:
    kind = attribute["type"].dotted
    where, method, tag, _, contents, _ = parser.parse(attribute["value"].dump(), strict=True)
    if (where, method) != (_UNIVERSAL, _PRIMITIVE) or tag not in _CODECS:
        message = f"the attribute {kind} of a certificate's name is no string"
        raise MalformedNameError(message)
    try:
        text = contents.decode(_CODECS[tag])
    except UnicodeError as error:
        message = f"the attribute {kind} of a certificate's name is not in its string type's characters"
        raise MalformedNameError(message) from error
    if "\x00" in text:
        message = f"the attribute {kind} of a certificate's name holds a NUL"
        raise MalformedNameError(message)
    return kind, text


def dn_of_oneline(text: str) -> Dn:
    """Read a name as ``X509_NAME_oneline`` prints it; raises ``MalformedNameError``.

    A ``/`` divides where a known attribute type and ``=`` follow it, and is part of the value elsewhere
    (``/CN=host/a.b`` is one CN). So a name with ``/CN=`` inside a value cannot be written in this form, and a
    certificate of such a name matches no line.
    """
    if not text.startswith("/"):
        message = "a name in a grid file begins with a slash"
        raise MalformedNameError(message)
    return Dn(tuple(((kind, value),) for kind, value in avas_of_oneline(text)))


def avas_of_oneline(text: str) -> Iterator[Ava]:
    """Give the attributes of a name, or of the beginning of one, in OpenSSL's form; their types are canonical.

    What stands before the first attribute comes with an empty type. Raises ``MalformedNameError`` where it is no UTF-8.
    """
    kind, value = "", ""
    for piece in text[1:].split("/"):
        found, equals, rest = piece.partition("=")
        canonical = canonical_type(found) if equals else None
        if canonical is None:
            value = f"{value}/{piece}" if kind or value else piece
            continue
        if kind or value:
            yield kind, _without_escapes(value)
        kind, value = canonical, rest
    yield kind, _without_escapes(value)


@functools.lru_cache(maxsize=256)
def canonical_type(text: str) -> str | None:
    """Give the canonical spelling of an attribute type, or None where it is not one that a DN can have."""
    try:
        return Dn((((text, "x"),),)).rdns[0][0][0]
    except MalformedNameError:
        return None


def _without_escapes(value: str) -> str:
    r"""Undo the ``\xC3`` that OpenSSL prints for octets beyond printable ASCII."""
    octets = _ESCAPED_OCTET.sub(lambda match: bytes.fromhex(match[1].decode()), value.encode())
    try:
        return octets.decode()
    except UnicodeDecodeError as error:
        message = "a name in a grid file has escaped octets that are not UTF-8"
        raise MalformedNameError(message) from error
