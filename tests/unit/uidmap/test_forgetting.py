"""What was forgotten has left no row behind."""

from __future__ import annotations

import pytest

from mdmfs.hospital import tables
from mdmfs.hospital.store import Transaction, store_layout
from tests.twins.records import (
    counting_random,
    guid_of,
    instance_of,
    quarantined,
    series_record,
    subject_of,
    subject_row,
)
from tests.twins.store import MemoryRows, Table


@pytest.fixture
def table() -> Table:
    """Give the rows of an empty store."""
    return Table()


@pytest.fixture
def tx(table: Table) -> Transaction:
    """Begin a transaction on them that never ends."""
    rows, random = MemoryRows(table, is_writing=True), counting_random()
    store_layout(random).begin(rows, "the store")
    return Transaction(rows, random=random)


def rows(table: Table) -> dict[bytes, bytes]:
    """Give all rows but the counters of numbers that are never given twice."""
    return {key: value for key, value in table.values.items() if not key.startswith(tables.COUNTERS)}


def test_forgetting_everything_leaves_an_empty_store(tx: Transaction, table: Table) -> None:
    """Subjects, instances of two contexts, a series, a refusal, an outbox item: no row of them is left."""
    before = rows(table)
    tx.subjects.admit("neuro", "AMC", "1", lambda: subject_row(1, "1"))
    for number in range(6):
        tx.uidmap.tie(guid_of(number), instance_of(number // 2, series=number % 2))
    tx.series.put(series_record(1))
    tx.quarantine.put(quarantined(1))
    number = tx.outbox.push("key1", "shares", series_record(1).key.octets(), b"x")
    assert len(rows(table)) > len(before) + 20
    tx.subjects.delete(subject_of(1))
    for guid in range(6):
        tx.uidmap.untie(guid_of(guid))
    tx.series.remove(series_record(1).key)
    tx.quarantine.remove(quarantined(1).series, quarantined(1).instance_uid)
    tx.outbox.drop("key1", [number])
    assert rows(table) == before


def test_no_row_outside_its_own_names_a_patient(tx: Transaction, table: Table) -> None:
    """The Patient ID stands in the subject's row and nowhere else: keys hold digests."""
    tx.subjects.admit("neuro", "AMC", "Patient-4711", lambda: subject_row(1, "Patient-4711"))
    tx.uidmap.tie(guid_of(1), instance_of(1))
    holding = [key for key, value in table.values.items() if b"Patient-4711" in key + value]
    assert [key[:1] for key in holding] == [tables.SUBJECTS]
