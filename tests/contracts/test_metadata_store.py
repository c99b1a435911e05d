"""What the metadata store promises, the same on SQLite and on PostgreSQL."""

from __future__ import annotations

import os
import pathlib
import random
import re
import threading
import time
from collections.abc import Callable, Iterator

import msgspec
import pytest
import sqlalchemy as sa

from mdmfs.access.acl import Acl, Entry, EntryKind
from mdmfs.metadata.schema import Level
from mdmfs.metadata.store.about import stamp_rights
from mdmfs.metadata.store.collections import define, record_tables
from mdmfs.metadata.store.compile import Compiler
from mdmfs.metadata.store.database import Database, open_database
from mdmfs.metadata.store.entries import forget, put_records
from mdmfs.metadata.store.finding import Known, Reader
from mdmfs.metadata.store.images import put_images, show_series
from mdmfs.metadata.store.records import records_of
from mdmfs.metadata.store.rights import set_acls
from mdmfs.metadata.store.snapshots import create, drop, frozen_page, frozen_series, snapshots_of
from mdmfs.metadata.store.tables import ABOUT, CLASSES, COLLECTIONS, IMAGES, METADATA, SERIES
from mdmfs.model.errors import BusyError, ConfigurationError, MalformedMessageError, MalformedQueryError, StoreError
from mdmfs.model.identity import Dn, Principal
from mdmfs.wire.messages.keystores import Outcome, VersionedAcl
from mdmfs.wire.messages.metadata import (
    AskFrozen,
    AskFrozenSeries,
    AskRecords,
    AttributeEntry,
    CreateSnapshot,
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
from tests.twins.attacks import attacks, queries, quoted
from tests.twins.finding_check import hold_against_twin
from tests.twins.metadata_work import nodes_of, plans_of, steps_of
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


def defined(
    database: Database,
    attributes: dict[str, str],
    groups: dict[str, list[list[bytes]]] | None = None,
    *,
    name: str = "followup",
    chain: list[list[bytes]] = CHAIN,
) -> None:
    """Define a collection; a type may be followed by a group."""
    entries = [AttributeEntry(one, *kind.split()) for one, kind in attributes.items()]
    database.write_now(lambda c: define(c, DefineCollection("neuro", name, chain, entries, groups or {})))


def recorded(
    database: Database,
    number: int,
    subject: str = SUBJECT,
    collection: str = "followup",
    **values: str | float | bool,
) -> None:
    """Keep one record."""
    entry = RecordEntry(number.to_bytes(16), subject, values, b"k" * 16)
    database.write_now(lambda c: put_records(c, PutRecords("neuro", collection, [entry])))


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


def test_an_image_that_is_hidden_is_not_found_with_its_series_until_that_is_shown_with_it(database: Database) -> None:
    """Also where it was shown before."""
    message = images()
    guid = message.images[0].guid
    for hidden, there in (([], (0, 1)), ([guid], (1,)), ([guid], (1,)), ([], (0, 1))):
        database.write_now(lambda c: put_images(c, message))
        database.write_now(lambda c, gone=hidden: show_series(c, PATH, is_visible=True, hidden=gone))  # type: ignore[misc]
        assert found(database, "", level=FoundLevel.IMAGE) == [f"{PATH}/000{number}.dcm" for number in there]


def test_everything_can_be_sent_again(database: Database) -> None:
    """A hospital that was killed sends the same once more."""
    for _ in range(2):
        registered(database, images())
        defined(database, {"Outcome": "text"})
        recorded(database, 1, Outcome="well")
    assert found(database, 'Outcome == "well"') == [PATH]
    assert database.read_now(lambda c: c.execute(sa.select(sa.func.count()).select_from(IMAGES)).scalar()) == 2


def test_a_series_is_known_by_its_first_image_whether_told_with_others_or_by_itself(database: Database) -> None:
    """And by the latest ACLs above it."""
    first, second = images(Rows=256), images(1, Rows=512)
    database.write_now(lambda c: put_images(c, first, second))
    database.write_now(lambda c: show_series(c, PATH, is_visible=True))
    assert (found(database, "Rows == 256"), found(database, "Rows == 512")) == ([PATH], [])


def test_a_question_that_looks_into_very_many_collections_is_refused(database: Database) -> None:
    """To write the statement alone would take longer than anybody is served."""
    defined(database, {"Outcome": "text"})
    for number in range(42):
        defined(database, {}, name=f"followup.c{number}")
    tests = [f'(Modality == "MR" and Outcome == "{number}")' for number in range(24)]
    assert found(database, " or ".join(tests[:2])) == []
    with pytest.raises(MalformedQueryError, match="more than 1000 collections"):
        found(database, " or ".join(tests))


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
        msgspec.structs.replace(
            one, guid=bytes([99, *one.guid[1:]]), inode=one.inode + 99, attributes={"EchoTime": 3.0}
        )
        for one in images().images
    ]
    message = PutImages(images().series, fresh)
    database.write_now(lambda c: put_images(c, message))
    assert found(database, "EchoTime == 3", level=FoundLevel.IMAGE) == found(database, "EchoTime == 3") == []
    assert len(found(database, "", level=FoundLevel.IMAGE)) == 2
    frozen = CreateSnapshot("mine", "", bytes(16))
    database.write_now(lambda c: create(KNOWN.reader(c, READER, NOW), frozen, "me", NOW))
    page = database.read_now(lambda c: frozen_page(KNOWN.reader(c, READER, NOW), "me", AskFrozen("mine")))
    assert [file.guid for file in page.files] == [one.guid for one in images().images]
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


