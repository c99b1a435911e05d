"""What the metadata store promises, the same on SQLite and on PostgreSQL."""

from __future__ import annotations

import pathlib
import random
import time
from collections.abc import Iterator

import msgspec
import pytest
import sqlalchemy as sa

from mdmfs.access.acl import Acl, Entry, EntryKind
from mdmfs.metadata.schema import Level
from mdmfs.metadata.store.about import stamp_rights
from mdmfs.metadata.store.collections import define
from mdmfs.metadata.store.compile import Compiler
from mdmfs.metadata.store.database import Database, open_database
from mdmfs.metadata.store.entries import forget, put_images, put_records, show_series
from mdmfs.metadata.store.finding import Known, Reader
from mdmfs.metadata.store.rights import set_acls
from mdmfs.metadata.store.tables import ABOUT, CLASSES, COLLECTIONS, IMAGES, METADATA, SERIES
from mdmfs.model.errors import BusyError, ConfigurationError, MalformedMessageError, MalformedQueryError, StoreError
from mdmfs.model.identity import Dn, Principal
from mdmfs.wire.messages import Outcome, VersionedAcl
from mdmfs.wire.metadata_messages import (
    AttributeEntry,
    DefineCollection,
    Find,
    FoundLevel,
    ImageEntry,
    PutImages,
    PutRecords,
    RecordEntry,
    Scalar,
    SeriesEntry,
)
from tests.twins.finding_check import hold_against_twin
from tests.twins.postgresql import new_database, running_postgresql
from tests.twins.random_metadata import change_an_acl, fill, random_metadata

