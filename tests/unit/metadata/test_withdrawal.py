"""With the last file of a subject goes the key of his records, and what others have costs nothing."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from mdmfs.hospital import tables
from mdmfs.hospital.keys.amends import destroy
from mdmfs.hospital.ledger.records import TextKeyRecord
from mdmfs.hospital.store import Transaction, store_layout
from mdmfs.model.names import Lfn
from tests.twins.records import (
    OWNER_ONLY,
    counting_random,
    guid_of,
    instance_of,
    new_file,
    series_record,
    subject_of,
)
from tests.twins.store import MemoryRows, Table


class CountingRows(MemoryRows):
    """Rows that count how many of them are read."""

    count = 0

    def get(self, key: bytes) -> bytes | None:
        """Count one."""
        self.count += 1
        return super().get(key)

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Count each."""
        for row in super().scan(prefix, start):
            self.count += 1
            yield row


@pytest.mark.parametrize("series", [1, 6])
def test_while_a_file_of_a_subject_shows_a_withdrawal_reads_no_more_the_more_there_are(series: int) -> None:
    """Of 100,000 files 500 are withdrawn at a time, and whoever writes waits for it."""
    read = []
    for count in (10, 200):
        table = Table()
        rows, random = MemoryRows(table, is_writing=True), counting_random()
        store_layout(random).begin(rows, "the store")
        tx = Transaction(rows, random=random)
        fill(tx, series, count)
        for number in range(count * (series - 1)):  # all but the last series have gone
            destroy(tx, [guid_of(number)])
        tx.finish()
        counting = CountingRows(table, is_writing=True)
        destroy(Transaction(counting, random=random), [guid_of(count * series - 1)])
        read.append(counting.count)
    assert read[0] == read[1]


def fill(tx: Transaction, series: int, count: int) -> None:
    """Register some series of a subject, with some files each, who has records."""
    for place in range(series):
        lfn = Lfn(("amc", "neuro", f"sub-{subject_of(1)}", "ses-1", f"{place:03d}-MR"))
        tx.catalogue.make_directories(lfn, acl=OWNER_ONLY)
        tx.series.put(msgspec.structs.replace(series_record(place), lfn=lfn))
        for number in range(place * count, (place + 1) * count):
            tx.catalogue.add_file(lfn / f"{number:05}.dcm", new_file(number))
            tx.uidmap.tie(guid_of(number), instance_of(number, series=place))
        tx.catalogue.show_all(lfn)
    tx.records.put_key(TextKeyRecord(subject_of(1), "findings", guid_of(10**6).octets, b"check", 2))


def test_the_key_of_records_goes_with_the_last_file_of_all_series_and_no_other_series_is_read() -> None:
    """There may be a million: one that cannot even be read is in nobody's way."""
    rows, random = MemoryRows(Table(), is_writing=True), counting_random()
    store_layout(random).begin(rows, "the store")
    rows.put(tables.SERIES + b"another's", b"damaged")
    tx = Transaction(rows, random=random)
    session = Lfn(("amc", "neuro", f"sub-{subject_of(1)}", "ses-1"))
    for number in (1, 2, 3):
        lfn = session / f"{number:03d}-MR"
        tx.catalogue.make_directories(lfn, acl=OWNER_ONLY)
        tx.series.put(msgspec.structs.replace(series_record(number), lfn=lfn))
        tx.catalogue.add_file(lfn / "0001.dcm", new_file(number))
        tx.uidmap.tie(guid_of(number), instance_of(number, series=number))
    tx.catalogue.show([guid_of(1), guid_of(2)])  # the third never shows
    key = TextKeyRecord(subject_of(1), "findings", guid_of(9).octets, b"check", 2)
    tx.records.put_key(key)
    destroy(tx, [guid_of(1), guid_of(2)])
    assert tx.records.keys_of(subject_of(1)) == [key]
    destroy(tx, [guid_of(3)])
    assert tx.records.keys_of(subject_of(1)) == []
