"""Names of queries and of series in query directories: what a user types, and what leads back to an LFN."""

from __future__ import annotations

import re
import urllib.parse
from typing import Final

from mdmfs.model.errors import MalformedNameError, MalformedQueryError
from mdmfs.model.names import MAX_NAME_BYTES, Lfn

_ESCAPES: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_JOIN: Final = "+"


def query_of(name: bytes) -> str:
    """Read the name of a query directory: the query, URL-quoted (RFC 3986 section 2.1) as far as one likes.

    At least ``/`` and ``%`` have to be quoted. Raises ``MalformedQueryError``.
    """
    if _ESCAPES.search(name):
        message = "in the name of a query % stands before two hexadecimal digits: write %25 for itself"
        raise MalformedQueryError(message)
    try:
        return urllib.parse.unquote_to_bytes(name).decode()
    except UnicodeDecodeError as error:
        message = "the name of a query is UTF-8, URL-quoted"
        raise MalformedQueryError(message) from error


def alias_of(lfn: Lfn) -> str:
    """Write an LFN as one name: its parts with ``+`` between them, in which ``%`` and ``+`` are URL-quoted.

    Raises ``MalformedNameError`` where that is longer than a name can be.
    """
    alias = _JOIN.join(part.replace("%", "%25").replace(_JOIN, "%2B") for part in lfn.parts)
    if len(alias.encode()) > MAX_NAME_BYTES:
        message = f"{lfn} is too long for one name"
        raise MalformedNameError(message)
    return alias


def lfn_of_alias(alias: bytes) -> Lfn:
    """Undo ``alias_of``; raises ``MalformedNameError`` for what it does not write."""
    try:
        text = alias.decode()
    except UnicodeDecodeError as error:
        message = "an alias is UTF-8"
        raise MalformedNameError(message) from error
    lfn = Lfn(tuple(part.replace("%2B", _JOIN).replace("%25", "%") for part in text.split(_JOIN)))
    if alias_of(lfn) != text:
        message = "this is the alias of nothing"
        raise MalformedNameError(message)
    return lfn


def target_of(lfn: Lfn, root: Lfn, depth: int) -> str:
    """Give where a symbolic link to a series leads, from a directory so deep below the mount's own.

    What the mount does not show is named whole: it may be mounted beside.
    """
    if not lfn.is_below(root):
        return str(lfn)
    return "/".join([*[".."] * depth, *lfn.parts[len(root.parts) :]])
