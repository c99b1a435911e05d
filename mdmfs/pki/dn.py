"""A DN from the DER of a certificate: by the attributes themselves, never through a printed form."""

from __future__ import annotations

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
