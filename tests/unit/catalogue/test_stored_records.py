"""How records are kept: each kind with the version of its format, refused when that is unknown."""

from __future__ import annotations

import pytest

from mdmfs.hospital import tables
from mdmfs.hospital.rows import Interned, Stored, add_to, counted, digest_key
from mdmfs.hospital.store import store_layout
from mdmfs.hospital.uidmap.records import SubjectRow
from mdmfs.model.errors import StoreError
from tests.twins.records import counting_random, subject_row
from tests.twins.store import MemoryRows, Table

STORED = Stored(SubjectRow)
ROW = subject_row(1, "Patient-4711")


def test_a_record_comes_back() -> None:
    """Equal to what was kept."""
    assert STORED.decode(STORED.encode(ROW)) == ROW


def test_a_newer_version_is_refused_by_name() -> None:
    """The message says which version was found and what to do."""
    with pytest.raises(StoreError, match="SubjectRow is stored as version 2; this program reads 1"):
        STORED.decode(Stored(SubjectRow, version=2).encode(ROW))


@pytest.mark.parametrize("cut", range(0, 40, 3))
def test_a_damaged_record_is_refused_and_shows_nothing(cut: int) -> None:
    """Cut anywhere, or with an id that is none; neither message holds a value."""
    octets = STORED.encode(ROW)
    for damaged in (octets[:cut], octets.replace(ROW.id.text.encode(), b"UPPER-CASE-AND--")):
        with pytest.raises(StoreError) as caught:
            STORED.decode(damaged)
        shown = str(caught.value) + str(caught.value.__cause__)
        assert "4711" not in shown
        assert "UPPER" not in shown


@pytest.mark.parametrize("found", [b"99", b"0", b"", b"100"])
def test_a_store_of_another_format_is_refused(found: bytes) -> None:
    """Before anything is read from it."""
    rows = MemoryRows(Table(), is_writing=True)
    rows.put(tables.FORMAT + b"store", found)
    with pytest.raises(StoreError, match="the store is"):
        store_layout(counting_random()).begin(rows, "the store")


def test_texts_are_not_confused_in_digests() -> None:
    """Where one ends and the next begins counts."""
    assert digest_key("ab", "c") != digest_key("a", "bc") != digest_key("abc")


def test_a_counter_at_nothing_takes_no_room() -> None:
    """It is there from 1 on."""
    table = Table()
    rows = MemoryRows(table, is_writing=True)
    assert [add_to(rows, b"#c", amount) for amount in (2, 3, -5)] == [2, 5, 0]
    assert (counted(rows, b"#c"), table.keys) == (0, [])


def test_an_interned_value_is_kept_once_and_its_number_never_given_again() -> None:
    """Not to another value, and not to the same one after it was forgotten."""
    rows = MemoryRows(Table(), is_writing=True)
    first, second = (Interned(rows, numbers=b"N", values=b"V", counter=b"#n") for _ in range(2))
    number = first.number_of(b"long")
    assert (second.number_of(b"long"), second.number_of(b"other")) == (number, number + 1)
    assert second.value_of(number) == b"long"
    first.forget(number)
    with pytest.raises(StoreError):
        first.value_of(number)
    assert first.number_of(b"long") == number + 2


def test_tables_do_not_overlap() -> None:
    """Each has one byte of its own."""
    assert {len(table) for table in tables.ALL} == {1}
    assert len(set(tables.ALL)) == len(tables.ALL)
    named = {value for name, value in vars(tables).items() if name.isupper() and isinstance(value, bytes)}
    assert named == set(tables.ALL)
    assert set(tables.ALL) >= tables.ASCENDING