def test_another_acl_of_the_same_version_changes_nothing(database: Database) -> None:
    """Whoever was told it first goes by it; the same again is known already."""
    registered(database, images())
    told = [acl(OPEN, "/O=x/CN=other"), acl(OPEN)]
    assert database.write_now(lambda c: set_acls(c, told)) == [Outcome.CONFLICT, Outcome.DONE]
    assert found(database, "") == [PATH]
    assert found(database, "", STRANGER) == []


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
        *(getattr(message.images[1], name) for name in ("guid", "name", "inode", "size", "sha256", "policy")),
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


def test_an_acl_under_the_guid_opens_no_directory_above_the_image(database: Database) -> None:
    """It stands in the place of the last one alone, in snapshots, too."""
    own = VersionedAcl(images(count=1).images[0].guid, 1, acl(ROOT).acl)
    registered(database, images(count=1, chain=[[ROOT, NARROW, OPEN]]))
    database.write_now(lambda c: set_acls(c, [own, acl(NARROW, version=2)]))
    assert found(database, "", level=FoundLevel.IMAGE) == [f"{PATH}/0000.dcm"]
    frozen = CreateSnapshot("mine", "", bytes(16))
    assert database.write_now(lambda c: create(KNOWN.reader(c, READER, NOW), frozen, "me", NOW)).gone == 0
    database.write_now(lambda c: set_acls(c, [acl(NARROW, "/O=x/CN=nobody", version=3)]))
    assert found(database, "", level=FoundLevel.IMAGE) == []
    (told,) = database.read_now(lambda c: snapshots_of(KNOWN.reader(c, READER, NOW), "me")).snapshots
    assert (told.files, told.gone) == (1, 1)


def test_a_series_goes_by_the_acls_that_it_was_told_with_last(database: Database) -> None:
    """Another directory's, where it has moved: who could read it there, does so no more."""
    registered(database, images(count=1))
    assert found(database, "") == [PATH]
    narrow = [[ROOT, NARROW]]
    registered(database, images(count=1, chain=narrow))
    assert found(database, "") == found(database, "", level=FoundLevel.IMAGE) == []
    assert found(database, "", Principal(Dn.parse("/O=x/CN=nobody"), (), 2e9)) == []
    database.write_now(lambda c: set_acls(c, [acl(NARROW, version=2)]))
    assert found(database, "") == [PATH]


@pytest.mark.parametrize(
    "chain", [[], [[]], [[ROOT], []], [[ROOT]] * 65, [[ROOT] * 257], [[ROOT[:-1]]], [[ROOT, b""]], [[ROOT + b"x"]]]
)
def test_what_stands_below_no_acl_is_not_taken(database: Database, chain: list[list[bytes]]) -> None:
    """No names, a name below nothing, too many of both, ids of another length: each would be decided by guessing."""
    with pytest.raises(MalformedMessageError):
        database.write_now(lambda c: put_images(c, images(chain=chain)))
    assert found(database, "") == []


