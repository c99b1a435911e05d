"""One series in its PACS, while it is registered: brought whole or as far as it is missing, and counted once more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager

from mdmfs.hospital.dicom.pacs import IncomingInstance, InstanceFound, InstanceKey, SeriesFound
from mdmfs.hospital.dicom.paging import LEAST_LIMIT
from mdmfs.hospital.hospital import KnownPacs
from mdmfs.hospital.uidmap.records import SubjectRow
from mdmfs.model.errors import RecallFailedError


def arriving(
    known: KnownPacs, found: SeriesFound, instances: Sequence[InstanceFound], missing: Sequence[InstanceFound]
) -> AbstractAsyncContextManager[AsyncIterator[IncomingInstance]]:
    """Ask for the whole series at once, or for the instances that an earlier run has left."""
    study, series = found.study_uid, found.series_uid
    if len(missing) == len(instances):
        return known.pacs.retrieve_series(study_uid=study, series_uid=series, instances=instances)
    return known.pacs.retrieve(
        [InstanceKey(study, series, one.instance_uid, one.class_uid, one.transfer_syntax) for one in missing]
    )


def is_of(found: SeriesFound, row: SubjectRow) -> bool:
    """Tell whether the PACS has a series under this patient; an issuer counts where the PACS names one."""
    return found.patient_id == row.patient_id and found.issuer in {"", row.issuer}


def is_of_another(here: Sequence[SeriesFound], row: SubjectRow) -> bool:
    """Tell whether the PACS has a series under other patients only; where it names none, nothing is known."""
    return any(it.patient_id for it in here) and not any(is_of(it, row) for it in here)


async def is_stable(
    known: KnownPacs, found: SeriesFound, instances: Sequence[InstanceFound], here: Sequence[SeriesFound]
) -> bool:
    """Count again: a series that still grows waits for the next harvest; ``here`` is how the PACS has it by now.

    Where the PACS keeps the count itself (0020,1209) and it agrees, that short answer tells; else all are listed again.
    Raises ``RecallFailedError`` for a list that stays shorter than the PACS's own count: its answers are limited.
    """
    counted = here[-1].instance_count if here else None
    if counted == len(instances):
        return True
    again = await known.pacs.find_instances(study_uid=found.study_uid, series_uid=found.series_uid, are_described=False)
    is_same = {one.instance_uid for one in again} == {one.instance_uid for one in instances}
    if is_same and counted is not None and counted > len(instances) >= LEAST_LIMIT:
        message = f"the PACS counts {counted} instances of a series and names {len(instances)}: it limits its answers"
        raise RecallFailedError(message)
    return is_same
