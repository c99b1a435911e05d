"""With the last file of a subject goes the key of his records, and what others have costs nothing."""

from __future__ import annotations

import msgspec

from mdmfs.hospital import tables
from mdmfs.hospital.keys.amends import destroy
from mdmfs.hospital.ledger.records import TextKeyRecord
from mdmfs.hospital.transaction import RowsTransaction, store_layout
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


def test_the_key_of_records_goes_with_the_last_file_of_all_series_and_no_other_series_is_read() -> None:
    """There may be a million: one that cannot even be read is in nobody's way."""
    rows, random = MemoryRows(Table(), is_writing=True), counting_random()
    store_layout(random).begin(rows, "the store")
    rows.put(tables.SERIES + b"another's", b"damaged")
    tx = RowsTransaction(rows, random=random)
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