@pytest.mark.parametrize(
    "bad",
    [
        VersionedAcl(ROOT[:-1], 2, acl(ROOT).acl),
        VersionedAcl(ROOT + b"x", 2, acl(ROOT).acl),
        VersionedAcl(OPEN, -1, acl(ROOT).acl),
        VersionedAcl(OPEN, 2**63, acl(ROOT).acl),
        VersionedAcl(OPEN, 2, b"no ACL"),
    ],
)
def test_an_acl_that_is_none_changes_nothing(database: Database, bad: VersionedAcl) -> None:
    """Nor does the good one beside it."""
    registered(database, images(count=1))
    closing = VersionedAcl(ROOT, 2, Acl("/O=x/CN=hospital", ()).encode())
    with pytest.raises(MalformedMessageError):
        database.write_now(lambda c: set_acls(c, [closing, bad]))
    assert found(database, "") == [PATH]


@pytest.mark.parametrize(
    ("level", "after"),
    [
        (FoundLevel.SERIES, ("a", "b")),
        (FoundLevel.SERIES, (7,)),
        (FoundLevel.SERIES, (None,)),
        (FoundLevel.IMAGE, ("a",)),
        (FoundLevel.IMAGE, ("a", None)),
        (FoundLevel.IMAGE, ("a", 1.5)),
    ],
)
def test_a_page_follows_a_key_of_its_own_kind(database: Database, level: FoundLevel, after: tuple[Scalar, ...]) -> None:
    """As many values, of the same types, and a path at the end: else pages would be left out or given twice."""
    registered(database, images())
    with pytest.raises(MalformedMessageError, match="a page follows the key"):
        database.read_now(lambda c: KNOWN.reader(c, READER, NOW).page(Find("", level, after=after)))


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


def known(database: Database, name: str, principal: Principal = READER) -> bool:
    """Ask whether a caller knows an attribute; what he does not know is refused as what nobody has defined."""
    try:
        found(database, f"{name} is missing", principal)
    except MalformedQueryError as refused:
        assert f"there is no attribute {name}, or it is not for this identity" in str(refused)  # noqa: PT017 one of two ends
        return False
    return True


def test_a_collection_that_comes_to_others_that_are_not_for_a_caller_is_not_known_to_him(database: Database) -> None:
    """Its ACL says what theirs do: no class of rights is new, nor says something else. A class that is new counts."""
    own = b"o" * 16
    registered(database, images())
    database.write_now(lambda c: set_acls(c, [acl(own)]))
    defined(database, {"Outcome": "text"}, chain=[[ROOT, own]])
    defined(database, {"Gene": "text"}, name="narrow", chain=[[ROOT, NARROW]])
    assert (known(database, "Outcome"), known(database, "Gene")) == (True, False)
    database.write_now(lambda c: set_acls(c, [acl(own, "/O=x/CN=nobody", 2)]))
    assert (known(database, "Outcome"), known(database, "Gene")) == (False, False)
    database.write_now(lambda c: set_acls(c, [acl(own, version=3)]))
    assert known(database, "Outcome")
    registered(database, images(9, path=f"{PATH}-new", chain=[[ROOT, ROOT, ROOT]]))
    assert found(database, "") == [PATH, f"{PATH}-new"]


def test_a_collection_that_is_defined_anew_goes_by_its_new_rights(database: Database) -> None:
    """Its own, those of its groups, and those of what is put into a group or taken from one."""
    registered(database, images())
    narrow = {"some": [[ROOT, OPEN, NARROW]]}
    wide = {"some": [[ROOT, OPEN, OPEN]]}
    for groups, group, chain, expected in (
        ({}, "", CHAIN, True),
        (narrow, " some", CHAIN, False),
        (wide, " some", CHAIN, True),
        (narrow, " some", CHAIN, False),
        (narrow, "", CHAIN, True),
        ({}, "", [[ROOT, NARROW]], False),
        ({}, "", CHAIN, True),
    ):
        defined(database, {"Outcome": "text", "Score": f"integer{group}"}, groups, chain=chain)
        assert known(database, "Score") is expected
        assert known(database, "Outcome") is (chain is CHAIN)


def test_an_attribute_is_asked_for_where_it_is_at_home_whatever_other_projects_call_so(database: Database) -> None:
    """A name below a collection, of another type, is another attribute; below what is not there is none."""
    registered(database, images())
    defined(database, {"Score": "integer"})
    recorded(database, 1, Score=3)
    for name, attributes in (("followup", []), ("followup.onco", [AttributeEntry("Score", "text")])):
        database.write_now(lambda c, n=name, a=attributes: define(c, DefineCollection("onco", n, CHAIN, a, {})))  # type: ignore[misc]
    other = "ponmlkjihgfedcba"
    registered(database, images(1, path=PATH.replace(SUBJECT, other), Subject=other))
    entry = RecordEntry(bytes(16), other, {"Score": "3"}, b"k" * 16)
    database.write_now(lambda c: put_records(c, PutRecords("onco", "followup.onco", [entry])))
    assert found(database, "followup.Score == 3") == [PATH]
    assert found(database, 'followup.onco.Score == "3"') == [PATH.replace(SUBJECT, other)]
    assert not known(database, "followup.nowhere.Score")


