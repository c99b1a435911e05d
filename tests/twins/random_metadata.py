"""Random metadata, rights and queries, for the property that nobody finds what he may not read."""

# ruff: noqa: S311 what is drawn here is drawn again from the same seed

from __future__ import annotations

import datetime as dt
import itertools
import random
from collections.abc import Iterator

from mdmfs.access.acl import Acl, Entry, EntryKind
from mdmfs.metadata.store.collections import define
from mdmfs.metadata.store.database import Database
from mdmfs.metadata.store.entries import put_records
from mdmfs.metadata.store.images import put_images, show_series
from mdmfs.metadata.store.rights import set_acls
from mdmfs.model.identity import Dn, Fqan, Principal
from mdmfs.model.names import Guid
from mdmfs.model.subject import SubjectId
from mdmfs.wire.messages.keystores import VersionedAcl
from mdmfs.wire.messages.metadata import (
    AttributeEntry,
    DefineCollection,
    ImageEntry,
    PutImages,
    PutRecords,
    RecordEntry,
    SeriesEntry,
)
from tests.twins.finding import TwinMetadata, TwinRecord, TwinSeries

DNS = [f"/O=x/CN={letter}" for letter in "abcd"]
_VERSIONS = itertools.count(3)
FQANS = ["/v", "/v/g", "/v/Role=r"]
TEXTS = ["MR", "CT", "mr", "", "glioma", "glioma IV", "Gliom%", "ÄÖ", "a_b", "\U0001f9e0", "a\\b"]
PATTERNS = ["glioma%", "%", "_R", "%\\\\%%", "\\\\_%", "%Ö", "g%a%", "%a_b%", ""]
DAYS = [dt.date(2020, 1, 1), dt.date(2024, 2, 29), dt.date(1999, 12, 31)]
NUMBERS = [0, 1, 60, 65, -3, 2.5]
NOW = 1000.0
SERIES_ATTRIBUTES = {
    "Modality": "text",
    "ProtocolName": "text",
    "StudyDate": "date",
    "Age": "integer",
    "SliceThickness": "number",
}
IMAGE_ATTRIBUTES = {"InstanceNumber": "integer", "ImageType": "text", "EchoTime": "number"}
COLLECTIONS = {
    "followup": {"Outcome": "text", "Dead": "boolean", "Seen": "date", "Score": "integer"},
    "diagnoses": {"Diagnosis": "text", "Grade": "number", "Score2": "integer"},
    "diagnoses.rare": {"Gene": "text", "Carrier": "boolean"},
    "diagnoses.rare.trial": {"Arm": "integer"},
    "diagnoses.common": {"Since": "date"},
}
"""Of each its own attributes; it has those of the collections above, too."""
PROJECTS = ("neuro", "onco")
GROUPED = {"Score", "Grade", "Gene"}


def homes(collection: str) -> list[str]:
    """Name a collection and those above it."""
    return [one for one in COLLECTIONS if f"{collection}.".startswith(f"{one}.")]


def attributes_of(collection: str) -> dict[str, str]:
    """Give the types of all that a collection has."""
    return {name: kind for one in homes(collection) for name, kind in COLLECTIONS[one].items()}


def value_of(kind: str, draw: random.Random) -> str | int | float | bool | dt.date | None:
    """Draw a value of a type, or none."""
    if draw.random() < 0.2:
        return None
    match kind:
        case "text":
            return draw.choice(TEXTS)
        case "date":
            return draw.choice(DAYS)
        case "boolean":
            return draw.random() < 0.5
        case "integer":
            return int(draw.choice(NUMBERS))
        case _:
            return float(draw.choice(NUMBERS))


def random_acl(draw: random.Random) -> Acl:
    """Draw an ACL that lets some in and others not."""
    entries = [
        Entry(EntryKind.USER, dn, draw.choice([0, 1, 2, 3]), draw.choice([None, None, NOW - 1, NOW + 1]))
        for dn in DNS
        if draw.random() < 0.3
    ]
    entries += [Entry(EntryKind.GROUP, fqan, draw.choice([0, 1, 3, 3])) for fqan in FQANS if draw.random() < 0.3]
    entries += [
        Entry(kind, "", draw.choice([0, 1, 3, 3, 3]))
        for kind in (EntryKind.OTHER, EntryKind.OWNER)
        if draw.random() < 0.7
    ]
    if draw.random() < 0.1:
        entries.append(Entry(EntryKind.MASK, "", draw.choice([1, 2, 3])))
    return Acl(draw.choice(DNS), tuple(entries))


