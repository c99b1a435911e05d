"""A million images on SQLite and on PostgreSQL: queries, pages and imports, beside plain SQL on the same database.

Bars: a selective query under 50 ms, a page of a query directory under 100 ms, 5,000 rows imported a second; and at most
3 times the plain statement without rights, checks or an API, which is the ratio. The page is timed twice: at the store,
and as a program sees it, by opening the directory on a real mount and reading a thousand names, with metadatad,
hospitald and the mount as processes of their own.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

from mdmfs.access.acl import Acl, Entry, EntryKind
from mdmfs.demo.processes import running
from mdmfs.demo.site import READER, Site, make_site, mountpoint_of
from mdmfs.metadata.store.collections import define
from mdmfs.metadata.store.database import Database, open_database
from mdmfs.metadata.store.entries import put_records
from mdmfs.metadata.store.finding import Known
from mdmfs.metadata.store.images import put_images, show_series
from mdmfs.metadata.store.rights import set_acls
from mdmfs.model.identity import Principal
from mdmfs.model.subject import SubjectId
from mdmfs.wire.messages.keystores import VersionedAcl
from mdmfs.wire.messages.metadata import (
    AttributeEntry,
    DefineCollection,
    Find,
    FoundLevel,
    ImageEntry,
    PutImages,
    PutRecords,
    RecordEntry,
    SeriesEntry,
)
from tests.bench._frame import Bench, Measured
from tests.twins.postgresql import new_database, running_postgresql

IMAGES = int(os.environ.get("BENCH_FIND_IMAGES", "1000000"))
OF_SERIES = 50
SAMPLE = 20_000
RECORDS = IMAGES // 10
BATCH = 500
RUNS = 15
KNOWN = Known()
PAGE = 1000
MOUNT_RUNS = 9
START_SECONDS = 60.0
ROOT, OTHERS = b"r" * 16, b"o" * 16
QUERY_BAR, PAGE_BAR, IMPORT_BAR = 0.050, 0.100, 5000.0


class Question(NamedTuple):
    """A query, and the plain statement that finds the same."""

    name: str
    query: str
    level: FoundLevel
    limit: int
    plain: str
    bar: float


SHOWN = "s.*"
QUESTIONS = (
    Question(
        "selective, series",
        'ProtocolName == "p777" and Age >= 60 and StudyDate > date(2015-01-01)',
        FoundLevel.SERIES,
        1000,
        f"""select {SHOWN} from plain_series s where "ProtocolName" = 'p777' and "Age" >= 60
        and "StudyDate" > '2015-01-01' order by path limit 1001""",  # noqa: S608 our own text
        QUERY_BAR,
    ),
    Question(
        "selective, by records",
        'Diagnosis == "d4321" and Modality == "MR"',
        FoundLevel.SERIES,
        1000,
        f"""select {SHOWN} from plain_series s where "Modality" = 'MR' and "Subject" in
        (select subject from plain_records_1 where a_1 = 'd4321') order by path limit 1001""",  # noqa: S608 our own text
        QUERY_BAR,
    ),
    Question(
        "selective, images",
        'ProtocolName == "p777" and InstanceNumber == 7',
        FoundLevel.IMAGE,
        1000,
        f"""select {SHOWN}, i.* from images i join plain_series s on i.series = s.id where s."ProtocolName" = 'p777'
        and i."InstanceNumber" = 7 order by s.path, i.name limit 1001""",  # noqa: S608 our own text
        QUERY_BAR,
    ),
    Question(
        "page of a directory",
        'Modality == "MR"',
        FoundLevel.SERIES,
        1000,
        f"""select {SHOWN} from plain_series s where "Modality" = 'MR' order by path limit 1001""",  # noqa: S608 our own text
        PAGE_BAR,
    ),
)


def measure() -> Measured:
    """Fill, ask, compare."""
    rows: list[list[str]] = []
    worst = 0.0
    with site_with("") as site:
        worst = max(worst, on_one(str(site.state / "metadata" / "data" / "metadata.sqlite"), "SQLite", site, rows))
    with running_postgresql() as server, new_database(server) as url, site_with(url) as site:
        worst = max(worst, on_one(url, "PostgreSQL", site, rows))
    return Measured(("database", "what", "ours", "plain SQL", "bar", "met"), rows, worst)


@contextlib.contextmanager
def site_with(url: str) -> Iterator[Site]:
    """Make a site whose metadata service has its database there, or in its own folder."""
    with tempfile.TemporaryDirectory() as folder:
        site = make_site(Path(folder) / "site", pacs="", inclusion=None, deadline=20.0)
        if url:
            own = site.metadata_file.read_text()
            site.metadata_file.write_text(own.replace('"data/metadata.sqlite"', f'"{url}"'))
        yield site


def on_one(where: str, name: str, site: Site, rows: list[list[str]]) -> float:
    """Measure one database; gives the worst ratio."""
    database = open_database(where)
    reader = Principal(site.pki.dns[READER], (), 2e9)
    images = fill_images(database, reader)
    records = fill_records(database)
    database.write_now(_index_plainly)
    for what, speed in (("import of images", images), ("import of records", records)):
        rows.append([name, what, f"{speed:.0f} rows/s", "", f"{IMPORT_BAR:.0f} rows/s", told(speed >= IMPORT_BAR)])
    ratios = []
    for one in QUESTIONS:
        found = ask(database, one, reader)
        ours = median(lambda one=one: ask(database, one, reader))  # type: ignore[misc]
        plain = median(lambda one=one: ask_plainly(database, one))  # type: ignore[misc]
        ratios.append(ours / plain)
        asked = f"{one.name} ({found})"
        rows.append([name, asked, *in_ms(ours, plain, one.bar), told(ours < one.bar)])
    database.close()
    first, page = through_a_mount(site)
    rows.append([name, "first name, through a mount", f"{first * 1e3:.1f} ms", "", "", ""])
    rows.append([name, f"page through a mount ({PAGE})", *in_ms(page, None, PAGE_BAR), told(page < PAGE_BAR)])
    return max(ratios)


def in_ms(ours: float, plain: float | None, bar: float) -> list[str]:
    """Write seconds."""
    return ["" if one is None else f"{one * 1e3:.1f} ms" for one in (ours, plain, bar)]


def through_a_mount(site: Site) -> tuple[float, float]:
    """Give the seconds until a program has one name of a query directory, and a page of names; medians."""
    with running(site) as processes:
        processes.start_metadata()
        processes.start_hospital()
        mountpoint = mountpoint_of(site.state, READER)
        processes.start_mount(READER, mountpoint)
        directory = mountpoint / ".find" / QUESTIONS[-1].query
        begun = time.monotonic()
        while not directory.is_dir():  # the service has yet to hear from its hospital
            assert time.monotonic() - begun < START_SECONDS
            time.sleep(0.1)
        looks = [look(directory) for _ in range(MOUNT_RUNS + 1)][1:]
    return statistics.median(one for one, _ in looks), statistics.median(page for _, page in looks)


def look(directory: Path) -> tuple[float, float]:
    """Open a directory and read names; gives the seconds until the first and until a page of them."""
    begun = time.perf_counter()
    with os.scandir(directory) as entries:
        next(entries)
        first = time.perf_counter() - begun
        assert sum(1 for _ in itertools.islice(entries, PAGE - 1)) == PAGE - 1
        return first, time.perf_counter() - begun


def _index_plainly(connection: sa.Connection) -> None:
    """Give plain SQL tables with the indexes that suit it, and the planner that looks at rows its statistics."""
    indexed = {"series": ("path", "ProtocolName", "Modality", "Subject", "StudyDate"), "records_1": ("a_1",)}
    for table, columns in indexed.items():
        connection.execute(sa.text(f"create table plain_{table} as select * from {table}"))  # noqa: S608 our own text
        for column in (*columns, *(["id"] if table == "series" else [])):
            connection.execute(sa.text(f'create index "plain_{table}_{column}" on plain_{table} ("{column}")'))
        connection.execute(sa.text(f"analyze plain_{table}"))
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("analyze"))


def ask(database: Database, one: Question, who: Principal) -> int:
    """Ask as a reader does, rights and all."""

    def act(connection: sa.Connection) -> int:
        reader = KNOWN.reader(connection, who, 1e9)
        return len(reader.page(Find(one.query, one.level, (), one.limit)).rows)

    return database.read_now(act)


def ask_plainly(database: Database, one: Question) -> int:
    """Run the plain statement."""
    return database.read_now(lambda c: len(c.exec_driver_sql(one.plain).fetchall()))


def median(act: Callable[[], Any]) -> float:
    """Give the median of some runs, after one that warms up."""
    act()
    times = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        act()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def told(is_met: bool) -> str:  # noqa: FBT001 it is what is told
    """Say yes or no."""
    return "yes" if is_met else "no"


def subject_of(number: int) -> str:
    """Give one of many subjects."""
    return SubjectId.from_random(number.to_bytes(10)).text


def fill_images(database: Database, reader: Principal) -> float:
    """Put some as a hospital does, and all others by two statements; gives rows a second of the first."""
    draw = random.Random(7)  # noqa: S311 a seed
    readers = Acl("/O=x/CN=h", (Entry(EntryKind.USER, str(reader.dn), 3),))
    nobody = Acl("/O=x/CN=h", ())
    known = [VersionedAcl(ROOT, 1, readers.encode()), VersionedAcl(OTHERS, 1, nobody.encode())]
    database.write_now(lambda c: set_acls(c, known))
    sample = [series(number, draw) for number in range(SAMPLE // OF_SERIES)]
    begun = time.perf_counter()
    for start in range(0, len(sample), 25):
        database.write_now(lambda c, some=sample[start : start + 25]: [_put(c, one) for one in some])  # type: ignore[misc]
    speed = SAMPLE / (time.perf_counter() - begun)
    whole = {"sqlite": "(abs(random()) % {})", "postgresql": "cast(floor(random() * {}) as bigint)"}[database.dialect]
    count = (IMAGES - SAMPLE) // OF_SERIES
    subjects = sa.Table(
        "subjects", sa.MetaData(), sa.Column("number", sa.Integer, primary_key=True), sa.Column("subject", sa.Text)
    )
    rows = [{"number": number, "subject": subject_of(number)} for number in range(IMAGES // OF_SERIES // 5 + 1)]
    database.write_now(lambda c: (subjects.create(c), c.execute(subjects.insert(), rows)))
    for statement in _bulk(whole, SAMPLE // OF_SERIES, count):
        database.write_now(lambda c, statement=statement: c.exec_driver_sql(statement))  # type: ignore[misc]
    return speed


def _bulk(whole: str, first: int, count: int) -> list[str]:
    """Write the statements that make so many series, and their images."""
    numbers = f"with recursive n(i) as (select {first} union all select i + 1 from n where i < {first + count - 1})"  # noqa: S608 our own text
    modality = f"case {whole.format(3)} when 0 then 'MR' when 1 then 'CT' else 'PT' end"
    protocol, age = f"'p' || {whole.format(2000)}", f"{whole.format(18)} * 5"
    day = f"'201' || {whole.format(10)} || '-0' || (1 + {whole.format(9)}) || '-11'"
    many = 'insert into series (path, visible, chain, class, "Modality", "ProtocolName", "Age", "StudyDate", "Subject")'
    guid = "randomblob(16)" if "abs" in whole else "decode(md5(random()::text || s.id || k.i), 'hex')"
    bytes_, date = ("x'00'", day) if "abs" in whole else ("'\\x00'::bytea", f"({day})::date")
    made_series = f"""{numbers} {many} select '/grid/medical/amc/neuro/sub-bulk/ses-2017/' || (1000000 + i) || '-MR',
        true, (select min(chain) from series), (select min(class) from series), {modality}, {protocol}, {age}, {date},
        (select subject from subjects where number = i / 5) from n"""  # noqa: S608 our own text
    made_images = f"""with recursive k(i) as (select 0 union all select i + 1 from k where i < {OF_SERIES - 1})
        insert into images
        (guid, series, name, inode, sha256, policy, registered, visible, chain, class, "InstanceNumber")
        select {guid}, s.id, k.i || '.dcm', 1, {bytes_}, {bytes_}, 1.0, true, s.chain, s.class, k.i from series s, k
        where s.path like '/grid/medical/amc/neuro/sub-bulk/%%'"""  # noqa: S608 our own text
    return [made_series, made_images]


def _put(connection: sa.Connection, message: PutImages) -> None:
    put_images(connection, message)
    show_series(connection, message.series.path, is_visible=True)


def series(number: int, draw: random.Random) -> PutImages:
    """Make a series; one of ten is not for the reader."""
    subject = subject_of(number // 5)
    path = f"/grid/medical/amc/neuro/sub-{subject}/ses-2017/{number:06d}-MR"
    chain = [[ROOT, ROOT, OTHERS if number % 10 == 3 else ROOT]]
    known: dict[str, str | int | float | bool] = {
        "Project": "neuro",
        "Subject": subject,
        "Modality": draw.choice(["MR", "CT", "PT"]),
        "ProtocolName": f"p{draw.randrange(2000)}",
        "Age": draw.randrange(0, 90, 5),
        "StudyDate": f"20{draw.randrange(10, 20)}-0{draw.randrange(1, 10)}-11",
        "SliceThickness": draw.choice([1.0, 2.0, 5.0]),
    }
    entries = [
        ImageEntry(
            draw.randbytes(16),
            f"{one:04d}.dcm",
            number,
            500_000,
            bytes(32),
            bytes(32),
            1.0,
            chain,
            {"InstanceNumber": one},
        )
        for one in range(OF_SERIES)
    ]
    return PutImages(SeriesEntry(path, chain, known), entries)


def fill_records(database: Database) -> float:
    """Put records as a hospital does; gives rows a second."""
    draw = random.Random(8)  # noqa: S311 a seed
    kinds = {"Diagnosis": "text", "Grade": "integer", "Seen": "date", "Score": "number", "Dead": "boolean"}
    attributes = [AttributeEntry(name, kind) for name, kind in kinds.items()]
    database.write_now(lambda c: define(c, DefineCollection("neuro", "followup", [[ROOT, ROOT]], attributes, {})))
    subjects = IMAGES // OF_SERIES // 5
    batches = [
        PutRecords("neuro", "followup", [record(draw, subjects) for _ in range(BATCH)]) for _ in range(RECORDS // BATCH)
    ]
    begun = time.perf_counter()
    for batch in batches:
        database.write_now(lambda c, batch=batch: put_records(c, batch))  # type: ignore[misc]
    return RECORDS / (time.perf_counter() - begun)


def record(draw: random.Random, subjects: int) -> RecordEntry:
    """Make a record."""
    values: dict[str, str | int | float | bool] = {
        "Diagnosis": f"d{draw.randrange(10_000)}",
        "Grade": draw.randrange(5),
        "Seen": "2016-03-04",
        "Score": draw.random(),
        "Dead": draw.random() < 0.5,
    }
    return RecordEntry(draw.randbytes(16), subject_of(draw.randrange(subjects)), values, draw.randbytes(16))


BENCH = Bench(measure, bar=3.0, at_most=True)