def test_brackets_do_not_part_what_speaks_of_one_record(database: Database) -> None:
    """A double ``not`` does."""
    registered(database, images())
    defined(database, {"Outcome": "text", "Score": "integer", "Grade": "integer"})
    recorded(database, 1, Outcome="ill", Score=1, Grade=1)
    recorded(database, 2, Outcome="well", Score=2, Grade=2)
    both = '(Outcome == "ill" or Score == 7)'
    assert found(database, f"{both} and Grade == 1") == found(database, f"{both} and not not Grade == 2") == [PATH]
    assert found(database, f"{both} and Grade == 2") == []


def test_records_are_of_one_subject_and_come_in_pages(database: Database) -> None:
    """Each once, in the order of their GUIDs, whatever their collections."""
    defined(database, {"Score": "integer"})
    defined(database, {"Arm": "integer"}, name="trial")
    for number in (4, 2, 6):
        recorded(database, number, Score=number)
        recorded(database, number + 1, collection="trial", Arm=number)
    recorded(database, 9, "ponmlkjihgfedcba", Score=9)
    seen, after = list[int](), b""
    for _ in range(3):
        asked = AskRecords(SUBJECT, after, 2)
        page = database.read_now(lambda c, asked=asked: records_of(KNOWN.reader(c, READER, NOW), asked))  # type: ignore[misc]
        seen += [int.from_bytes(record.guid) for record in page.records]
        after = page.records[-1].guid
    assert (seen, page.is_last) == ([2, 3, 4, 5, 6, 7], True)
    with pytest.raises(MalformedMessageError):
        database.read_now(lambda c: records_of(KNOWN.reader(c, READER, NOW), AskRecords("nobody")))


def test_a_series_is_found_by_others_of_its_study_and_of_its_subject(database: Database) -> None:
    """By those that the caller may read; what is asked under one and is asked of the same one."""
    hidden = [[ROOT, NARROW]]
    made: list[tuple[str, str, str, list[list[bytes]]]] = [
        ("a", "ses-1", "CT", CHAIN),
        ("b", "ses-1", "PT", CHAIN),
        ("c", "ses-2", "MR", CHAIN),
        ("d", "ses-2", "PT", hidden),
    ]
    for number, (name, session, modality, chain) in enumerate(made):
        put = images(
            number, path=f"{PATH}-{name}", chain=chain, Session=session, Modality=modality, SeriesNumber=number
        )
        registered(database, put)
    paths = {name: f"{PATH}-{name}" for name, *_ in made}
    assert found(database, 'Modality == "CT" and study.Modality == "PT"') == [paths["a"]]
    assert found(database, 'Modality == "MR" and study.Modality == "PT"') == []
    assert found(database, 'Modality == "MR" and subject.Modality == "PT"') == [paths["c"]]
    assert found(database, 'not study.Modality == "PT"') == [paths["c"]]
    assert found(database, 'study.Modality == "PT" and study.SeriesNumber == 0') == []
    assert found(database, 'not not study.Modality == "PT" and study.SeriesNumber == 0') == [paths["a"], paths["b"]]
    for query, said in (("study.InstanceNumber == 1", "no attribute"), ("order by study.Age", "cannot order")):
        with pytest.raises(MalformedQueryError, match=said):
            found(database, query)
    with pytest.raises(MalformedMessageError, match="a series of the same study is asked about like this"):
        defined(database, {"Outcome": "text"}, name="study.onco")


