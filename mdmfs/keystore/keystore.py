"""The keystore: keeps one share of each file key, and decides alone who may have it. It never sees a whole key.

Only the hospitals it is configured for may write, and each sees and touches its own entries alone. Every GUID of a
batch is decided by itself. What is not known is refused.
"""

from __future__ import annotations

import functools
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, TypeVar

import prometheus_client
import structlog

from mdmfs.access.acl import ACL_ID_SIZE, Acl
from mdmfs.keystore import witness
from mdmfs.keystore.handout import Handout
from mdmfs.keystore.notary import Notary
from mdmfs.keystore.shelf import AclRecord, Draft, EpochRecord, KeyRecord, Page, Shelf, Tombstone
from mdmfs.model.errors import (
    AccessDeniedError,
    ConfigurationError,
    MalformedMessageError,
    MalformedNameError,
    StoreError,
)
from mdmfs.model.identity import Dn, Principal
from mdmfs.model.names import Guid
from mdmfs.sharing.shamir import Share
from mdmfs.wire.currency import NOTHING_KNOWN, Currency, Hearing, KnownEpoch
from mdmfs.wire.messages.key_tasks import Certificate
from mdmfs.wire.messages.keystores import (
    AskEpoch,
    AskStatus,
    AskWitnessed,
    Certify,
    Collect,
    Collected,
    ConfirmEpoch,
    EpochHeld,
    KeyEntry,
    KeyStatus,
    Outcome,
    Outcomes,
    Register,
    SetAcls,
    Statuses,
    Unregister,
    VersionedAcl,
    Witness,
    Witnessed,
)
from mdmfs.wire.messages.message import MAX_BATCH

MAX_ALIASES: Final = 64
MAX_CHAIN: Final = 256
MAX_ACL_VERSION: Final = 2**63 - 1
GUIDS_A_LINE: Final = 100
ASKED_SHARES: Final = prometheus_client.Counter("mdmfs_asked_shares", "Shares asked for, by outcome.", ["outcome"])
BRIEF_BATCH: Final = 64
"""As many as are asked for at once by who reads in order, ``order.PROVEN``: 32 took 0.7 ms of CPU, 1.1 with a thread.

What is not in memory holds up the loop while it is read from the disk.
"""

T = TypeVar("T")


