"""A keystore without a network: the real ``Keystore`` over a shelf in memory, which can be down, slow, or lie."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import trio

from mdmfs.keystore.keystore import Keystore
from mdmfs.keystore.notary import Notary
from mdmfs.model.errors import MdmfsError, OutOfSpaceError, PeerTimedOutError, PeerUnreachableError
from mdmfs.model.identity import Dn, Principal
from mdmfs.model.names import Guid
from mdmfs.sharing.shamir import Share, split
from mdmfs.wire.currency import Currency
from mdmfs.wire.messages.keystores import (
    CERTIFY_PATH,
    COLLECT_PATH,
    CONFIRM_PATH,
    EPOCH_PATH,
    REGISTER_PATH,
    SET_ACLS_PATH,
    STATUS_PATH,
    UNREGISTER_PATH,
    WITNESS_PATH,
    WITNESSED_PATH,
    AskEpoch,
    AskStatus,
    AskWitnessed,
    Certify,
    Collect,
    Collected,
    ConfirmEpoch,
    Register,
    SetAcls,
    Unregister,
    Witness,
)
from mdmfs.wire.messages.message import Message
from tests.twins.shelf import MemoryShelf

M = TypeVar("M", bound=Message)

HOSPITAL = Dn.parse("/DC=org/DC=demo/CN=hospital")
"""The only hospital that a ``TwinKeystore`` lists unless told otherwise."""


def principal(dn: Dn | str, *, not_after: float = 4e9) -> Principal:
    """Say who calls."""
    return Principal(Dn.parse(dn) if isinstance(dn, str) else dn, (), not_after)


def random_guid() -> Guid:
    """Name a file that nobody has heard of."""
    return Guid.from_random(secrets.token_bytes(16))


def shares_of(
    guid: Guid,
    secret: bytes,
    *,
    threshold: int = 2,
    total: int = 3,
    generation: int = 0,
    split_id: bytes | None = None,
) -> list[Share]:
    """Split a key with fresh randomness."""
    return split(
        secret,
        guid=guid,
        generation=generation,
        threshold=threshold,
        total=total,
        split_id=split_id or secrets.token_bytes(16),
        coefficients=secrets.token_bytes(32 * (threshold - 1)),
    )


def always_current(*hospitals: Dn) -> Currency:
    """Make a currency that has heard from these hospitals, and forgets it when the machine has run for ever."""
    currency = Currency()
    for hospital in hospitals:
        currency.confirm(str(hospital), float("inf"))
    return currency


class TwinKeystore:
    """One keystore, and how it behaves just now: ``delay`` in seconds, ``failure``, ``lie``."""

    def __init__(self, *hospitals: Dn, clock: Callable[[], float] = lambda: 1e9) -> None:
        self.shelf = MemoryShelf()
        self.hospitals = hospitals or (HOSPITAL,)
        self._clock = clock
        self.keystore = Keystore(self.shelf, self.hospitals, clock, always_current(*self.hospitals))
        self.delay = 0.0
        self.failure: Callable[[], MdmfsError] | None = None
        self.fails_at = ""
        """The path of which alone it fails; empty: of all."""
        self.is_silent = False
        self.room = float("inf")
        """For how many batches of shares more its disk has room; it gives those that it has."""
        self.loses_answers = 0
        """How many of its next answers to shares get lost: it has them then."""
        self.lie: Callable[[Collected], Collected] | None = None
        self.calls = 0
        self.paths: list[str] = []

    def restart(self, *, currency: Currency | None = None, notary: Notary | None = None) -> None:
        """Forget everything but the shelf, as a process that is started again; it has yet to hear from anybody."""
        self.keystore = Keystore(self.shelf, self.hospitals, self._clock, currency, notary)

    def as_seen_by(self, caller: Principal) -> TwinClient:
        """Give a client with this principal's credential."""
        return TwinClient(self, caller)


class TwinClient:
    """``mdmfs.wire.keystores.keystores.Caller`` to a twin: messages travel encoded, deadlines hold."""

    def __init__(self, twin: TwinKeystore, caller: Principal) -> None:
        self._twin = twin
        self._caller = caller

    async def call(self, path: str, message: Message, reply: type[M], *, deadline: float) -> M:
        """See ``Client.call``."""
        twin = self._twin
        twin.calls += 1
        twin.paths.append(path)
        await trio.lowlevel.checkpoint()
        if twin.failure is not None and twin.fails_at in {"", path}:
            raise twin.failure()
        if path == REGISTER_PATH:
            twin.room -= 1
            if twin.room < 0:
                message = "the shelf is full"
                raise OutOfSpaceError(message)
        with trio.move_on_at(deadline) as scope:
            await trio.sleep(float("inf") if twin.is_silent else twin.delay)
        if scope.cancelled_caught:
            text = "the keystore did not answer before the deadline"
            raise PeerTimedOutError(text)
        answer = await self._answer(path, msgspec.msgpack.encode(message))
        if path == REGISTER_PATH and twin.loses_answers:
            twin.loses_answers -= 1
            raise unreachable()
        if twin.lie is not None and isinstance(answer, Collected):
            answer = twin.lie(answer)
        return msgspec.msgpack.decode(msgspec.msgpack.encode(answer), type=reply)

    async def _answer(self, path: str, body: bytes) -> Message:
        keystore = self._twin.keystore
        routes: dict[str, tuple[type[Message], Any]] = {
            REGISTER_PATH: (Register, keystore.register),
            COLLECT_PATH: (Collect, keystore.collect),
            UNREGISTER_PATH: (Unregister, keystore.unregister),
            SET_ACLS_PATH: (SetAcls, keystore.set_acls),
            STATUS_PATH: (AskStatus, keystore.status),
            EPOCH_PATH: (AskEpoch, keystore.epoch),
            CONFIRM_PATH: (ConfirmEpoch, keystore.confirm),
            CERTIFY_PATH: (Certify, keystore.certify),
            WITNESS_PATH: (Witness, keystore.witness),
            WITNESSED_PATH: (AskWitnessed, keystore.witnessed),
        }
        kind, answer = routes[path]
        message: Message = await answer(self._caller, msgspec.msgpack.decode(body, type=kind))
        return message


def unreachable() -> MdmfsError:
    """Refuse a connection, as a stopped daemon's machine does."""
    return PeerUnreachableError("the connection was refused")