def test_a_collection_has_the_attributes_of_those_above_it(database: Database) -> None:
    """Whoever asks those above asks those below with them; and what changes above changes below, while all goes on."""
    registered(database, images())
    defined(database, {"Outcome": "text", "Score": "integer"})
    defined(database, {"Gene": "text"}, name="followup.onco")
    defined(database, {"Arm": "integer"}, name="followup.onco.trial")
    recorded(database, 1, collection="followup.onco.trial", Outcome="well", Gene="x", Arm=3)
    recorded(database, 2, collection="followup.onco", Outcome="ill", Gene="y")
    for query in (
        'Outcome == "well"',
        'followup.Outcome == "well"',
        'followup.onco.Outcome == "well" and Gene == "x"',
        'followup.onco.trial.Outcome == "well" and followup.onco.trial.Gene == "x" and Arm == 3',
    ):
        assert found(database, query) == [PATH]
    assert found(database, 'followup.onco.trial.Outcome == "ill"') == []
    assert found(database, 'followup.onco.Outcome == "ill" and Gene == "x"') == []  # of one record, not of two
    assert found(database, 'followup.Outcome == "ill" and Gene == "x"') == [PATH]
    with pytest.raises(MalformedQueryError, match=r"no attribute followup\.Gene"):
        found(database, 'followup.Gene == "x"')
    defined(database, {"Outcome": "text", "Seen": "date"})
    recorded(database, 1, collection="followup.onco.trial", Outcome="well", Seen="2020-02-29", Arm=3)
    assert found(database, "followup.onco.trial.Seen == date(2020-02-29) and Arm == 3") == [PATH]
    with pytest.raises(MalformedMessageError, match="no attribute 'Score'"):
        recorded(database, 3, collection="followup.onco", Score=1)
    told = database.read_now(lambda c: records_of(KNOWN.reader(c, READER, NOW), AskRecords(SUBJECT)))
    assert told.records[0].collection == "followup.onco.trial"
    assert told.records[0].values == {"Outcome": "well", "Seen": "2020-02-29", "Gene": None, "Arm": 3}


def test_a_collection_is_read_by_its_own_rights_and_a_group_hides_also_below(database: Database) -> None:
    """What lies below one that is not for the reader may be for him; the group's attributes are not, at any depth."""
    registered(database, images())
    narrow = [[ROOT, OPEN, NARROW]]
    defined(database, {"Outcome": "text", "Score": "integer hidden"}, {"hidden": narrow}, chain=narrow)
    defined(database, {"Gene": "text"}, name="followup.onco")
    recorded(database, 1, Outcome="ill", Score=1)
    recorded(database, 2, collection="followup.onco", Outcome="well", Score=2, Gene="x")
    assert found(database, 'Outcome == "well" and followup.onco.Outcome == "well"') == [PATH]
    assert found(database, 'Outcome == "ill"') == []
    unknown = []
    for name in ("Score", "followup.Score", "followup.onco.Score", "followup.onco.Scorf"):
        with pytest.raises(MalformedQueryError) as refused:
            found(database, f"{name} == 2")
        unknown.append(str(refused.value).replace(name, "NAME"))
    assert len(set(unknown)) == 1
    told = database.read_now(lambda c: records_of(KNOWN.reader(c, READER, NOW), AskRecords(SUBJECT)))
    assert [one.values for one in told.records] == [{"Outcome": "well", "Gene": "x"}]


MISPLACED: list[tuple[str, dict[str, str], dict[str, list[list[bytes]]], str]] = [
    ("nowhere.onco", {}, {}, "define nowhere first"),
    ("followup.onco", {"Outcome": "text"}, {}, "Outcome comes from followup"),
    ("followup", {"Outcome": "text", "Arm": "integer"}, {}, "Arm is an attribute of followup.onco, below"),
    ("followup", {"Outcome": "text"}, {"onco": CHAIN}, "has the name of a collection below"),
    ("followup..onco", {}, {}, "no name of a collection"),
    ("a.b.c.d.e.f.g.h.i", {}, {}, "no name of a collection"),
    ("followup", {f"A{number}": "text" for number in range(200)}, {}, "at most 200 attributes"),
]


def test_a_collection_that_fits_nowhere_is_refused(database: Database) -> None:
    """With the reason, and nothing of it is made."""
    defined(database, {"Outcome": "text"})
    defined(database, {"Arm": "integer"}, name="followup.onco")
    for name, attributes, groups, said in MISPLACED:
        with pytest.raises(MalformedMessageError, match=said):
            defined(database, attributes, groups, name=name)
    columns = database.read_now(lambda c: [set(table.c.keys()) for table in record_tables(c)])
    assert sorted(map(len, columns)) == [7, 8]


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
        with pytest.raises(MalformedMessageError, match="has no collection"):
            recorded(database, 1)


def test_there_is_a_bound_to_collections_and_none_to_altering_them(database: Database) -> None:
    """Each is a table; nothing of the one too many is made."""
    one, other = (DefineCollection("neuro", name, CHAIN, [AttributeEntry("Seen", "date")], {}) for name in ("a", "b"))
    for _ in range(2):
        database.write_now(lambda c: define(c, one, most=1))
    with pytest.raises(MalformedMessageError, match="neuro gets no collection b: there are 1"):
        database.write_now(lambda c: define(c, other, most=1))
    assert len(database.read_now(lambda c: list(record_tables(c)))) == 1


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


