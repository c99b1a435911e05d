"""What is wrong with the shares of one file: decided from what each keystore holds, without I/O."""

from __future__ import annotations

import dataclasses
import enum
import hmac
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mdmfs.hospital.catalogue.records import FileRecord, FileState
from mdmfs.hospital.kept.escrow import key_check
from mdmfs.model.errors import MalformedMessageError
from mdmfs.model.names import Guid
from mdmfs.sharing.shamir import Share, candidates, lying_shares
from mdmfs.wire.messages.keystores import Outcome


class Fault(enum.StrEnum):
    """What is wrong with the share of a file at a keystore."""

    MISSING = "missing"
    """It holds none."""
    STALE = "stale"
    """It holds one of another generation or split than the one that makes the key."""
    WRONG = "wrong"
    """It holds something that is no share of this file, or contradicts the others."""
    SURPLUS = "surplus"
    """It holds one although the file is gone."""
    FOREIGN = "foreign"
    """It says that the GUID is another hospital's."""
    DESTROYED = "destroyed"
    """It has a tombstone for a file that is not gone; that keystore never takes a share of it again."""


class Held(NamedTuple):
    """What one keystore answered."""

    outcome: Outcome
    share: Share | None
    """None also where what it gave is no share of this file."""

    @classmethod
    def parse(cls, guid: Guid, outcome: Outcome, octets: bytes) -> Held:
        """Read an answer; nothing that a keystore sends makes this raise."""
        if outcome is not Outcome.DONE:
            return cls(outcome, None)
        try:
            share = Share.parse(octets)
        except MalformedMessageError:
            return cls(outcome, None)
        return cls(outcome, share if share.guid == guid else None)


def latest_held(guids: Sequence[Guid], answers: Mapping[str, Sequence[Held]]) -> dict[Guid, int]:
    """Give the latest generation of each file that a keystore holds a share of; ``answers`` are in their order."""
    each = zip(guids, *answers.values(), strict=True)
    return {guid: max((one.share.generation for one in held if one.share), default=0) for guid, *held in each}


def holding(files: Sequence[FileRecord], answers: Mapping[str, Sequence[Held]]) -> set[str]:
    """Name the keystores that hold shares of the present keys; ``answers`` are in the order of the files."""

    def is_one(file: FileRecord, held: Held) -> bool:
        return held.share is not None and held.share.generation == file.generation

    return {name for name, held in answers.items() if any(map(is_one, files, held))}


def open_with(files: Sequence[FileRecord], answers: Mapping[str, Sequence[Held]]) -> set[Guid]:
    """Name the files of which k of those that answer hold shares of the present key: ``answers`` as there."""

    def is_open(file: FileRecord, each: Sequence[Held]) -> bool:
        shares = [held.share for held in each if held.share is not None]
        return sum(share.generation == file.generation for share in shares) >= file.threshold

    return {file.guid for file, *each in zip(files, *answers.values(), strict=True) if is_open(file, each)}


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """About one file."""

    faults: Mapping[str, Fault]
    """By keystore."""
    honest: Mapping[str, Share] = dataclasses.field(repr=False)
    """The shares of the split that makes the key, by keystore; none where no key was found."""
    secret: bytes = dataclasses.field(repr=False)
    """The key, or nothing where none was found; whoever judges lets it go at once."""
    is_lost: bool
    """Whether the file is there, and no shares that came make its key."""


def judge(file: FileRecord, held: Mapping[str, Held]) -> Verdict:
    """Judge what the keystores that answered hold of a file."""
    if file.state is FileState.WITHDRAWN:
        surplus = {name: Fault.SURPLUS for name, one in held.items() if one.outcome is Outcome.DONE}
        return Verdict(surplus, {}, b"", is_lost=False)
    current = {name: one.share for name, one in held.items() if one.share and one.share.generation == file.generation}
    secret = _find_key(file, current)
    honest = _honest(secret, current) if secret else {}
    split_id = next((share.split_id for share in honest.values()), b"")
    faults = {name: fault for name, one in held.items() if (fault := _fault(name, one, file, honest, split_id))}
    return Verdict(faults, honest, secret, is_lost=not secret)


def _find_key(file: FileRecord, current: Mapping[str, Share]) -> bytes:
    for _, secret in candidates(current.values()):
        if hmac.compare_digest(key_check(secret, file.guid, file.generation), file.key_check):
            return secret
    return b""


def _honest(secret: bytes, current: Mapping[str, Share]) -> dict[str, Share]:
    """Give the shares that make the key: of the split that most keystores hold rightly."""
    lies = lying_shares(secret, current.values())
    splits: dict[tuple[bytes, int, int], dict[str, Share]] = defaultdict(dict)
    for name, share in current.items():
        if share not in lies:
            splits[share.split_id, share.threshold, share.total][name] = share
    enough = [split for (_, threshold, _), split in splits.items() if len(split) >= threshold]
    return max(enough, key=len, default={})


def _fault(name: str, held: Held, file: FileRecord, honest: Mapping[str, Share], split_id: bytes) -> Fault | None:
    if name in honest:
        return None
    match held.outcome:
        case Outcome.UNKNOWN | Outcome.CONFLICT | Outcome.STALE:
            return Fault.MISSING
        case Outcome.DENIED:
            return Fault.FOREIGN
        case Outcome.DESTROYED:
            return Fault.DESTROYED
        case Outcome.DONE:
            return _fault_of(held.share, file, split_id)


def _fault_of(share: Share | None, file: FileRecord, split_id: bytes) -> Fault | None:
    if share is None:
        return Fault.WRONG
    if share.generation != file.generation or (split_id and share.split_id != split_id):
        return Fault.STALE
    return Fault.WRONG if split_id else None
