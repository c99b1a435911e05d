"""Orders: a certificate of the hospital's name is not enough to tell a keystore what to do."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from mdmfs.hospital.signing import SigningKey
from mdmfs.keystore.keystore import Keystore
from mdmfs.keystore.orders import Orders
from mdmfs.keystore.service import keystore_service
from mdmfs.model.errors import AccessDeniedError
from mdmfs.model.identity import Dn
from mdmfs.wire.client import Client
from mdmfs.wire.messages.keystores import (
    COLLECT_PATH,
    EPOCH_PATH,
    UNREGISTER_PATH,
    AskEpoch,
    Collect,
    Collected,
    EpochHeld,
    Outcome,
    Outcomes,
    Unregister,
)
from mdmfs.wire.orders import SIGNATURE_HEADER, SIGNED_PATHS, SIGNER_HEADER, signer_of, vouching
from tests.twins import certificates as make
from tests.twins.shelf import MemoryShelf
from tests.twins.wire import context_of, serving

HOSPITAL = make.host("hospital")
KEYSTORE = make.host("keystore")
OTHER = Dn.parse("/CN=another keystore")
GUID = bytes(16)


@contextlib.asynccontextmanager
async def keystore(shelf: MemoryShelf, *keys: SigningKey | None, own: Dn = KEYSTORE.dn) -> AsyncIterator[list[Client]]:
    """Serve a keystore; gives a client with the hospital's certificate for each signing key, or without one."""
    hospitals = [HOSPITAL.dn]
    service = keystore_service(Keystore(shelf, hospitals), "k", Orders(shelf, hospitals, own))
    async with serving(service, shown=KEYSTORE) as address:
        vouches = [None if key is None else vouching(key, KEYSTORE.dn) for key in keys]
        context = context_of(HOSPITAL)
        clients = [Client(address, context, expected=KEYSTORE.dn, vouch=vouch) for vouch in vouches]
        yield clients
        for client in clients:
            await client.aclose()


async def destroy(client: Client) -> Outcomes:
    """Give an order."""
    return await client.call(UNREGISTER_PATH, Unregister([GUID]), Outcomes, deadline=trio.current_time() + 5)


async def test_after_the_first_signed_order_no_other_key_and_no_unsigned_one_counts(tmp_path: Path) -> None:
    """Whoever gets a certificate of the hospital's name has no share destroyed and no ACL changed."""
    own, thief = SigningKey(tmp_path / "own"), SigningKey(tmp_path / "thief")
    shelf = MemoryShelf()
    async with keystore(shelf, None, own, thief) as (unsigned, hospital, rogue):
        assert await destroy(unsigned) == Outcomes([Outcome.DONE])
        assert await destroy(hospital) == Outcomes([Outcome.DONE])
        for other in (unsigned, rogue):
            with pytest.raises(AccessDeniedError, match="forget-signer"):
                await destroy(other)
        assert await destroy(hospital) == Outcomes([Outcome.DONE])
        for other in (unsigned, rogue):
            with pytest.raises(AccessDeniedError):
                await other.call(COLLECT_PATH, Collect([GUID]), Collected, deadline=trio.current_time() + 5)
        collected = await hospital.call(COLLECT_PATH, Collect([GUID]), Collected, deadline=trio.current_time() + 5)
        assert collected.outcomes == [Outcome.DESTROYED]
        held = await unsigned.call(EPOCH_PATH, AskEpoch(), EpochHeld, deadline=trio.current_time() + 5)
        assert held.epoch == 0
        await shelf.write(lambda draft: draft.put_signer(str(HOSPITAL.dn), b""))
        assert await destroy(rogue) == Outcomes([Outcome.DONE])


async def test_an_order_for_another_keystore_is_none(tmp_path: Path) -> None:
    """A keystore cannot pass on what the hospital told it."""
    async with keystore(MemoryShelf(), SigningKey(tmp_path / "own"), own=OTHER) as (hospital,):
        with pytest.raises(AccessDeniedError, match="not for this keystore"):
            await destroy(hospital)


def test_each_part_of_an_order_is_signed(tmp_path: Path) -> None:
    """Path, keystore and body; what is no order is not signed, and noise is refused."""
    vouch = vouching(SigningKey(tmp_path / "own"), KEYSTORE.dn)
    headers = vouch(UNREGISTER_PATH, b"body")
    assert signer_of(headers, UNREGISTER_PATH, KEYSTORE.dn, b"body") == SigningKey(tmp_path / "own").public
    assert signer_of({}, UNREGISTER_PATH, KEYSTORE.dn, b"body") == b""
    assert vouch(EPOCH_PATH, b"body") == {}
    (path, *_) = SIGNED_PATHS - {UNREGISTER_PATH}
    for wrong in (
        (headers, path, KEYSTORE.dn, b"body"),
        (headers, UNREGISTER_PATH, OTHER, b"body"),
        (headers, UNREGISTER_PATH, KEYSTORE.dn, b"Body"),
        ({**headers, SIGNATURE_HEADER: "00" * 64}, UNREGISTER_PATH, KEYSTORE.dn, b"body"),
        ({**headers, SIGNER_HEADER: "zz"}, UNREGISTER_PATH, KEYSTORE.dn, b"body"),
        ({SIGNER_HEADER: headers[SIGNER_HEADER]}, UNREGISTER_PATH, KEYSTORE.dn, b"body"),
    ):
        with pytest.raises(AccessDeniedError):
            signer_of(*wrong)


async def test_who_is_not_listed_pins_nothing(tmp_path: Path) -> None:
    """A reader that signs is refused as before, and leaves no trace."""
    shelf = MemoryShelf()
    service = keystore_service(Keystore(shelf, [HOSPITAL.dn]), "k", Orders(shelf, [HOSPITAL.dn], KEYSTORE.dn))
    async with serving(service, shown=KEYSTORE) as address:
        vouch = vouching(SigningKey(tmp_path / "own"), KEYSTORE.dn)
        client = Client(address, context_of(make.person("reader")), expected=KEYSTORE.dn, vouch=vouch)
        with pytest.raises(AccessDeniedError, match="only the hospitals"):
            await destroy(client)
        await client.aclose()
    assert shelf.page.signers == {}