def test_an_attack_is_refused_at_a_column_or_finds_what_may_be_read_and_changes_nothing(database: Database) -> None:
    """All kinds of SQL injection, wherever a query has room: ``MDMFS_ATTACKS`` of them, else a part."""
    registered(database, images())
    registered(database, images(1, path=f"{PATH}-hidden", chain=[[NARROW]]))
    before = database.read_now(contents)
    refusals = set()
    draw = random.Random(7)  # noqa: S311 a seed
    for attack in attacks(draw, int(os.environ.get("MDMFS_ATTACKS", "25"))):
        for query in queries(attack):
            try:
                assert set(found(database, query)) <= {PATH}, query
            except MalformedQueryError as error:
                refusals.add(str(error))
        for query in (f"SeriesDescription == {quoted(attack)}", f"SeriesDescription in ({quoted(attack)})"):
            assert found(database, query) == [], query
    assert refusals
    assert [it for it in refusals if not re.match("column [0-9]+: ", it)] == []
    assert database.read_now(contents) == before


def contents(connection: sa.Connection) -> dict[str, list[str]]:
    """Give all tables that there are, with all their rows."""
    return {
        name: sorted(map(repr, connection.execute(sa.select(sa.text("*")).select_from(sa.table(name))).all()))
        for name in sa.inspect(connection).get_table_names()
    }


@pytest.mark.parametrize(
    "ask",
    [
        lambda reader: reader.page(Find("", within="\0")),
        lambda reader: frozen_page(reader, "me", AskFrozen("\0")),
        lambda reader: frozen_page(reader, "me", AskFrozen("mine", series="\0")),
        lambda reader: frozen_page(reader, "me", AskFrozen("mine", after=("", "\0"))),
        lambda reader: frozen_series(reader, "me", AskFrozenSeries("mine", after="\0")),
        lambda reader: drop(reader.connection, "me", "\0"),
    ],
)
def test_a_nul_is_the_callers_fault_and_not_the_databases(database: Database, ask: Callable[[Reader], object]) -> None:
    """PostgreSQL takes none: whoever sent one had the service tell its people that their database had failed."""
    with pytest.raises(MalformedMessageError, match="NUL"):
        database.read_now(lambda c: ask(KNOWN.reader(c, READER, NOW)))


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


BOMB = "%a" * 8
QUESTIONS = [
    *(("", level) for level in FoundLevel),
    *((f'SeriesDescription == "{"a" * 40}"', level) for level in FoundLevel),
    (f'SeriesDescription like "{BOMB}b"', FoundLevel.SERIES),
    (f'ProtocolName like "{BOMB}b" or SeriesDescription like "{BOMB}b"', FoundLevel.IMAGE),
    ('not (Modality == "MR" and Age > 5) order by Age desc', FoundLevel.SERIES),
    ("Age is missing or Age in (60, 65)", FoundLevel.SERIES),
    ("StudyDate > date(2016-01-01) order by StudyDate limit 3", FoundLevel.SERIES),
    (f'Outcome like "{BOMB}b" and Score is missing', FoundLevel.SERIES),
    ('Outcome == "ill" and Dead == true', FoundLevel.SERIES),
    ("not (Score == 3 or Dead is missing)", FoundLevel.IMAGE),
    ('followup.onco.Outcome == "ill" and Stage == 4', FoundLevel.SERIES),
    ('study.Modality == "MR" and Age > 5', FoundLevel.SERIES),
    (f'not subject.SeriesDescription like "{BOMB}b"', FoundLevel.IMAGE),
    ("InstanceNumber == 7", FoundLevel.SERIES),
    (f'not ImageType like "{BOMB}b"', FoundLevel.SERIES),
    ('InstanceNumber == 7 and Modality == "MR" order by InstanceNumber', FoundLevel.IMAGE),
]
SECRETS: list[tuple[dict[str, Scalar], dict[str, Scalar], dict[str, Scalar]]] = [
    (
        {"SeriesDescription": "a" * 40, "Modality": "MR", "Age": 60, "StudyDate": "2017-01-01"},
        {"Outcome": "ill", "Score": 3, "Dead": True},
        {"InstanceNumber": 7, "ImageType": "a" * 40},
    ),
    (
        {"SeriesDescription": "b" * 40, "ProtocolName": "a" * 40, "Modality": "CT", "Age": None},
        {"Outcome": "a" * 40, "Score": None, "Dead": False},
        {"InstanceNumber": 8, "ImageType": "b" * 40},
    ),
]
"""What is in series, records and images that are not for the caller."""


