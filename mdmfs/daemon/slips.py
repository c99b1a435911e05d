"""Slips in a configuration, told by the keys of the file and in TOML's words; and whose configuration a file is."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import inspect

_MARKS: Final = {
    "trust": "mount",
    "cache": "mount",
    "inclusion": "project",
    "attributes": "collection",
    "heads": "policy",
    "pacs": "hospital",
    "keystore": "keystore",
    "hospital": "hospital",
    "metadata": "metadata",
}
"""Keys that only one kind of configuration has, or none before it."""
_CALLED: Final = {"metadata": "metadata service"}
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*?)`(?: - at `\$\.?(.*)`)?")
_MISSING: Final = re.compile(r"Object missing required field `(.*?)`(?: - at `\$\.?(.*)`)?")
_ELSEWHERE: Final = re.compile(r"(.*) - at `\$\.?(.*)`")
_STEP: Final = re.compile(r"[^.\[\]]+|\[")
_WORDS: Final = {
    "object": "a table",
    "array": "a list",
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "date": "a date",
}


def kind_of(tables: Mapping[str, object]) -> str:
    """Tell whose configuration it is: mount, project, collection, policy, hospital, keystore, metadata; or nobody's."""
    return next((kind for mark, kind in _MARKS.items() if mark in tables), "")


def told(error: msgspec.ValidationError, kind: type, tables: Mapping[str, object]) -> str:
    """Say what is wrong in a file that was to be a ``kind``."""
    text = str(error)
    if match := _UNKNOWN.fullmatch(text):
        key, at = match[1], match[2] or ""
        near = [] if key in _MARKS else difflib.get_close_matches(key, _keys_at(kind, at), 1)
        other = "" if near else _other_kind(kind, tables)
        meant = near or ([] if other else _tables_with(key, kind))
        return f"there is no key {_path(at, key)}{other}" + (f"; did you mean {meant[0]}?" if meant else "")
    if match := _MISSING.fullmatch(text):
        return f"{_path(match[2] or '', match[1])} is missing{_other_kind(kind, tables)}"
    if match := _ELSEWHERE.fullmatch(text):
        what = re.sub(r"`(.*?)`", lambda word: _WORDS.get(word[1], word[1]), match[1])
        return f"{match[2]}: {what}{_choice(_type_at(kind, match[2]))}"
    return text


def _path(at: str, key: str) -> str:
    return f"{at}.{key}" if at else key


def _other_kind(kind: type, tables: Mapping[str, object]) -> str:
    """Say whose the file is, where it is another one's."""
    found = kind_of(tables)
    if not found or found == kind_of(dict.fromkeys(_keys_at(kind, ""))):
        return ""
    return f"; the file looks like that of a {_CALLED.get(found, found)}"


def _tables_with(key: str, kind: type) -> list[str]:
    """Name the tables where a key belongs that stands in another one."""
    return [_path(at, key) for at in _keys_at(kind, "") if key in _keys_at(kind, at)]


def _choice(found: inspect.Type) -> str:
    """Name the values that a key may have, where these are counted."""
    if isinstance(found, inspect.EnumType):
        values = [one.value for one in found.cls]
    elif isinstance(found, inspect.LiteralType):
        values = list(found.values)
    else:
        return ""
    return f"; it is one of {', '.join(map(repr, values))}"


def _keys_at(kind: type, at: str) -> list[str]:
    """Name the keys of a table."""
    return [field.encode_name for field in _table(_type_at(kind, at))]


def _type_at(kind: type, at: str) -> inspect.Type:
    """Tell what stands at a place, such as ``pacs[0].tls``, in a configuration of this kind."""
    found: inspect.Type = inspect.type_info(kind)
    for step in _STEP.findall(at):
        if step == "[":
            found = _item_of(found)
        elif not step.strip("0123456789."):
            continue
        else:
            found = next((field.type for field in _table(found) if field.encode_name == step), inspect.AnyType())
    return found


def _item_of(found: inspect.Type) -> inspect.Type:
    if isinstance(found, inspect.CollectionType):
        return found.item_type
    return found.value_type if isinstance(found, inspect.DictType) else inspect.AnyType()


def _table(found: inspect.Type) -> tuple[inspect.Field, ...]:
    """Give the fields of a table, also of one that may be left out."""
    kinds = found.types if isinstance(found, inspect.UnionType) else (found,)
    return next((one.fields for one in kinds if isinstance(one, inspect.StructType)), ())
