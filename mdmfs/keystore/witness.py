"""The witness: keeps checkpoints of hospitals' audit logs, so that no hospital can write its log anew unseen.

The newest checkpoint of each log says all; of older ones one a minute is kept, to tell where a log was changed.
"""

from __future__ import annotations

from typing import Final

from mdmfs.keystore.shelf import Draft, Page, WitnessRecord
from mdmfs.model.errors import MalformedMessageError
from mdmfs.wire.messages.keystores import AskWitnessed, Outcome, Witness, Witnessed
from mdmfs.wire.messages.message import MAX_BATCH

SECONDS_BETWEEN: Final = 60
MAX_NUMBER: Final = 2**63 - 1
_SIZES: Final = {"journal": 16, "link": 32, "signature": 64}


def parse(message: Witness) -> WitnessRecord:
    """Read a checkpoint; raises ``MalformedMessageError``."""
    is_sized = all(len(getattr(message, name)) == size for name, size in _SIZES.items())
    if not is_sized or not 0 < message.number <= MAX_NUMBER or not 0 <= message.when <= MAX_NUMBER:
        reason = "this is no checkpoint of a log"
        raise MalformedMessageError(reason)
    return WitnessRecord(
        journal=message.journal,
        number=message.number,
        link=message.link,
        when=message.when,
        signature=message.signature,
    )


def keep(draft: Draft, owner: str, record: WitnessRecord) -> Outcome:
    """Keep a checkpoint; CONFLICT for one that is not beyond the latest of its log: what is kept stays."""
    latest = draft.latest_witnesses(owner, record.journal, 2)
    if latest and record.number <= latest[0].number:
        is_same = (record.number, record.link) == (latest[0].number, latest[0].link)
        return Outcome.DONE if is_same else Outcome.CONFLICT
    draft.put_witness(owner, record)
    if len(latest) > 1 and latest[0].when // SECONDS_BETWEEN == latest[1].when // SECONDS_BETWEEN:
        draft.drop_witness(owner, latest[0])
    return Outcome.DONE


def tell(page: Page, owner: str, asked: AskWitnessed) -> Witnessed:
    """Give what is kept of a hospital's logs, log by log, in order; raises ``MalformedMessageError``."""
    if len(asked.journal) not in {0, _SIZES["journal"]} or not 0 <= asked.after < MAX_NUMBER:
        reason = "this is no record of a log"
        raise MalformedMessageError(reason)
    found = page.witnesses(owner, asked.journal, asked.after, MAX_BATCH)
    return Witnessed([_told(record) for record in found], is_last=len(found) < MAX_BATCH)


def _told(record: WitnessRecord) -> Witness:
    return Witness(record.journal, record.number, record.link, record.when, record.signature)
