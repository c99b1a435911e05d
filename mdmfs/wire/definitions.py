"""What a collection of records may be defined as: said once, for the hospital as for its metadata service.

The hospital refuses what the service would: once a definition is on its way, all that follows waits behind it.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Final

from mdmfs.model.collection import MAX_DEPTH, NAME, above, is_collection_name, lies_within, lineage
from mdmfs.wire.messages.metadata import AttributeEntry, DefineCollection

MAX_COLLECTIONS: Final = 1000
"""Of one metadata service: each is a table."""
MAX_ATTRIBUTES: Final = 200
"""Of one collection, with those of the collections above it."""
RESERVED: Final = ("study", "subject")
"""No new collection begins like this: a query asks by these names about other series."""
PLAIN: Final = ("text", "integer", "number", "boolean", "date")
SEALED: Final = ("note", "attachment")

Known = Mapping[str, Mapping[str, str]]
"""Of each collection of a project, by its name, the types of its own attributes."""


def fault_of(wanted: DefineCollection, known: Known, reserved: Container[str]) -> str:
    """Say why a collection cannot be made or altered to this; empty where it can. ``reserved`` are names of images'."""
    return next(_faults(wanted, known, reserved), "")


def _faults(wanted: DefineCollection, known: Known, reserved: Container[str]) -> Iterator[str]:
    if not is_collection_name(wanted.name):
        yield f"{wanted.name[:80]!r} is no name of a collection: 1 to {MAX_DEPTH} words, dots between, {_WORD}"
    for name in (*wanted.groups, *(attribute.name for attribute in wanted.attributes)):
        if not NAME.fullmatch(name):
            yield f"{name[:80]!r} is no name: {_WORD}"
    if wanted.name.partition(".")[0] in RESERVED and wanted.name not in known:
        yield f"{wanted.name}: a series of the same {wanted.name.partition('.')[0]} is asked about like this"
    if above(wanted.name) and above(wanted.name) not in known:
        yield f"{wanted.name} lies in no collection: define {above(wanted.name)} first"
    for group in wanted.groups:
        if f"{wanted.name}.{group}" in known:
            yield f"the group {group} has the name of a collection below: call it otherwise"
    yield from _faults_of_attributes(wanted, reserved)
    yield from _faults_of_lines(wanted, known)


def _faults_of_attributes(wanted: DefineCollection, reserved: Container[str]) -> Iterator[str]:
    names = set[str]()
    for attribute in wanted.attributes:
        if attribute.name in names:
            yield f"{attribute.name} stands twice"
        if attribute.name in reserved:
            yield f"{attribute.name} is an attribute of images: call it otherwise"
        names.add(attribute.name)
        yield from _faults_of(attribute, wanted)


def _faults_of(attribute: AttributeEntry, wanted: DefineCollection) -> Iterator[str]:
    if attribute.type not in {*PLAIN, *SEALED}:
        yield f"{attribute.name} has no type {attribute.type[:32]!r}: {', '.join((*PLAIN, *SEALED))}"
    if attribute.group and attribute.group not in wanted.groups:
        yield f"{attribute.name} is of a group {attribute.group!r} that is not defined"
    if attribute.group and attribute.type in SEALED:
        yield f"{attribute.name} is sealed under the collection's rights: put it into a collection of its own"


def _faults_of_lines(wanted: DefineCollection, known: Known) -> Iterator[str]:
    """Hold attributes against those of the collection so far, of those above it, and of those below."""
    own = known.get(wanted.name, {})
    for attribute in wanted.attributes:
        if own.get(attribute.name, attribute.type) != attribute.type:
            yield f"{attribute.name} is of type {own[attribute.name]} already: drop it first, and add it again"
    inherited = {name: one for one in lineage(wanted.name)[:-1] for name in known.get(one, ())}
    below = [one for one in known if one != wanted.name and lies_within(one, wanted.name)]
    for attribute in wanted.attributes:
        if attribute.name in inherited:
            yield f"{attribute.name} comes from {inherited[attribute.name]}, as all its attributes: leave it out"
        for one in below:
            if attribute.name in known[one]:
                yield f"{attribute.name} is an attribute of {one}, below: drop it there first"
    for one in (wanted.name, *below):
        line = (set(known.get(name, ())) for name in lineage(one) if name != wanted.name)
        if len(wanted.attributes) + sum(map(len, line)) > MAX_ATTRIBUTES:
            yield f"a collection has at most {MAX_ATTRIBUTES} attributes, with those from above: {one} would have more"


_WORD: Final = "a letter, then letters, digits and _, at most 64 in all"
