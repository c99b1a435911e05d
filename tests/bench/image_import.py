"""Images all the way: what registration leaves in the hospital's outbox, until metadatad shows every one of them.

Real processes, on SQLite and on PostgreSQL. Registration itself goes at the PACS's pace (``./run bench register``), so
its transactions are made here through the store's own ports, with hospitald away. Bar: 5,000 images a second, from the
first that lies in the service's database to the last; the ratio is the slower rate over that. Series of one image have
no bar: each brings a row more.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import sqlalchemy as sa
import trio

from mdmfs.demo.processes import running
from mdmfs.demo.site import Site
from mdmfs.hospital.lmdb_store import LmdbStore
from mdmfs.hospital.metadata.attributes import Attributes, AttributeValue
from mdmfs.hospital.metadata.outgoing import send_images, send_shown
from mdmfs.hospital.store import Transaction
from mdmfs.metadata.store.database import open_database
from mdmfs.metadata.store.tables import IMAGES, SERIES
from tests.bench._catalogue import BATCH, Series, register, series
from tests.bench._frame import Bench, Measured
from tests.bench.find import site_with
from tests.twins.postgresql import new_database, running_postgresql

COUNT = int(os.environ.get("BENCH_IMAGES", "50000"))
VOLUME = 60
"""Images; registration remembers at most 64 at a time."""
BAR_ROWS = 5000.0
SECONDS = 300.0
POLL_SECONDS = 0.1
KNOWN: dict[str, AttributeValue] = {
    "Modality": "MR",
    "Manufacturer": "SIEMENS",
    "ManufacturerModelName": "Avanto",
    "BodyPartExamined": "HEAD",
    "ProtocolName": "t1_mprage_sag",
    "SeriesDescription": "t1_mprage_sag_p2_iso",
    "StudyDate": "2016-03-04",
    "SeriesDate": "2016-03-04",
    "Sex": "F",
    "Age": 60,
    "SeriesNumber": 3,
    "Rows": 512,
    "Columns": 512,
    "PixelSpacing": 0.9,
    "SliceThickness": 1.0,
    "RepetitionTime": 2200.0,
    "MagneticFieldStrength": 1.5,
}


def measure() -> Measured:
    """Import on both."""
    table, rates = [], []
    for name in ("SQLite", "PostgreSQL"):
        for of_series, count in ((VOLUME, COUNT), (1, COUNT // 10)):
            rate = on_sqlite(of_series, count) if name == "SQLite" else on_postgresql(of_series, count)
            rates += [rate] if of_series == VOLUME else []
            table.append([name, str(count), str(of_series), f"{rate:.0f} images/s"])
    return Measured(("database", "images", "of each series", "import, end to end"), table, min(rates) / BAR_ROWS)


def on_sqlite(of_series: int, count: int) -> float:
    """Import into a file."""
    with site_with("") as site:
        return imported(site, str(site.state / "metadata" / "data" / "metadata.sqlite"), of_series, count)


def on_postgresql(of_series: int, count: int) -> float:
    """Import into a database of a server."""
    with running_postgresql() as server, new_database(server) as url, site_with(url) as site:
        return imported(site, url, of_series, count)


def imported(site: Site, where: str, of_series: int, count: int) -> float:
    """Fill the outbox, let the daemons run, and wait; gives images a second."""
    wanted = count // of_series * of_series
    with running(site) as processes:
        processes.start_hospital()  # it makes the directory of its project
        processes.stop("hospital")
        trio.run(fill, site, of_series, count // of_series)
        processes.start_metadata()
        database = open_database(where)
        processes.start_hospital()
        first, begun = wait_for(lambda: database.read_now(shown), 1)
        _, ended = wait_for(lambda: database.read_now(shown), wanted)
        database.close()
    return (wanted - first) / (ended - begun)


def wait_for(counted: Callable[[], int], wanted: int) -> tuple[int, float]:
    """Wait until there are so many; gives how many there are, and when."""
    end = time.monotonic() + SECONDS
    while (found := counted()) < wanted:
        assert time.monotonic() < end, f"{found} of {wanted}"
        time.sleep(POLL_SECONDS)
    return found, time.monotonic()


def shown(connection: sa.Connection) -> int:
    """Count the images that can be found."""
    joined = sa.select(sa.func.count()).select_from(IMAGES.join(SERIES, SERIES.c.id == IMAGES.c.series))
    return int(connection.execute(joined.where(SERIES.c.visible, IMAGES.c.visible)).scalar_one())


async def fill(site: Site, of_series: int, count: int) -> None:
    """Register series as registration does, as far as the metadata service hears of it."""
    store = LmdbStore.open(site.hospital_directory / "store")
    for start in range(0, count, BATCH):
        batch = [series(number, of_series) for number in range(start, min(start + BATCH, count))]
        await store.write(lambda tx, batch=batch: remember(tx, batch))  # type: ignore[misc]
    await store.aclose()


def remember(tx: Transaction, batch: list[Series]) -> None:
    """Keep series, and put what is told of them into the outbox."""
    register(tx, batch)
    for one in batch:
        attributes = {
            file.guid: Attributes(KNOWN, {"InstanceNumber": number, "SliceLocation": 0.9 * number, "EchoTime": 3.0})
            for number, (_, file, _) in enumerate(one.files)
        }
        send_images(tx, one.lfn, attributes)
        send_shown(tx, one.lfn)


BENCH = Bench(measure, bar=1.0)
"""A ratio of at least 1."""
