"""Who may have which shares, on one page of the shelf, for one principal, at one instant."""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Callable, Collection, Iterable

from mdmfs.access.acl import Acl
from mdmfs.access.decide import Granted, Refusal, Refused, grant
from mdmfs.keystore.shelf import KeyRecord, Page
from mdmfs.model.identity import Dn, Principal
from mdmfs.model.names import Guid
from mdmfs.wire.messages.keystores import Outcome


class Denial(enum.StrEnum):
    """Why a keystore says no, beyond what ``mdmfs.access.decide.Refusal`` names."""

    OWNER_NOT_LISTED = "the hospital that registered it is not listed any more"


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What one GUID of a batch gets."""

    outcome: Outcome
    share: bytes = dataclasses.field(default=b"", repr=False)
    reason: Denial | Refusal | None = None
    """Of a DENIED, for the log; the caller gets the outcome only."""


class Handout:
    """Decides each GUID by itself.

    A decision depends on principal, ACLs and time alone, all fixed here: entries with the same owner and ACL ids, as
    the files of a series have, share one.
    """

    def __init__(
        self,
        page: Page,
        principal: Principal,
        hospitals: Collection[Dn],
        now: float,
        is_current: Callable[[str], bool],
    ) -> None:
        """``is_current`` tells whether everything that a hospital decided is known here."""
        self._page = page
        self._principal = principal
        self._caller = str(principal.dn)
        self._listed = frozenset(str(dn) for dn in hospitals)
        self._now = now
        self._is_current = is_current
        self._decided: dict[tuple[str, tuple[tuple[bytes, ...], ...]], Granted | Refused] = {}

    def answer(self, guids: Iterable[Guid]) -> list[Answer]:
        """Answer each GUID, in order."""
        return [self._answer(guid) for guid in guids]

    def _answer(self, guid: Guid) -> Answer:
        record = self._page.key(guid)
        if record is None:
            return Answer(Outcome.DESTROYED if self._page.tombstones(guid) else Outcome.UNKNOWN)
        if record.owner not in self._listed:
            return Answer(Outcome.DENIED, reason=Denial.OWNER_NOT_LISTED)
        if record.owner == self._caller:
            return Answer(Outcome.DONE, record.share)
        if not self._is_current(record.owner):
            return Answer(Outcome.STALE)
        match self._decide(guid, record):
            case Granted():
                return Answer(Outcome.DONE, record.share)
            case Refused() as refused:
                return Answer(Outcome.DENIED, reason=refused.refusal)

    def _decide(self, guid: Guid, record: KeyRecord) -> Granted | Refused:
        aliases = record.aliases
        if self._page.acl(record.owner, guid.octets) is not None:  # an ACL of its own: its id is the GUID
            aliases = tuple((*chain[:-1], guid.octets) for chain in aliases)
        question = (record.owner, aliases)
        if question not in self._decided:
            chains = [[self._acl(record.owner, acl_id) for acl_id in chain] for chain in aliases]
            self._decided[question] = grant(self._principal, guid, chains, self._now)
        return self._decided[question]

    def _acl(self, owner: str, acl_id: bytes) -> Acl | None:
        record = self._page.acl(owner, acl_id)
        return None if record is None else _decode(record.acl)


@functools.lru_cache(maxsize=4096)
def _decode(octets: bytes) -> Acl:
    """Remembered by content, so never stale."""
    return Acl.decode(octets)
