"""The verdict on a verified chain: who it is, what a VO says of him, and until when that may be believed.

OpenSSL, in the handshake, makes sure of signatures, times and trust. The judge adds what it leaves out: the policies of
proxies, signing policies, revocation along the whole chain, and VOMS. He reads the files again when they change.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from mdmfs.model.errors import ConfigurationError, CredentialExpiredError, CredentialRefusedError
from mdmfs.model.identity import Dn, Fqan, Principal
from mdmfs.pki.authorities import Authorities
from mdmfs.pki.certificate import UNREADABLE
from mdmfs.pki.proxy import prove
from mdmfs.pki.trust import Stamp, TrustAnchors
from mdmfs.pki.voms import Grant, VomsDirectory

log = logging.getLogger(__name__)

MAX_VERDICTS: Final = 4096


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """What a chain proves; times are in seconds since the epoch."""

    dn: Dn
    ends: float
    """When the first certificate of the chain ends."""
    grants: tuple[Grant, ...]
    holds_until: float
    """When the first revocation list that was asked ends: then the files are asked again."""
    _made: dict[tuple[Grant, ...], Principal] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    def principal(self, now: float) -> Principal:
        """Give the principal as he is now; raises ``CredentialExpiredError``.

        An AC that has ended takes its FQANs along, and the DN stays. The principal ends with the first of all that made
        him: whoever keeps him for longer than a request must not keep FQANs that have ended.
        """
        if now >= self.ends:
            message = f"the certificate or proxy of {self.dn} has expired: make a new proxy"
            raise CredentialExpiredError(message)
        live = tuple(grant for grant in self.grants if grant.begins <= now < grant.ends)
        principal = self._made.get(live)
        if principal is None:
            fqans: dict[Fqan, None] = dict.fromkeys(fqan for grant in live for fqan in grant.fqans)
            principal = Principal(self.dn, tuple(fqans), min([self.ends, *(grant.ends for grant in live)]))
            self._made[live] = principal
        return principal


class Judge:
    """Judges chains by the CAs and VOMS servers of the moment; may be asked from several threads."""

    def __init__(
        self, anchors: TrustAnchors, vomsdir: VomsDirectory | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        """Read the files; raises ``ConfigurationError``. Without a ``vomsdir`` nobody has FQANs."""
        self._anchors = anchors
        self._vomsdir = vomsdir
        self._clock = clock
        self._lock = threading.Lock()
        self._stamp = self._stamp_now()
        self._authorities = Authorities.read(anchors)
        self._authorities.refuse_none()
        self._verdicts: OrderedDict[bytes, Verdict] = OrderedDict()
        self.generation = 0
        """Counts how often the files have changed: a verdict of another generation is asked for again."""

    def look(self) -> bool:
        """Read the files again if they have changed, and tell so.

        Raises ``ConfigurationError`` when they cannot be read; until they can, what was read before counts.
        """
        with self._lock:
            stamp = self._stamp_now()
            if stamp == self._stamp:
                return False
            # The stamp is older than what is then read: a change in between is seen at the next look.
            self._authorities = Authorities.read(self._anchors)
            self._stamp = stamp
            self._verdicts.clear()
            self.generation += 1
        log.info("the CA certificates, policies or lists under %s were read again", self._anchors.path)
        return True

    def judge(self, chain: Sequence[bytes]) -> Verdict:
        """Judge a chain that a handshake verified (DER, leaf first, root last); raises ``CredentialRefusedError``."""
        digest = _digest(chain)
        with self._lock:
            generation, authorities = self.generation, self._authorities
            known = self._verdicts.get(digest)
        if known is not None and self._clock() < known.holds_until:
            return known
        try:
            verdict = self._judge(chain, authorities)
        except UNREADABLE as error:
            message = "the chain holds something that cannot be judged"
            raise CredentialRefusedError(message) from error
        with self._lock:
            if generation == self.generation:
                self._verdicts[digest] = verdict
                self._verdicts.move_to_end(digest)
                while len(self._verdicts) > MAX_VERDICTS:
                    self._verdicts.popitem(last=False)
        return verdict

    def _judge(self, chain: Sequence[bytes], authorities: Authorities) -> Verdict:
        now = self._clock()
        proven = prove(chain)
        holds_until = authorities.vet(proven.certificates[proven.place :], now)
        grants = () if self._vomsdir is None else self._vomsdir.grants_of(proven, authorities, now)
        holds_until = min([holds_until, *(grant.holds_until for grant in grants)])
        return Verdict(proven.end_entity.subject, proven.ends, grants, holds_until)

    def _stamp_now(self) -> Stamp:
        try:
            voms = () if self._vomsdir is None else self._vomsdir.stamp()
        except OSError as error:
            message = f"the vomsdir {self._vomsdir.path if self._vomsdir else ''} cannot be read: {error.strerror}"
            raise ConfigurationError(message) from error
        return self._anchors.stamp() + voms


def _digest(chain: Sequence[bytes]) -> bytes:
    """Name a chain; the lengths keep two chains apart whose bytes run on alike."""
    whole = hashlib.sha256()
    for der in chain:
        whole.update(len(der).to_bytes(4) + der)
    return whole.digest()