READER = Principal(Dn.parse("/O=x/CN=reader"), (), 2e9)
STRANGER = Principal(Dn.parse("/O=x/CN=stranger"), (), 2e9)
NOW = 1e9
ROOT, OPEN, NARROW = (bytes([number]) * 16 for number in (1, 2, 3))
CHAIN = [[ROOT, OPEN]]
SUBJECT = "abcdefghijklmnop"
PATH = f"/grid/medical/amc/neuro/sub-{SUBJECT}/ses-2017/003-MR"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """One PostgreSQL for all tests of this file."""
    with running_postgresql() as url:
        yield url


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Each kind of database in turn; a new one takes PostgreSQL a second."""
    if request.param == "sqlite":
        opened = open_database(str(tmp_path_factory.mktemp("metadata", numbered=True) / "private" / "metadata.sqlite"))
        yield opened
        opened.close()
    else:
        with new_database(request.getfixturevalue("server")) as url:
            opened = open_database(url)
            yield opened
            opened.close()


@pytest.fixture
def database(shared: Database) -> Database:
    """Give a store in which nothing is but ACLs that say who may read."""
    shared.write_now(emptied)
    shared.write_now(lambda c: set_acls(c, [acl(ROOT), acl(OPEN), acl(NARROW, "/O=x/CN=nobody")]))
    return shared


KNOWN = Known()
"""One for all tests: what was read before a change must not count after it."""


def emptied(connection: sa.Connection) -> None:
    """Take everything out that a test before has put in."""
    for number in connection.execute(sa.select(COLLECTIONS.c.id)).scalars().all():
        connection.execute(sa.text(f"DROP TABLE records_{number}"))
    for table in METADATA.tables.values():
        if table is not ABOUT:
            connection.execute(table.delete())
    stamp_rights(connection)


def acl(acl_id: bytes, reader: str = "/O=x/CN=reader", version: int = 1) -> VersionedAcl:
    """Let one reader read and pass."""
    return VersionedAcl(acl_id, version, Acl("/O=x/CN=hospital", (Entry(EntryKind.USER, reader, 3),)).encode())


def images(
    number: int = 0, *, count: int = 2, path: str = PATH, chain: list[list[bytes]] = CHAIN, **attributes: Scalar
) -> PutImages:
    """Make a series of some images."""
    known = {"Project": "neuro", "Subject": SUBJECT, "Modality": "MR"} | {
        k: v for k, v in attributes.items() if v is not None
    }
    entries = [
        ImageEntry(
            bytes([number, one, *range(14)]),
            f"{one:04d}.dcm",
            7 + one,
            9,
            bytes(32),
            bytes(32),
            NOW,
            chain,
            {"InstanceNumber": one},
        )
        for one in range(count)
    ]
    return PutImages(SeriesEntry(path, chain, known), entries)


def registered(database: Database, message: PutImages) -> None:
    """Put a series and show it."""
    database.write_now(lambda c: put_images(c, message))
    database.write_now(lambda c: show_series(c, message.series.path, is_visible=True))


def found(
    database: Database, query: str, principal: Principal = READER, level: FoundLevel = FoundLevel.SERIES
) -> list[str]:
    """Ask, and check that counting gives the same number."""

    def ask(connection: sa.Connection) -> list[str]:
        reader = KNOWN.reader(connection, principal, NOW)
        page = reader.page(Find(query, level))
        assert reader.count(query, Level(level.value)) == len(page.paths)
        return page.paths

    return database.read_now(ask)


def defined(database: Database, attributes: dict[str, str], groups: dict[str, list[list[bytes]]] | None = None) -> None:
    """Define the collection ``followup``; a type may be followed by a group."""
    entries = [AttributeEntry(name, *kind.split()) for name, kind in attributes.items()]
    database.write_now(lambda c: define(c, DefineCollection("neuro", "followup", CHAIN, entries, groups or {})))


def recorded(database: Database, number: int, subject: str = SUBJECT, **values: str | float | bool) -> None:
    """Keep one record."""
    entry = RecordEntry(number.to_bytes(16), subject, values, b"k" * 16)
    database.write_now(lambda c: put_records(c, PutRecords("neuro", "followup", [entry])))


def test_a_series_is_found_once_it_is_shown_and_no_sooner(database: Database) -> None:
    """Half a registration is nothing that anybody finds."""
    database.write_now(lambda c: put_images(c, images()))
    assert found(database, "") == []
    database.write_now(lambda c: show_series(c, PATH, is_visible=True))
    assert found(database, 'Modality == "MR" and InstanceNumber == 1') == [PATH]
    assert found(database, "", level=FoundLevel.IMAGE) == [f"{PATH}/0000.dcm", f"{PATH}/0001.dcm"]
    assert found(database, "", STRANGER) == []
    database.write_now(lambda c: show_series(c, PATH, is_visible=False))
    assert found(database, "") == []


def test_everything_can_be_sent_again(database: Database) -> None:
    """A hospital that was killed sends the same once more."""
    for _ in range(2):
        registered(database, images())
        defined(database, {"Outcome": "text"})
        recorded(database, 1, Outcome="well")
    assert found(database, 'Outcome == "well"') == [PATH]
    assert database.read_now(lambda c: c.execute(sa.select(sa.func.count()).select_from(IMAGES)).scalar()) == 2


def test_what_was_unregistered_never_comes_back(database: Database) -> None:
    """Also where the same images are still under way; a series goes with its last image."""
    registered(database, images())
    guids = [image.guid for image in images().images]
    database.write_now(lambda c: forget(c, guids[:1]))
    assert found(database, "", level=FoundLevel.IMAGE) == [f"{PATH}/0001.dcm"]
    database.write_now(lambda c: forget(c, guids))
    registered(database, images())
    assert found(database, "") == []
    assert database.read_now(lambda c: c.execute(sa.select(sa.func.count()).select_from(SERIES)).scalar()) == 0


def test_images_rendered_anew_take_the_places_of_the_old_ones_all_at_once(database: Database) -> None:
    """As on the mounts: nobody finds the new ones before they are shown, and no old one afterwards."""
    registered(database, images())
    fresh = [
        msgspec.structs.replace(one, guid=bytes([99, *one.guid[1:]]), registered=NOW + 1, attributes={"EchoTime": 3.0})
        for one in images().images
    ]
    message = PutImages(images().series, fresh)
    database.write_now(lambda c: put_images(c, message))
    assert found(database, "EchoTime == 3", level=FoundLevel.IMAGE) == []
    assert len(found(database, "", level=FoundLevel.IMAGE)) == 2
    database.write_now(lambda c: show_series(c, PATH, is_visible=True))
    assert found(database, "EchoTime == 3", level=FoundLevel.IMAGE) == [f"{PATH}/0000.dcm", f"{PATH}/0001.dcm"]
    assert found(database, "", level=FoundLevel.IMAGE) == [f"{PATH}/0000.dcm", f"{PATH}/0001.dcm"]


def test_the_end_of_a_key_takes_its_records_away(database: Database) -> None:
    """A subject that was withdrawn has no rows, and gets none again."""
    registered(database, images())
    defined(database, {"Outcome": "text"})
    recorded(database, 1, Outcome="well")
    database.write_now(lambda c: forget(c, [b"k" * 16]))
    recorded(database, 1, Outcome="well")
    assert found(database, 'Outcome == "well"') == []


def test_a_later_version_of_an_acl_counts_and_an_earlier_one_does_not(database: Database) -> None:
    """For what is there already, and without touching it."""
    registered(database, images())
    assert database.write_now(lambda c: set_acls(c, [acl(OPEN, "/O=x/CN=nobody", 3)])) == [Outcome.DONE]
    assert found(database, "") == []
    assert database.write_now(lambda c: set_acls(c, [acl(OPEN, version=2)])) == [Outcome.CONFLICT]
    assert found(database, "") == []
    assert database.write_now(lambda c: set_acls(c, [acl(OPEN, version=4)])) == [Outcome.DONE]
    assert found(database, "") == [PATH]


def test_one_series_can_be_taken_from_many_by_its_own_acl(database: Database) -> None:
    """Those that said the same until then stay as they were."""
    own = [bytes([50 + number]) * 16 for number in range(5)]
    database.write_now(lambda c: set_acls(c, [acl(one) for one in own]))
    for number, acl_id in enumerate(own):
        registered(database, images(number, path=f"{PATH}-{number}", chain=[[ROOT, acl_id]]))
    database.write_now(lambda c: set_acls(c, [acl(own[2], "/O=x/CN=stranger", 2)]))
    assert found(database, "") == [f"{PATH}-{number}" for number in (0, 1, 3, 4)]
    database.write_now(lambda c: set_acls(c, [acl(ROOT, "/O=x/CN=stranger", 2)]))
    assert (found(database, ""), found(database, "", STRANGER)) == ([], [f"{PATH}-2"])


def test_a_change_above_many_series_writes_no_row_of_theirs(database: Database) -> None:
    """Their class changes in place, however many they are."""
    for number in range(20):
        registered(database, images(number, path=f"{PATH}-{number}"))
    before = database.read_now(lambda c: c.execute(sa.select(SERIES.c["class"]).distinct()).scalars().all())
    database.write_now(lambda c: set_acls(c, [acl(ROOT, "/O=x/CN=stranger", 2)]))
    assert database.read_now(lambda c: c.execute(sa.select(SERIES.c["class"]).distinct()).scalars().all()) == before
    assert found(database, "") == []


def test_one_image_with_an_acl_of_its_own_is_found_by_nobody_else(database: Database) -> None:
    """Not by itself, and not through its series."""
    message = images()
    narrow = ImageEntry(
        *(
            getattr(message.images[1], name)
            for name in ("guid", "name", "inode", "size", "sha256", "policy", "registered")
        ),
        [[ROOT, NARROW]],
        {"InstanceNumber": 99},
    )
    registered(database, PutImages(message.series, [message.images[0], narrow]))
    assert found(database, "InstanceNumber == 99") == []
    assert found(database, "not InstanceNumber == 99") == [PATH]
    assert found(database, "", level=FoundLevel.IMAGE) == [f"{PATH}/0000.dcm"]


def test_an_acl_under_the_guid_of_an_image_counts_in_place_of_the_shared_one(database: Database) -> None:
    """Whether it is told before the image or after it, and when the image is sent again."""
    message = images()
    early, late = (VersionedAcl(image.guid, 2, acl(ROOT, "/O=x/CN=other").acl) for image in message.images)
    database.write_now(lambda c: set_acls(c, [early]))
    registered(database, message)
    assert found(database, "", level=FoundLevel.IMAGE) == [f"{PATH}/0001.dcm"]
    database.write_now(lambda c: set_acls(c, [late]))
    assert found(database, "", level=FoundLevel.IMAGE) == []
    registered(database, message)
    assert found(database, "", level=FoundLevel.IMAGE) == []
    database.write_now(lambda c: set_acls(c, [VersionedAcl(late.id, 3, acl(ROOT).acl)]))
    assert found(database, "", level=FoundLevel.IMAGE) == [f"{PATH}/0001.dcm"]


def test_a_schema_changes_while_records_are_there(database: Database) -> None:
    """What is added is missing in what was there, what is dropped is gone, what has a type keeps it."""
    registered(database, images())
    defined(database, {"Outcome": "text", "Score": "integer"})
    recorded(database, 1, Outcome="well", Score=3)
    defined(database, {"Outcome": "text", "Seen": "date"})
    assert found(database, 'Outcome == "well" and Seen is missing') == [PATH]
    with pytest.raises(MalformedQueryError, match="no attribute Score"):
        found(database, "Score == 3")
    with pytest.raises(MalformedMessageError, match="of type text already"):
        defined(database, {"Outcome": "integer", "Seen": "date"})
    recorded(database, 1, Outcome="well", Seen="2020-02-29")
    assert found(database, "Seen == date(2020-02-29)") == [PATH]
    defined(database, {"Seen": "date"})
    defined(database, {"Seen": "date", "Outcome": "integer"})
    assert found(database, "Outcome is missing") == [PATH]


def test_an_attribute_group_hides_its_attributes_and_nothing_else(database: Database) -> None:
    """To one who may not read the group they are as if they were not there."""
    registered(database, images())
    defined(database, {"Outcome": "text", "Score": "integer narrow"}, {"narrow": [[ROOT, OPEN, NARROW]]})
    recorded(database, 1, Outcome="well", Score=3)
    assert found(database, 'Outcome == "well"') == [PATH]
    unknown = []
    for name in ("Score", "Scorf"):
        with pytest.raises(MalformedQueryError) as refused:
            found(database, f"{name} == 3")
        unknown.append(str(refused.value).replace(name, "NAME"))
    assert unknown[0] == unknown[1]


UNFIT: list[dict[str, str]] = [
    {"Modality": "text"},
    {"a b": "text"},
    {"Äpfel": "text"},
    {'x"; drop table series; --': "text"},
    {"Outcome": "blob"},
    {"Outcome": "text nowhere"},
    {"Remark": "note narrow"},
    {"x" * 65: "text"},
]


def test_a_schema_that_cannot_be_is_refused_and_nothing_of_it_is_made(database: Database) -> None:
    """Names never become part of a statement, and need no escaping."""
    for attributes in UNFIT:
        with pytest.raises(MalformedMessageError):
            defined(database, attributes, {"narrow": CHAIN})
        with pytest.raises(MalformedMessageError, match="no such collection"):
            recorded(database, 1)


MISFITS: list[dict[str, str | float | bool]] = [
    {"Outcome": 1},
    {"Outcome": "x" * 1025},
    {"Outcome": "a\0b"},
    {"Score": "1"},
    {"Score": True},
    {"Score": 2**60},
    {"Score": 1.5},
    {"Grade": float("nan")},
    {"Grade": float("inf")},
    {"Seen": "2020-02-30"},
    {"Seen": "20200229"},
    {"Dead": 1},
    {"Nothing": 1},
]


def test_a_value_of_another_type_is_refused_and_named(database: Database) -> None:
    """By the attribute, never by the value; nothing of the batch is kept."""
    defined(database, {"Outcome": "text", "Score": "integer", "Grade": "number", "Seen": "date", "Dead": "boolean"})
    for values in MISFITS:
        with pytest.raises(MalformedMessageError, match=next(iter(values))) as refused:
            recorded(database, 1, **values)
        assert "a\0b" not in str(refused.value)


INJECTIONS = [
    "' or '1'='1",
    "'; drop table series; --",
    '" or ""="',
    "') union select null,null from acls --",
    "1 and sleep(5)",
    "%' and 1=(select count(*) from acls) and '%'='",
    "\\'; select pg_sleep(10); --",
    "admin'/*",
    "${jndi:ldap://x}",
    ":k0",
    "%(k0)s",
    "$1",
    "{}",
    "?",
    "\u2019 or 1=1",
    "char(39)||char(39)",
    "\U0001f9e0\u202e\u0000"[:2],
]


def test_what_is_written_in_a_text_is_compared_and_never_run(database: Database) -> None:
    """The corpus of injections: each finds the series whose description it is, and no other."""
    for number, text in enumerate(INJECTIONS):
        registered(database, images(number, path=f"{PATH}-{number:02d}", SeriesDescription=text))
    for number, text in enumerate(INJECTIONS):
        written = text.replace("\\", "\\\\").replace('"', '\\"')
        for query in (f'SeriesDescription == "{written}"', f'SeriesDescription in ("{written}")'):
            assert found(database, query) == [f"{PATH}-{number:02d}"]
        assert len(found(database, f'SeriesDescription != "{written}"')) == len(INJECTIONS) - 1


def test_patterns_that_go_back_and_forth_end_soon(database: Database) -> None:
    """Wildcards are few, and texts are short."""
    registered(database, images(SeriesDescription="a" * 1024))
    begun = time.process_time()
    assert found(database, 'SeriesDescription like "' + "%a" * 8 + 'b"') == []
    assert found(database, 'SeriesDescription like "' + "a_" * 400 + '%%%%%%%b"') == []
    assert time.process_time() - begun < 2


def test_a_question_that_takes_too_long_is_ended(database: Database) -> None:
    """And the connection is good for the next one."""
    slow = sa.text(
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < 100000000) select count(*) from n"
    )
    with pytest.raises(BusyError, match="longer"):
        database.read_now(lambda c: c.execute(slow).scalar(), 0.2)
    assert found(database, "") == []


def test_an_error_of_the_database_tells_no_value(database: Database) -> None:
    """Statement and parameters stay inside."""
    with pytest.raises(StoreError) as failed:
        database.read_now(lambda c: c.execute(sa.text("select * from secret_subject where x = :x"), {"x": "secret"}))
    assert "secret" not in str(failed.value)


def test_a_database_of_another_format_is_not_touched(tmp_path: pathlib.Path) -> None:
    """Whoever wrote it knows what it means."""
    where = str(tmp_path / "private" / "metadata.sqlite")
    opened = open_database(where)
    opened.write_now(lambda c: c.execute(ABOUT.update().values(value=b"99")))
    opened.close()
    with pytest.raises(StoreError, match=r"metadata\.sqlite is .* format 99"):
        open_database(where)


def test_others_may_not_enter_where_records_lie(tmp_path: pathlib.Path) -> None:
    """The folder must be private."""
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(ConfigurationError, match="chmod 700"):
        open_database(str(tmp_path / "open" / "metadata.sqlite"))
    with pytest.raises(ConfigurationError, match="postgresql://"):
        open_database("mysql://x/y")


@pytest.mark.parametrize("seed", [1, 2])
def test_nobody_finds_what_he_may_not_read(database: Database, seed: int) -> None:
    """Filtering first and asking afterwards gives the same rows, counts, order and errors, for random rights.

    A hundredth of what ``./run bench rights`` does.
    """
    database.write_now(emptied)
    draw = random.Random(f"store/{seed}")  # noqa: S311 a seed
    twin = random_metadata(draw)
    fill(database, twin, draw, in_halves=seed == 2)
    found = 0
    for number in range(25):
        if number % 5 == 4:
            change_an_acl(database, twin, draw)
        found += hold_against_twin(database, twin, draw)
    assert found > 3


def test_rights_of_many_kinds_are_one_parameter(database: Database) -> None:
    """More classes than a statement may have parameters."""
    numbers = list(range(1, 70_000))

    def count(connection: sa.Connection) -> int:
        schema = KNOWN.reader(connection, READER, NOW).schema
        return Reader(connection, schema, Compiler(numbers, schema, database.dialect)).count("", Level.SERIES)

    assert database.read_now(count) == 0
    assert database.read_now(lambda c: c.execute(sa.select(sa.func.count()).select_from(CLASSES)).scalar()) == 0