class Keystore:
    """What a keystore does, whoever carries the messages; the connection has proven the principal.

    Every method raises ``CredentialExpiredError``, ``StoreError`` and, for what the protocol does not know,
    ``MalformedMessageError``: nothing of the batch is done then. All but ``collect`` raise ``AccessDeniedError`` to
    everyone but a listed hospital.
    """

    def __init__(
        self,
        shelf: Shelf,
        hospitals: Collection[Dn],
        clock: Callable[[], float] = time.time,
        currency: Currency | None = None,
        notary: Notary | None = None,
    ) -> None:
        """Work on a shelf for these hospitals. ``notary`` signs certificates; without one there are none."""
        self._notary = notary
        self._shelf = shelf
        self._currency = currency or Currency()
        self._hearing = Hearing(self._currency, self._known_epoch, self._know_epoch)
        self._hospitals = frozenset(hospitals)
        self._clock = clock
        """Seconds since the epoch."""
        self._log: Any = structlog.get_logger("mdmfs.keystore").bind()  # unbound, it binds itself for each line

    async def register(self, principal: Principal, message: Register) -> Outcomes:
        """Keep shares of the calling hospital.

        DONE: it is kept, also when the identical entry was already. CONFLICT: another share or other ACL ids of the
        same generation, or a later one, are there and stay, unless the entry names the split that it replaces.
        DESTROYED: the hospital has destroyed this GUID. DENIED: the GUID is another hospital's.
        """
        owner = self._owner(principal)
        entries = [_parse_entry(owner, entry) for entry in _limited(message.entries)]
        outcomes = await self._shelf.write(lambda draft: [_keep(draft, *entry) for entry in entries])
        self._tell("register", principal, [share.guid for share, _, _ in entries], outcomes)
        return Outcomes(outcomes)

    async def collect(self, principal: Principal, message: Collect) -> Collected:
        """Give the shares that this principal may have: a hospital its own, anybody what the ACLs allow him to read.

        DENIED: this keystore decided so. UNKNOWN: it holds nothing. DESTROYED: whoever owned the GUID destroyed it.
        STALE: it has yet to hear what the hospital decided lately, and gives its shares to the hospital alone.
        """
        now = self._clock()
        principal.refuse_expired(now)
        guids = _parse_guids(message.guids)
        is_brief = len(guids) <= BRIEF_BATCH
        answers = await self._shelf.read(
            lambda page: Handout(page, principal, self._hospitals, now, self._currency.is_current).answer(guids),
            is_brief=is_brief,
        )
        outcomes = [answer.outcome for answer in answers]
        for outcome, count in Counter(outcomes).items():
            _asked_shares(outcome).inc(count)
        self._tell("collect", principal, guids, [answer.reason or answer.outcome for answer in answers])
        return Collected(outcomes, [answer.share for answer in answers])

    async def unregister(self, principal: Principal, message: Unregister) -> Outcomes:
        """Destroy shares of the calling hospital for ever, those too that it never registered or has destroyed before.

        DONE: from now on the hospital keeps nothing here under this GUID. DENIED: the GUID is another hospital's.
        """
        owner = self._owner(principal)
        guids = _parse_guids(message.guids)
        tombstone = Tombstone(owner=owner, destroyed_at=self._clock())
        outcomes = await self._shelf.write(lambda draft: [_destroy(draft, guid, tombstone) for guid in guids])
        self._tell("unregister", principal, guids, outcomes)
        return Outcomes(outcomes)

    async def set_acls(self, principal: Principal, message: SetAcls) -> Outcomes:
        """Know ACLs of the calling hospital; its ids never meet another hospital's.

        DONE: it is known, also when the identical one was already. CONFLICT: a later version, or another ACL of the
        same version, is there and stays.
        """
        owner = self._owner(principal)
        records = [(acl.id, _parse_acl(acl)) for acl in _limited(message.acls)]
        outcomes = await self._shelf.write(lambda draft: [_know(draft, owner, *record) for record in records])
        by_outcome: dict[Outcome, dict[str, int]] = defaultdict(dict)
        for (acl_id, record), outcome in zip(records, outcomes, strict=True):
            by_outcome[outcome][acl_id.hex()] = record.version
        for outcome, versions in by_outcome.items():
            self._log.info("set-acls", dn=owner, result=str(outcome), acls=versions)
        return Outcomes(outcomes)

    async def certify(self, principal: Principal, message: Certify) -> Certificate:
        """Certify what is destroyed here of GUIDs of the calling hospital, and name what is not.

        Raises ``ConfigurationError`` where nothing can be signed.
        """
        owner = self._owner(principal)
        guids = _parse_guids(message.guids)
        if self._notary is None:
            reason = "this keystore has no key to sign certificates with"
            raise ConfigurationError(reason)
        destroyed = await self._shelf.read(lambda page: {guid: _destroyed_at(page, guid, owner) for guid in guids})
        told = ["not destroyed" if destroyed[guid] is None else "destroyed" for guid in guids]
        self._tell("certify", principal, guids, told)
        return self._notary.certify(owner, destroyed, self._clock())

    async def witness(self, principal: Principal, message: Witness) -> Outcomes:
        """Keep a checkpoint of the calling hospital's audit log.

        DONE: it is kept. CONFLICT: the log was further already, or is another than it was.
        """
        owner = self._owner(principal)
        record = witness.parse(message)
        outcome = await self._shelf.write(lambda draft: witness.keep(draft, owner, record))
        if outcome is not Outcome.DONE:
            self._log.error("an audit log goes back", dn=owner, journal=record.journal.hex(), number=record.number)
        return Outcomes([outcome])

    async def witnessed(self, principal: Principal, message: AskWitnessed) -> Witnessed:
        """Give a page of what is kept of the calling hospital's audit logs."""
        owner = self._owner(principal)
        return await self._shelf.read(lambda page: witness.tell(page, owner, message))

    async def status(self, principal: Principal, message: AskStatus) -> Statuses:
        """Tell what is kept of GUIDs of the calling hospital; DENIED where the GUID is another hospital's."""
        owner = self._owner(principal)
        guids = _parse_guids(message.guids)
        statuses = await self._shelf.read(lambda page: [_status_of(page, owner, guid) for guid in guids])
        self._tell("status", principal, guids, [status.outcome for status in statuses])
        return Statuses(statuses)

    async def epoch(self, principal: Principal, message: AskEpoch) -> EpochHeld:
        """Tell up to where the calling hospital's changes are known; waits as ``AskEpoch`` says."""
        return await self._hearing.epoch(self._owner(principal), message)

    async def confirm(self, principal: Principal, message: ConfirmEpoch) -> EpochHeld:
        """Believe the calling hospital that all its changes up to an epoch have been told; from here on it is current.

        Raises ``MalformedMessageError`` for a nonce that is not known: then the hospital asks again.
        """
        return await self._hearing.confirm(self._owner(principal), message)

    async def _known_epoch(self, owner: str) -> KnownEpoch:
        held = await self._shelf.read(lambda page: page.epoch(owner), is_brief=True)
        return NOTHING_KNOWN if held is None else KnownEpoch(held.epoch, held.mark)

    async def _know_epoch(self, owner: str, known: KnownEpoch) -> None:
        record = EpochRecord(epoch=known.epoch, mark=known.mark)
        await self._shelf.write(lambda draft: draft.put_epoch(owner, record))

    def _owner(self, principal: Principal) -> str:
        principal.refuse_expired(self._clock())
        if principal.dn not in self._hospitals:
            self._log.warning("refused", dn=str(principal.dn), reason="not a listed hospital")
            message = "only the hospitals that this keystore lists may do that; its configuration names them by DN"
            raise AccessDeniedError(message)
        return str(principal.dn)

    def _tell(self, event: str, principal: Principal, guids: Sequence[Guid], results: Sequence[str]) -> None:
        """Log what became of every GUID, some hundred GUIDs a line."""
        by_result = defaultdict(list)
        for guid, result in zip(guids, results, strict=True):
            by_result[str(result)].append(str(guid))
        for result, names in by_result.items():
            for start in range(0, len(names), GUIDS_A_LINE):
                self._log.info(event, dn=str(principal.dn), result=result, guids=names[start : start + GUIDS_A_LINE])


