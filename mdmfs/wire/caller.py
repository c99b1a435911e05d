"""Who is at the other end of a connection: judged once, and again when the CAs or their lists have changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from mdmfs.model.errors import MdmfsError
from mdmfs.model.identity import Dn, Principal
from mdmfs.pki.judge import Judge, Verdict
from mdmfs.wire.stream import HANDSHAKES


class Caller:
    """The chain of a handshake, and what it proves at this moment."""

    def __init__(self, chain: Sequence[bytes], judge: Judge, clock: Callable[[], float]) -> None:
        """Judge the chain; this takes milliseconds and runs in a thread. Raises ``CredentialRefusedError``."""
        self._chain = chain
        self._judge = judge
        self._clock = clock
        self._generation = judge.generation
        self._verdict = judge.judge(chain)

    @property
    def dn(self) -> Dn:
        """Whose connection it is, whatever else has ended."""
        return self._verdict.dn

    async def principal(self) -> Principal:
        """Give the principal of a request that has just come.

        Raises ``CredentialExpiredError``, and ``CredentialRefusedError`` for a chain that no longer proves anything.
        """
        await self.judge_again()
        return self._verdict.principal(self._clock())

    async def judge_again(self) -> None:
        """Judge again if something has changed; raises ``CredentialRefusedError``."""
        if self._generation != self._judge.generation or self._clock() >= self._verdict.holds_until:
            self._generation, self._verdict = await trio.to_thread.run_sync(self._judged, limiter=HANDSHAKES)

    def _judged(self) -> tuple[int, Verdict]:
        # The generation is older than the verdict: a change in between is seen at the next request.
        return self._judge.generation, self._judge.judge(self._chain)

    def is_over(self) -> bool:
        """Ask whether the chain has ended: no request can follow."""
        return self._clock() >= self._verdict.ends


class Stranger:
    """Somebody who is not let in, and the reason that his first request is answered with."""

    def __init__(self, reason: MdmfsError) -> None:
        """Take the reason."""
        self.reason = reason

    async def principal(self) -> Principal:
        """Raise the reason."""
        await trio.lowlevel.checkpoint()
        raise self.reason

    def is_over(self) -> bool:
        """Ask whether no request can follow: so it is."""
        return True
