"""What is remembered of an instance that is refused again, for another reason."""

from __future__ import annotations

import msgspec
import pytest

from mdmfs.hospital.deid.refusal import Reason
from mdmfs.hospital.registration.remember import remember_refusal
from mdmfs.hospital.store import Transaction, store_layout
from tests.twins.records import counting_random, quarantined
from tests.twins.store import MemoryRows, Table


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (Reason.MOVED_PATIENT, Reason.OTHER_PATIENT, Reason.MOVED_PATIENT),
        (Reason.MOVED_PATIENT, Reason.RESIDUE, Reason.RESIDUE),
        (Reason.OTHER_PATIENT, Reason.OTHER_PATIENT, Reason.OTHER_PATIENT),
        (Reason.RESIDUE, Reason.OTHER_PATIENT, Reason.OTHER_PATIENT),
    ],
)
def test_what_shows_again_with_its_patient_was_put_away_for_him_alone(
    before: Reason, now: Reason, expected: Reason
) -> None:
    """What is refused for what it holds, or came with a series of somebody else, is not shown when that one is back."""
    rows, random = MemoryRows(Table(), is_writing=True), counting_random()
    store_layout(random).begin(rows, "the store")
    tx, record = Transaction(rows, random=random), quarantined(1)
    for reason in (before, now):
        remember_refusal(tx, msgspec.structs.replace(record, reason=reason.value))
    kept = tx.quarantine.get(record.series, record.instance_uid)
    assert kept is not None
    assert kept.reason == expected