def random_principal(draw: random.Random) -> Principal:
    """Draw a caller."""
    fqans = tuple(Fqan.parse(fqan) for fqan in FQANS if draw.random() < 0.3)
    return Principal(
        Dn.parse(draw.choice(DNS)),
        fqans,
        draw.choice([NOW + 10, NOW + 10, NOW + 10, NOW]) if draw.random() < 0.1 else NOW + 10,
    )


def random_metadata(draw: random.Random, *, series: int = 12, records: int = 25) -> TwinMetadata:
    """Draw a small hospital."""
    acls = [random_acl(draw) for _ in range(10)]

    def chain() -> tuple[int, ...]:
        return tuple(draw.randrange(10) for _ in range(draw.choice([1, 1, 2, 3])))

    subjects = {project: [SubjectId.from_random(draw.randbytes(10)).text for _ in range(4)] for project in PROJECTS}
    found = []
    for number in range(series):
        project = draw.choice(PROJECTS)
        subject = draw.choice(subjects[project])
        values = {name: value_of(kind, draw) for name, kind in SERIES_ATTRIBUTES.items()}
        above = chain()
        images = [
            (
                f"{count:04d}.dcm",
                {name: value_of(kind, draw) for name, kind in IMAGE_ATTRIBUTES.items()},
                above if draw.random() < 0.7 else chain(),
            )
            for count in range(draw.randrange(1, 4))
        ]
        session = f"ses-{draw.choice('äbc')}"
        path = f"/grid/medical/amc/{project}/sub-{subject}/{session}/{number:03d}-MR"
        found.append(
            TwinSeries(
                path,
                {"Project": project, "Subject": subject, "Session": session, **values},
                above,
                images,
                draw.random() < 0.9,
            )
        )
    collections = {(project, name): chain() for project in PROJECTS for name in COLLECTIONS}
    groups = {
        (project, name, "narrow"): (chain(), GROUPED & set(attributes))
        for project in PROJECTS
        for name, attributes in COLLECTIONS.items()
    }
    kept = []
    for number in range(records):
        project, name = draw.choice(list(collections))
        values = {one: value_of(kind, draw) for one, kind in attributes_of(name).items()}
        above = collections[project, name] if draw.random() < 0.7 else chain()
        kept.append(TwinRecord(project, name, draw.choice(subjects[project]), values, above, number))
    types = dict.fromkeys(SERIES_ATTRIBUTES, "series") | dict.fromkeys(IMAGE_ATTRIBUTES, "image")
    types |= {"Project": "series", "Subject": "series"}
    types |= {f"{along}.{name}": along for along in ("study", "subject") for name in SERIES_ATTRIBUTES}
    types |= {one: name for name, attributes in COLLECTIONS.items() for one in attributes}
    types |= {f"{name}.{one}": name for name in COLLECTIONS for one in attributes_of(name)}
    attributes = {(project, name): COLLECTIONS[name] for project, name in collections}
    return TwinMetadata(acls, found, kept, collections, attributes, groups, types)


def fill(database: Database, twin: TwinMetadata, draw: random.Random, *, in_halves: bool = False) -> None:
    """Bring the same into a database, as a hospital does; ACLs before, between and after the entries."""

    def fill_all(connection: object) -> None:
        known = [VersionedAcl(number.to_bytes(16), 2, acl.encode()) for number, acl in enumerate(twin.acls)]
        early = [VersionedAcl(one.id, 1, random_acl(draw).encode()) for one in known]
        set_acls(connection, early[:: 2 if in_halves else 1])  # type: ignore[arg-type]
        set_acls(connection, known[::3])  # type: ignore[arg-type]
        for series in twin.series:
            put_images(connection, images_message(series))  # type: ignore[arg-type]
            show_series(connection, series.path, is_visible=True)  # type: ignore[arg-type]
            show_series(connection, series.path, is_visible=series.is_visible)  # type: ignore[arg-type]
        for (project, name), chain in twin.collections.items():
            group, members = twin.groups[project, name, "narrow"]
            attributes = [
                AttributeEntry(one, kind, "narrow" if one in members else "")
                for one, kind in twin.attributes[project, name].items()
            ]
            define(connection, DefineCollection(project, name, named(chain), attributes, {"narrow": named(group)}))  # type: ignore[arg-type]
        for record in twin.records:
            entry = record_entry(record)
            put_records(connection, PutRecords(record.project, record.collection, [entry]))  # type: ignore[arg-type]
        set_acls(connection, known)  # type: ignore[arg-type]

    database.write_now(fill_all)


