"""Two hospitals that differ only in what one caller may not read, and all that he can ask to tell them apart."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from mdmfs.access.acl import Acl
from mdmfs.metadata.store.database import Database
from mdmfs.metadata.store.entries import forget
from mdmfs.metadata.store.images import put_images, show_series
from mdmfs.metadata.store.rights import set_acls
from mdmfs.model.identity import Principal
from mdmfs.model.subject import SubjectId
from mdmfs.wire.messages.keystores import VersionedAcl
from mdmfs.wire.messages.message import Message
from mdmfs.wire.messages.metadata import (
    COUNT_PATH,
    EXPLAIN_PATH,
    FIND_PATH,
    FROZEN_PATH,
    FROZEN_SERIES_PATH,
    RECORDS_PATH,
    SCHEMA_PATH,
    SNAPSHOT_PATH,
    SNAPSHOTS_PATH,
    AskFrozen,
    AskFrozenSeries,
    AskRecords,
    AskSchema,
    AskSnapshots,
    CountFound,
    CreateSnapshot,
    Explain,
    Find,
    FoundLevel,
    FoundPage,
    FrozenPage,
    ImageEntry,
    PutImages,
    RecordPage,
    Scalar,
    SeriesEntry,
)
from tests.twins.finding import Row, TwinMetadata, TwinRecord, TwinSeries, View
from tests.twins.random_metadata import (
    COLLECTIONS,
    IMAGE_ATTRIBUTES,
    NOW,
    NUMBERS,
    PROJECTS,
    SERIES_ATTRIBUTES,
    TEXTS,
    guid_of,
    named,
    random_query,
    value_of,
)

SECRET: Final = "followup.secret"  # noqa: S105 a name
"""A collection that there may be, and of which he knows nothing."""
NOBODY: Final = Acl("/O=x/CN=h", ())
FIRST_HIDDEN: Final = 1000
"""Of the numbers of records that were added."""
_HIDDEN_NAMES: Final = ("Salary", f"{SECRET}.Salary", f"{SECRET}.Outcome", "secret.Salary", "Nothing")
_HIDDEN_TESTS: Final = ("== 1", "is missing", 'like "%"', "in (true)")

Ask = Callable[[str, Message], Message | str]
"""Asks on a path; gives the answer, or what the error says."""


def closed(twin: TwinMetadata) -> tuple[int, ...]:
    """Give a chain of ACLs that lets nobody read."""
    if NOBODY not in twin.acls:
        twin.acls.append(NOBODY)
    return (twin.acls.index(NOBODY),)


class Otherwise:
    """Draws a hospital of which one caller may read the same: all that he may not is another, more or less of it."""

    def __init__(self, twin: TwinMetadata, principal: Principal, draw: random.Random) -> None:
        self._twin = copy.deepcopy(twin)
        self._view: View = twin.view(principal, NOW)
        self._draw = draw
        self._closed = closed(self._twin)

    def hospital(self) -> TwinMetadata:
        """Draw it."""
        self._redraw_collections()
        self._twin.series = self._series()
        self._twin.records = self._records()
        return self._twin

    def _redraw_collections(self) -> None:
        """Leave out collections that he cannot know of, and give attributes that he may not know of another type."""
        twin = self._twin
        for project, name in sorted(twin.collections, key=lambda one: -len(one[1])):
            is_needed = any(there == project and other.startswith(f"{name}.") for there, other in twin.collections)
            is_shown = is_needed or self._view.may_read(twin.collections[project, name])
            if not is_shown and self._draw.random() < 0.5:
                del twin.collections[project, name]
                continue
            group, members = twin.groups[project, name, "narrow"]
            if not self._view.may_read(group):
                own = dict(twin.attributes[project, name])
                for attribute in members & own.keys():
                    kind = self._draw.choice(["", "text", "integer", "number", "boolean", "date"])
                    own = {one: kind if one == attribute else its for one, its in own.items()}
                twin.attributes[project, name] = {one: kind for one, kind in own.items() if kind}
        for project in PROJECTS:
            if (project, "followup") in twin.collections and self._draw.random() < 0.7:
                twin.collections[project, SECRET] = self._closed
                twin.groups[project, SECRET, "narrow"] = (self._closed, set())
                twin.attributes[project, SECRET] = {"Salary": self._draw.choice(["integer", "text"])}

    def _series(self) -> list[TwinSeries]:
        kept = []
        for series in self._twin.series:
            if series.is_visible and self._view.may_read(series.chain):
                kept.append(self._with_other_images(series))
            elif self._draw.random() < 0.5:
                kept.append(self._redrawn(series, series.path))
        for number in range(self._draw.randrange(1, 7)):
            series = self._draw.choice(self._twin.series)
            added = self._redrawn(series, f"{series.path.rpartition('/')[0]}/{500 + number}-MR")
            added.is_visible = number % 2 == 0
            if added.is_visible:  # others are not shown, to nobody
                added.chain = self._closed
                added.images = [(name, values, self._closed) for name, values, _ in added.images]
            kept.append(added)
        self._draw.shuffle(kept)
        return kept

    def _with_other_images(self, series: TwinSeries) -> TwinSeries:
        shown = [one for one in series.images if self._view.may_read(one[2])]
        hidden = [one for one in series.images if not self._view.may_read(one[2])]
        hidden += [(f"{900 + number}.dcm", {}, self._closed) for number in range(self._draw.randrange(3))]
        kept = [one for one in hidden if self._draw.random() < 0.5 or not shown]
        series.images = [*shown, *((name, self._values(IMAGE_ATTRIBUTES), chain) for name, _, chain in kept)]
        return series

    def _redrawn(self, series: TwinSeries, path: str) -> TwinSeries:
        names = {name: series.values[name] for name in ("Project", "Subject", "Session")}
        images = [(name, self._values(IMAGE_ATTRIBUTES), chain) for name, _, chain in series.images]
        return TwinSeries(path, names | self._values(SERIES_ATTRIBUTES), series.chain, images, series.is_visible)

    def _records(self) -> list[TwinRecord]:
        kept = []
        for record in self._twin.records:
            where = (record.project, record.collection)
            if where not in self._twin.collections:
                continue
            is_shown = self._view.may_read(self._twin.collections[where]) and self._view.may_read(record.chain)
            if is_shown or self._draw.random() < 0.5:
                kept.append(self._other_record(record, is_shown=is_shown))
        for number in range(self._draw.randrange(6)):
            like = self._draw.choice(self._twin.records)
            for name in (like.collection, SECRET):
                if (like.project, name) in self._twin.collections:
                    added = TwinRecord(like.project, name, like.subject, {}, self._closed, FIRST_HIDDEN + number)
                    kept.append(self._other_record(added, is_shown=False))
        return kept

    def _other_record(self, record: TwinRecord, *, is_shown: bool) -> TwinRecord:
        """Draw what he may not read of a record anew, all of it or by attributes."""
        twin, values = self._twin, dict[str, object]()
        for home in [one for one in (*COLLECTIONS, SECRET) if f"{record.collection}.".startswith(f"{one}.")]:
            own = twin.attributes.get((record.project, home), {}) if (record.project, home) in twin.collections else {}
            group, members = twin.groups[record.project, home, "narrow"]
            for name, kind in own.items():
                is_kept = is_shown and (name not in members or self._view.may_read(group))
                values[name] = record.values[name] if is_kept else value_of(kind, self._draw)
        record.values = values
        return record

    def _values(self, kinds: dict[str, str]) -> Row:
        return {name: value_of(kind, self._draw) for name, kind in kinds.items()}


def change(
    database: Database, twin: TwinMetadata, readable: Sequence[tuple[TwinSeries, str]], *, is_other: bool
) -> None:
    """Take images from the caller; ``is_other`` says what becomes of them or their names where he may not look."""
    taken, replaced, coming = (guid_of(series.path, name) for series, name in readable)
    denied = VersionedAcl(taken, 1, NOBODY.encode())
    database.write_now(lambda c: (set_acls(c, [denied]), forget(c, [replaced, coming])))
    if is_other:
        _, (series, name), (other, its_name) = readable
        database.write_now(lambda c: forget(c, [taken]))
        database.write_now(lambda c: put_images(c, _renewed(series, name, closed(twin))))
        database.write_now(lambda c: show_series(c, series.path, is_visible=True))
        database.write_now(lambda c: put_images(c, _renewed(other, its_name, other.chain)))


def _renewed(series: TwinSeries, name: str, chain: tuple[int, ...]) -> PutImages:
    """Render an image anew, for others."""
    image = ImageEntry(guid_of(series.path, f"{name} anew"), name, 2, 1, bytes(32), bytes(32), named(chain), {})
    return PutImages(SeriesEntry(series.path, named(series.chain), {}), [image])


class Known(NamedTuple):
    """Names that a caller may have heard of, whatever he may read: of the first hospital and of the other."""

    paths: list[str]
    subjects: list[str]

    @classmethod
    def of(cls, *twins: TwinMetadata) -> Known:
        """Name all."""
        series = [one for twin in twins for one in twin.series]
        subjects = {one.values["Subject"] for one in series} | {one.subject for twin in twins for one in twin.records}
        return cls(sorted({one.path for one in series}), [*sorted(subjects), SubjectId.from_random(bytes(10)).text])


class Questions:
    """Asks everything that there is to ask, at random; what is asked next hangs on the answers alone."""

    def __init__(self, ask: Ask, known: Known, draw: random.Random) -> None:
        self._put = ask
        self._known = known
        self._draw = draw
        self.answers: list[tuple[str, object, object]] = []
        """Each with its path and question."""

    def ask_all(self, rounds: int) -> None:
        """Ask for everything, and for a snapshot in each round."""
        self._ask(SCHEMA_PATH, AskSchema())
        for number in range(rounds):
            self._find()
            self._records()
            query = self._query(images=False)
            self._ask(SNAPSHOT_PATH, CreateSnapshot(f"s{number}", query.partition(" limit ")[0], bytes(16)))
        self.ask_for_snapshots(rounds)

    def ask_for_snapshots(self, rounds: int) -> None:
        """Ask for those that there are, and what has become of their files."""
        self._ask(SNAPSHOTS_PATH, AskSnapshots())
        for number in range(rounds + 1):
            name, path = f"s{number}", self._draw.choice(self._known.paths)
            self._ask(FROZEN_SERIES_PATH, AskFrozenSeries(name, self._draw.choice(["", path]), self._size()))
            self._ask(FROZEN_PATH, AskFrozen(name, self._draw.choice(["", path]), (path, "0000.dcm"), self._size()))
            page = self._ask(FROZEN_PATH, AskFrozen(name, limit=self._size()))
            while isinstance(page, FrozenPage) and not page.is_last:
                last = page.files[-1]
                page = self._ask(FROZEN_PATH, AskFrozen(name, after=(last.series, last.name), limit=self._size()))

    def _find(self) -> None:
        level = self._draw.choice(list(FoundLevel))
        query = self._query(images=level is FoundLevel.IMAGE)
        self._ask(COUNT_PATH, CountFound(query, level))
        self._ask(EXPLAIN_PATH, Explain(query, level))
        within = self._draw.choice(self._known.paths) if self._draw.random() < 0.2 else ""
        size = self._size()
        page = self._ask(FIND_PATH, Find(query, level, (), size, within))
        while isinstance(page, FoundPage) and not page.is_last:
            is_bare = self._draw.random() < 0.5
            page = self._ask(FIND_PATH, Find(query, level, tuple(page.keys[-1]), size, within, is_bare))
        if isinstance(page, FoundPage):
            keys = [self._anything() for _ in page.descending]
            self._ask(FIND_PATH, Find(query, level, (*keys, *self._place(level)), size, within))

    def _records(self) -> None:
        subject = self._draw.choice(self._known.subjects)
        page = self._ask(RECORDS_PATH, AskRecords(subject, self._draw.choice([b"", bytes(15) + b"\7"]), self._size()))
        while isinstance(page, RecordPage) and not page.is_last:
            page = self._ask(RECORDS_PATH, AskRecords(subject, page.records[-1].guid, self._size()))

    def _query(self, *, images: bool) -> str:
        query = random_query(self._draw, images=images)
        if self._draw.random() < 0.15:
            test = f"{self._draw.choice(_HIDDEN_NAMES)} {self._draw.choice(_HIDDEN_TESTS)}"
            return test if query.startswith((" ", "limit")) or not query else f"{test} or {query}"
        return query

    def _anything(self) -> Scalar:
        return self._draw.choice([None, *TEXTS, *NUMBERS, True, "2020-01-01", "2020-02-30", float("inf")])

    def _place(self, level: FoundLevel) -> tuple[str, ...]:
        return (self._draw.choice(self._known.paths), *(["0000.dcm"] if level is FoundLevel.IMAGE else []))

    def _size(self) -> int:
        return self._draw.choice([-1, 1, 2, 3, 100])

    def _ask(self, path: str, message: Message) -> Message | str:
        answer = self._put(path, message)
        self.answers.append((path, message, answer))
        return answer
