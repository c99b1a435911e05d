"""The list of a long series: what of it is in memory while it comes."""

from __future__ import annotations

import tracemalloc

from trio.testing import wait_all_tasks_blocked

from mdmfs.hospital.dicom import identifier as tags
from mdmfs.hospital.dicom.remote import open_pacs
from tests.twins.scripted_pacs import CT, EXPLICIT, FIND, PENDING, ScriptedPeer, encode_identifier, serving

COUNT = 400
STUDY, SERIES = "1.2", "1.2.3"
EACH = {
    tags.STUDY_INSTANCE_UID: STUDY,
    tags.SERIES_INSTANCE_UID: SERIES,
    tags.PATIENT_ID: "TEST-1",
    tags.SOP_CLASS_UID: CT,
    tags.AVAILABLE_TRANSFER_SYNTAX_UID: EXPLICIT,
}


def alive() -> int:
    """Count the texts and tables that were made of answers and are still in memory."""
    made = tracemalloc.Filter(inclusive=True, filename_pattern=tags.__file__)
    statistics = tracemalloc.take_snapshot().filter_traces([made]).statistics("filename")
    return sum(it.count for it in statistics)


async def test_of_each_match_of_a_list_its_uid_stays_and_nothing_else() -> None:
    """Nor does the first list stay, of UIDs alone, while a PACS that tells transfer syntaxes is asked again."""
    seen: list[int] = []

    async def listing(peer: ScriptedPeer) -> None:
        await peer.accept()
        while True:
            _, asked = await peer.read_request()
            uids = [f"{SERIES}.{number}" for number in range(COUNT)]
            for uid in uids[:1] if uids[0].encode() in asked else uids:
                await peer.respond(0x8020, FIND, PENDING, encode_identifier({**EACH, tags.SOP_INSTANCE_UID: uid}))
            await wait_all_tasks_blocked()  # until all of it has been read
            seen.append(alive())
            await peer.respond(0x8020, FIND, 0)

    tracemalloc.start()
    try:
        async with serving(listing) as site, open_pacs(site.address) as pacs:
            found = await pacs.find_instances(study_uid=STUDY, series_uid=SERIES, are_described=False)
    finally:
        tracemalloc.stop()
    assert len(found) == COUNT
    assert {(it.class_uid, it.transfer_syntax) for it in found} == {(CT, EXPLICIT)}
    first, _, again = seen
    assert COUNT <= first < 1.1 * COUNT
    assert COUNT <= again < 1.1 * COUNT