def change_an_acl(database: Database, twin: TwinMetadata, draw: random.Random) -> None:
    """Let one ACL say something else from now on, in both."""
    number = draw.randrange(len(twin.acls))
    twin.acls[number] = random_acl(draw)
    version = next(_VERSIONS)
    told = VersionedAcl(number.to_bytes(16), version, twin.acls[number].encode())
    database.write_now(lambda c: set_acls(c, [told]))


def named(chain: tuple[int, ...]) -> list[list[bytes]]:
    """Name a chain of ACLs by their ids."""
    return [[number.to_bytes(16) for number in chain]]


def guid_of(path: str, name: str) -> bytes:
    """Give an image of a series the same GUID in every hospital."""
    return Guid.from_random(random.Random(f"{path}/{name}").randbytes(16)).octets


def images_message(series: TwinSeries) -> PutImages:
    """Say it as a hospital does."""
    entry = SeriesEntry(series.path, named(series.chain), on_wire(series.values))
    images = [
        ImageEntry(guid_of(series.path, name), name, 1, 1, bytes(32), bytes(32), named(chain), on_wire(values))
        for name, values, chain in series.images
    ]
    return PutImages(entry, images)


def record_entry(record: TwinRecord) -> RecordEntry:
    """Say it as a hospital does."""
    chain = tuple(tuple(one) for one in named(record.chain))
    return RecordEntry(record.number.to_bytes(16), record.subject, on_wire(record.values), bytes(16), b"", chain)


def on_wire(values: dict[str, object]) -> dict[str, str | int | float | bool]:
    """Write values as they travel."""
    return {k: v.isoformat() if isinstance(v, dt.date) else v for k, v in values.items() if v is not None}  # type: ignore[misc]


def random_query(draw: random.Random, *, images: bool) -> str:
    """Draw a query that the schema of a caller with every right allows."""
    text = random_condition(draw, draw.choice([0, 1, 2, 3])) if draw.random() < 0.95 else ""
    sortable = [*SERIES_ATTRIBUTES, "Subject", *(IMAGE_ATTRIBUTES if images else ())]
    keys = draw.sample(sortable, draw.choice([0, 0, 1, 2]))
    if keys:
        text += " order by " + ", ".join(key + draw.choice(["", " asc", " desc"]) for key in keys)
    return text + (f" limit {draw.randrange(1, 8)}" if draw.random() < 0.2 else "")


def random_condition(draw: random.Random, depth: int) -> str:
    """Draw a condition."""
    if depth == 0:
        return random_test(draw)
    match draw.randrange(5):
        case 0:
            return f"not ({random_condition(draw, depth - 1)})"
        case 1 | 2:
            return " and ".join(f"({random_condition(draw, depth - 1)})" for _ in range(draw.randrange(2, 4)))
        case _:
            return " or ".join(f"({random_condition(draw, depth - 1)})" for _ in range(2))


def random_test(draw: random.Random) -> str:
    """Draw a test of any attribute."""
    own = itertools.chain.from_iterable(attributes.items() for attributes in COLLECTIONS.values())
    below = ((f"{name}.{one}", kind) for name in COLLECTIONS for one, kind in attributes_of(name).items())
    series = [*SERIES_ATTRIBUTES.items()]
    others = [(f"{along}.{name}", kind) for along in ("study", "subject") for name, kind in series]
    name, kind = draw.choice(draw.choice([series, series, others, [*IMAGE_ATTRIBUTES.items()], [*own], [*below]]))
    if draw.random() < 0.1:
        return f"{name} is {draw.choice(['', 'not '])}missing"
    if kind == "text" and draw.random() < 0.3:
        return f'{name} like "{draw.choice(PATTERNS)}"'
    if draw.random() < 0.15:
        return f"{name} in ({', '.join(written(kind, draw) for _ in range(draw.randrange(1, 4)))})"
    signs = ["==", "!="] if kind == "boolean" else ["==", "!=", "<", "<=", ">", ">="]
    return f"{name} {draw.choice(signs)} {written(kind, draw)}"


def written(kind: str, draw: random.Random) -> str:
    """Draw a literal."""
    match kind:
        case "text":
            return '"' + draw.choice(TEXTS).replace("\\", "\\\\") + '"'
        case "date":
            return f"date({draw.choice(DAYS)})"
        case "boolean":
            return draw.choice(["true", "false"])
        case _:
            return str(draw.choice(NUMBERS))


def pairs(seed: int, count: int) -> Iterator[tuple[random.Random, int]]:
    """Give a source of randomness for each pair of rights and query."""
    for number in range(count):
        yield random.Random(f"{seed}/{number}"), number