@functools.cache
def _asked_shares(outcome: Outcome) -> prometheus_client.Counter:
    """Remembered: to look it up costs more than to count."""
    return ASKED_SHARES.labels(outcome)


def _keep(draft: Draft, share: Share, record: KeyRecord, replaces: bytes) -> Outcome:
    if _is_destroyed(draft, share.guid, record.owner):
        return Outcome.DESTROYED
    held = draft.key(share.guid)
    if held == record:
        return Outcome.DONE
    if held is not None and held.owner != record.owner:
        return Outcome.DENIED
    if held is not None and not _may_follow(share, _parse_held(held), replaces):
        return Outcome.CONFLICT
    draft.put_key(share.guid, record)
    return Outcome.DONE


def _may_follow(share: Share, held: Share, replaces: bytes) -> bool:
    """Whether a share may take the place of another: of a later generation, or of the same where that one is named.

    What lies there and is of another file may always go: it is some damage, and no share.
    """
    if held.guid != share.guid or share.generation > held.generation:
        return True
    return share.generation == held.generation and held.split_id == replaces


def _destroy(draft: Draft, guid: Guid, tombstone: Tombstone) -> Outcome:
    if _is_destroyed(draft, guid, tombstone.owner):
        return Outcome.DONE
    held = draft.key(guid)
    if held is not None and held.owner != tombstone.owner:
        return Outcome.DENIED
    draft.bury(guid, tombstone)
    return Outcome.DONE


def _know(draft: Draft, owner: str, acl_id: bytes, record: AclRecord) -> Outcome:
    held = draft.acl(owner, acl_id)
    if held == record:
        return Outcome.DONE
    if held is not None and record.version <= held.version:
        return Outcome.CONFLICT
    draft.put_acl(owner, acl_id, record)
    return Outcome.DONE


def _status_of(page: Page, owner: str, guid: Guid) -> KeyStatus:
    held = page.key(guid)
    if held is None:
        return KeyStatus(Outcome.DESTROYED if _is_destroyed(page, guid, owner) else Outcome.UNKNOWN)
    if held.owner != owner:
        return KeyStatus(Outcome.DENIED)
    share = _parse_held(held)
    return KeyStatus(Outcome.DONE, share.generation, share.split_id)


def _is_destroyed(page: Page, guid: Guid, owner: str) -> bool:
    return _destroyed_at(page, guid, owner) is not None


def _destroyed_at(page: Page, guid: Guid, owner: str) -> float | None:
    return next((stone.destroyed_at for stone in page.tombstones(guid) if stone.owner == owner), None)


def _parse_held(record: KeyRecord) -> Share:
    try:
        return Share.parse(record.share)
    except MalformedMessageError as error:
        message = "a share on the shelf is damaged"
        raise StoreError(message, what_to_do="restore the shelf from its backup: mdmfs restore") from error


def _parse_entry(owner: str, entry: KeyEntry) -> tuple[Share, KeyRecord, bytes]:
    aliases = tuple(tuple(chain) for chain in entry.aliases)
    if len(aliases) > MAX_ALIASES or any(len(chain) > MAX_CHAIN for chain in aliases):
        message = f"a key entry has at most {MAX_ALIASES} aliases of at most {MAX_CHAIN} ACLs"
        raise MalformedMessageError(message)
    for acl_id in (acl_id for chain in aliases for acl_id in chain):
        _refuse_bad_id(acl_id)
    return Share.parse(entry.share), KeyRecord(owner=owner, share=entry.share, aliases=aliases), entry.replaces


def _parse_acl(message: VersionedAcl) -> AclRecord:
    _refuse_bad_id(message.id)
    if not 0 <= message.version <= MAX_ACL_VERSION:
        reason = f"the version of an ACL is not between 0 and {MAX_ACL_VERSION}"
        raise MalformedMessageError(reason)
    try:
        acl = Acl.decode(message.acl)
    except MalformedNameError as error:
        reason = f"the ACL {message.id.hex()} is none: {error}"
        raise MalformedMessageError(reason) from error
    return AclRecord(version=message.version, acl=acl.encode())


def _refuse_bad_id(acl_id: bytes) -> None:
    if len(acl_id) != ACL_ID_SIZE:
        message = f"an ACL id has {ACL_ID_SIZE} bytes, not {len(acl_id)}"
        raise MalformedMessageError(message)


def _parse_guids(octets: Sequence[bytes]) -> list[Guid]:
    try:
        return [Guid(each) for each in _limited(octets)]
    except MalformedNameError as error:
        raise MalformedMessageError(str(error)) from error


def _limited(batch: Sequence[T]) -> Sequence[T]:
    if len(batch) > MAX_BATCH:
        message = f"a batch has at most {MAX_BATCH} entries, not {len(batch)}"
        raise MalformedMessageError(message)
    return batch