def filled_with(database: Database, secret: int, hidden: int) -> None:
    """Put what the reader may read, and between it what he may not."""
    for_series, for_records, for_images = SECRETS[secret]
    database.write_now(emptied)
    database.write_now(lambda c: set_acls(c, [acl(ROOT), acl(OPEN), acl(NARROW, "/O=x/CN=nobody")]))
    defined(database, {"Outcome": "text", "Score": "integer", "Dead": "boolean"})
    defined(database, {"Stage": "integer"}, name="followup.onco")
    for number in range(12):
        subject = f"{'abcdefghijkl'[number]}bcdefghijklmnop"
        put = images(number, path=f"{PATH}-{number:03d}", Age=5 * number, StudyDate="2016-03-04")
        narrow = msgspec.structs.replace(
            put.images[1],
            acl_ids=[[ROOT, NARROW]],
            attributes={k: v for k, v in for_images.items() if v is not None},
        )
        registered(database, PutImages(put.series, [put.images[0], narrow]))
        recorded(database, number, SUBJECT, Outcome="well", Score=number)
        recorded(database, 500 + number, SUBJECT, "followup.onco", Outcome="well", Stage=number)
        for other in range(hidden):
            known = for_series | {"Subject": subject}
            path = f"{PATH}-{number:03d}-{other}{'mz'[secret]}"
            registered(database, images(100 + 8 * number + other, path=path, chain=[[ROOT, NARROW]], **known))
            key = (1000 + 8 * number + other).to_bytes(16)
            values = {k: v for k, v in for_records.items() if v is not None}
            for where in ("followup", "followup.onco"):
                entry = RecordEntry(key, SUBJECT, values, b"k" * 16, b"", ((ROOT, NARROW),))
                told = PutRecords("neuro", where, [entry])
                database.write_now(lambda c, told=told: put_records(c, told))  # type: ignore[misc]
    frozen = CreateSnapshot("mine", "", bytes(16))
    for author in ("me", *(f"another {number}" for number in range(hidden))):
        database.write_now(lambda c, a=author: create(KNOWN.reader(c, READER, NOW), frozen, a, NOW))  # type: ignore[misc]


def work_of_all(database: Database) -> dict[str, int]:
    """Count what pages, later pages, counts and a look at one series cost."""
    found: dict[str, int] = {}
    hidden = f"{PATH}-003-0{'m'}"
    for query, level in QUESTIONS:
        for size in (3, 100):
            asked = Find(query, level, (), size)
            found[f"{query} {level} {size}"] = steps_of(
                database,
                lambda c, asked=asked: KNOWN.reader(c, READER, NOW).page(asked),  # type: ignore[misc]
            )
        found[f"{query} {level} count"] = steps_of(
            database,
            lambda c, query=query, level=level: KNOWN.reader(c, READER, NOW).count(query, Level(level.value)),  # type: ignore[misc]
        )
    bare = [Find(query, level, (), 100, is_bare=True) for query, level in QUESTIONS]
    for asked in (Find("", within=hidden), Find("", FoundLevel.SERIES, (hidden,), 3), *bare):
        found[repr(asked)] = steps_of(database, lambda c, asked=asked: KNOWN.reader(c, READER, NOW).page(asked))  # type: ignore[misc]
    told: dict[str, Callable[[Reader], object]] = {
        "records": lambda reader: records_of(reader, AskRecords(SUBJECT)),
        "snapshots": lambda reader: snapshots_of(reader, "me"),
        "frozen series": lambda reader: frozen_series(reader, "me", AskFrozenSeries("mine")),
        "frozen": lambda reader: frozen_page(reader, "me", AskFrozen("mine")),
        "schema": Reader.told_schema,
    }
    for name, ask in told.items():
        found[name] = steps_of(database, lambda c, ask=ask: ask(KNOWN.reader(c, READER, NOW)))  # type: ignore[misc]
    return found


