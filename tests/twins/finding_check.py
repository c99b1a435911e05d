"""Holds the store against the twin: pages, counts and errors, for random rights and queries."""

from __future__ import annotations

import random
from typing import Final

import msgspec

from mdmfs.metadata.query.parse import parse
from mdmfs.metadata.query.syntax import And, Condition, Not, Or, Query, Test
from mdmfs.metadata.schema import Level
from mdmfs.metadata.store.database import Database
from mdmfs.metadata.store.finding import Known, Reader
from mdmfs.model.errors import MalformedQueryError
from mdmfs.model.identity import Principal
from mdmfs.wire.messages.metadata import Find, FoundLevel
from tests.twins.finding import TwinMetadata
from tests.twins.random_metadata import COLLECTIONS, NOW, homes, random_principal, random_query

MAX_PAGES: Final = 200
KNOWN: Final = Known()
"""As in a service: what was read before a change must not count after it."""


def hold_against_twin(database: Database, twin: TwinMetadata, draw: random.Random) -> bool:
    """Ask both one random question as one random caller; tells whether it was one that finds something."""
    images = draw.random() < 0.4
    text, principal = random_query(draw, images=images), random_principal(draw)
    query = parse(text)
    assert parse(str(query)) == query, text
    hidden = hidden_names(query, twin, principal)

    def ask(connection: object) -> tuple[list[str], int]:
        reader = KNOWN.reader(connection, principal, NOW)  # type: ignore[arg-type]
        return paged(reader, text, images=images, size=draw.choice([1, 2, 3, 100])), reader.count(
            text, Level.IMAGE if images else Level.SERIES
        )

    if hidden:
        refused = ""
        try:
            database.read_now(ask)
        except MalformedQueryError as error:
            refused = str(error)
        assert refused, (text, hidden)
        assert "there is no attribute" in refused, refused
        return False
    found, count = database.read_now(ask)
    wanted = twin.find(query, principal, NOW, images=images)
    assert found == wanted, (text, str(principal.dn), found, wanted)
    assert count == len(wanted), (text, count, wanted)
    return bool(wanted)


def paged(reader: Reader, text: str, *, images: bool, size: int) -> list[str]:
    """Go through all pages, and apply the limit as a client does."""
    found: list[str] = []
    asked = Find(text, FoundLevel.IMAGE if images else FoundLevel.SERIES, (), size)
    page = reader.page(asked)
    for number in range(MAX_PAGES):
        found += page.paths
        if page.is_last:
            break
        after = tuple(page.keys[-1])  # every other page with paths only: they are the same
        page = reader.page(msgspec.structs.replace(asked, after=after, is_bare=number % 2 == 0))
    assert len(set(found)) == len(found)
    return found[: page.limit]


def hidden_names(query: Query, twin: TwinMetadata, principal: Principal) -> list[str]:
    """Name the attributes of a query that its caller may not know of in any project."""
    view = twin.view(principal, NOW)
    hidden = []
    for name in {test.name.text for test in tests_of(query.condition)}:
        collection = twin.types[name]
        if collection in COLLECTIONS:
            last = name.rpartition(".")[2]
            known = [
                project
                for (project, named), chain in twin.collections.items()
                if f"{named}.".startswith(f"{collection}.")
                and view.may_read(chain)
                and _in_group(twin, view, project, named, last)
            ]
            hidden += [] if known else [name]
    return hidden


def _in_group(twin: TwinMetadata, view: object, project: str, collection: str, name: str) -> bool:
    groups = [twin.groups[project, one, "narrow"] for one in homes(collection)]
    return all(name not in members or view.may_read(chain) for chain, members in groups)  # type: ignore[attr-defined]


def tests_of(condition: Condition | None) -> list[Test]:
    """List every test of a condition."""
    match condition:
        case None:
            return []
        case Test():
            return [condition]
        case Not(operand):
            return tests_of(operand)
        case And(operands) | Or(operands):
            return [test for one in operands for test in tests_of(one)]
