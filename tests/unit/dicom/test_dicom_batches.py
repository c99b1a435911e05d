"""How a recall is cut into requests: pure, before anything is asked."""

from __future__ import annotations

from pydicom.uid import UID

from mdmfs.hospital.dicom.negotiation import MAX_STORAGE_CONTEXTS
from mdmfs.hospital.dicom.pacs import InstanceKey
from mdmfs.hospital.dicom.recall import (
    USUAL_CLASSES,
    USUAL_TRANSFER_SYNTAXES,
    Level,
    image_batches,
    rare_offers,
    series_batches,
)

EXPLICIT, JPEG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50"


def keys(count: int, *, series: int = 1, class_uid: str = "1.1", syntax: str | None = EXPLICIT) -> list[InstanceKey]:
    """Name instances of one series."""
    return [InstanceKey("1.2", f"1.2.{series}", f"1.2.{series}.{it}", class_uid, syntax) for it in range(count)]


def test_what_is_wanted_first_is_asked_for_first() -> None:
    """In lists of 32, and all of it once."""
    wanted = keys(70)
    batches = list(image_batches(wanted, 32))
    assert [len(batch.keys) for batch in batches] == [32, 32, 6]
    assert [key for batch in batches for key in batch.keys] == wanted


def test_a_request_is_about_one_series_one_class_and_one_transfer_syntax() -> None:
    """However they are mixed: a PACS must have no choice."""
    parts = [keys(3), keys(3, series=2), keys(3, series=3, class_uid="1.9"), keys(3, series=3, syntax=JPEG)]
    mixed = [key for row in zip(*parts, strict=True) for key in row]
    batches = list(image_batches(mixed, 32))
    assert [list(batch.keys) for batch in batches] == parts
    assert [batch.offer for batch in batches] == [
        {"1.1": (EXPLICIT,)},
        {"1.1": (EXPLICIT,)},
        {"1.9": (EXPLICIT,)},
        {"1.1": (JPEG,)},
    ]


def test_a_series_of_unknown_transfer_syntax_is_offered_all_usual_ones() -> None:
    """In one request at SERIES level."""
    (batch,) = series_batches(keys(1000, syntax=None), 32)
    assert batch.level is Level.SERIES
    assert batch.offer == {"1.1": USUAL_TRANSFER_SYNTAXES}


def test_more_classes_than_one_association_can_carry_are_asked_for_in_lists() -> None:
    """Each in an association of its own."""
    wanted = [key for number in range(10) for key in keys(2, series=number, class_uid=f"1.{number}", syntax=None)]
    batches = list(series_batches(wanted, 32))
    assert [batch.level for batch in batches] == [Level.IMAGE] * 10
    assert all(sum(map(len, batch.offer.values())) <= MAX_STORAGE_CONTEXTS for batch in batches)


def test_an_unknown_class_is_offered_as_the_usual_ones() -> None:
    """As many as one association carries."""
    (batch,) = series_batches(keys(3, class_uid="", syntax=None), 32)
    assert set(batch.offer) == set(USUAL_CLASSES)
    assert sum(map(len, batch.offer.values())) <= MAX_STORAGE_CONTEXTS


def test_nothing_is_asked_for_an_empty_series() -> None:
    """No request at all."""
    assert list(series_batches([], 32)) == []


def test_native_and_lossless_transfer_syntaxes_stand_before_lossy_ones() -> None:
    """A PACS that takes the first, or converts for want of a better one, must not lose anything."""
    lossy = {"JPEG Baseline", "JPEG Extended"}
    names = [UID(it).name for it in USUAL_TRANSFER_SYNTAXES]
    first_lossy = next(index for index, name in enumerate(names) if any(name.startswith(it) for it in lossy))
    assert first_lossy == 7
    assert not any(UID(it).is_compressed for it in USUAL_TRANSFER_SYNTAXES[:2])
    assert not any(UID(it).is_private for it in (*USUAL_TRANSFER_SYNTAXES, *USUAL_CLASSES))


def test_unusual_classes_are_spread_over_associations() -> None:
    """The configured ones first, each class once, none of the usual ones, and no association with too many contexts."""
    configured = ("1.3.12.2.1107.5.9.1", "1.2.840.10008.5.1.4.1.1.5")
    offers = rare_offers(configured)
    assert list(offers[0])[:2] == list(configured)
    offered = [class_uid for offer in offers for class_uid in offer]
    assert len(offered) == len(set(offered)) > 150
    assert not set(offered) & set(USUAL_CLASSES)
    assert all(sum(map(len, offer.values())) <= MAX_STORAGE_CONTEXTS for offer in offers)