def test_what_a_question_costs_tells_nothing_of_what_is_not_for_its_caller(database: Database) -> None:
    """Counted in steps of the database: not what is in hidden rows, nor how many series and records are hidden.

    Hidden images are passed over one by one where they are counted: their number can be told, their values not.
    """
    if database.dialect == "postgresql":
        return  # see the next test: the rows that it goes through depend on a plan that it chooses by statistics
    costs = []
    for secret, hidden in ((0, 5), (1, 5), (0, 1)):
        filled_with(database, secret, hidden)
        costs.append(work_of_all(database))
    assert costs[0] == costs[1]
    apart = {key for key, cost in costs[0].items() if cost != costs[2][key]}
    assert all(key.endswith(f"{FoundLevel.IMAGE} count") for key in apart)
    assert len(set(costs[0].values())) > 5


def test_the_class_of_a_row_is_looked_at_first(database: Database) -> None:
    """By an index that begins with it, or as the first condition, whatever PostgreSQL thinks that the others cost."""
    if database.dialect == "sqlite":
        return  # it keeps the order in which conditions are written; its steps are counted above
    filled_with(database, 0, 5)
    many = list(range(1, 8)) + list(range(20, 60, 3))
    nodes = []
    for allowed in ([1], many):

        def ask(connection: sa.Connection, allowed: list[int] = allowed) -> None:
            schema = KNOWN.reader(connection, READER, NOW).schema
            reader = Reader(connection, schema, Compiler(allowed, schema, database.dialect))
            for query, level in QUESTIONS:
                reader.page(Find(query, level))
                reader.page(Find(query, level, is_bare=True))
                reader.count(query, Level(level.value))

        for plan in plans_of(database, ask):
            nodes += [node for node in nodes_of(plan) if "Relation Name" in node]
    guarded = [node for node in nodes if "Filter" in node and "class" not in node.get("Index Cond", "")]
    assert guarded
    for node in guarded:
        first = re.sub(r"[(\"]|\w+\.", "", node["Filter"]).removeprefix("visible AND ")
        assert first.startswith(("class <@", "class = ANY")), node


def test_a_database_of_the_first_format_gets_the_indexes_of_this_one(database: Database) -> None:
    """Those that began with the attribute go, and when images were registered; all is found as before."""
    registered(database, images())
    defined(database, {"Outcome": "text"})
    recorded(database, 1, Outcome="well")

    def age(connection: sa.Connection) -> None:
        (records,) = record_tables(connection)
        for table, column in ((SERIES, SERIES.c.Modality), (records, records.c.subject)):
            connection.execute(
                sa.text(f'CREATE INDEX "ix_{table.name}_{column.name}" ON {table.name} ("{column.name}")')
            )
            connection.execute(sa.text(f'DROP INDEX "{table.name}_by_{column.name}"'))
        for table in ("images", "cohort_files"):
            connection.execute(sa.text(f"ALTER TABLE {table} ADD COLUMN registered DOUBLE PRECISION DEFAULT {NOW}"))
        connection.execute(ABOUT.update().where(ABOUT.c.key == "format").values(value=b"1"))

    database.write_now(age)
    where = database.engine.url.set(drivername=database.dialect).render_as_string(hide_password=False)
    open_database(where.removeprefix("sqlite:///")).close()
    every = "SELECT name FROM sqlite_master" if database.dialect == "sqlite" else "SELECT indexname FROM pg_indexes"
    names = set(database.read_now(lambda c: c.execute(sa.text(every)).scalars().all()))
    assert "series_by_Modality" in names
    assert not names & {"ix_series_Modality", "ix_records_1_subject"}
    assert found(database, 'Modality == "MR" and Outcome == "well"') == [PATH]
    for table in ("images", "cohort_files"):
        columns = {column["name"] for column in sa.inspect(database.engine).get_columns(table)}
        assert "registered" not in columns
        assert "inode" in columns


def test_two_that_stand_in_each_others_way_both_come_through(server: str) -> None:
    """As the definition of a collection and a question: PostgreSQL undoes one of them, and that one is done again."""
    with new_database(server) as url:
        database = open_database(url)
        meeting, tries = threading.Barrier(2), list[str]()

        def change(name: str, first: int, second: int) -> Callable[[sa.Connection], None]:
            def act(connection: sa.Connection) -> None:
                tries.append(name)
                connection.execute(sa.text("set local deadlock_timeout = '20ms'"))
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(first)))
                if tries.count(name) == 1:
                    meeting.wait(30)
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(second)))

            return act

        other = threading.Thread(target=database.write_now, args=[change("one", 1, 2)])
        other.start()
        database.read_now(change("two", 2, 1))
        other.join()
        assert len(tries) == 2 + 1
        with pytest.raises(BusyError, match="again and again"):
            database.write_now(lambda c: c.execute(sa.text("do $$ begin raise sqlstate '40P01'; end $$")))
        database.close()
