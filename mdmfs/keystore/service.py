"""The keystore as a daemon: its routes, and its life from opening the shelf to cancellation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from mdmfs.daemon.nursery import open_plain_nursery
from mdmfs.keystore.configuration import KeystoreConfiguration
from mdmfs.keystore.keystore import Keystore
from mdmfs.keystore.notary import Notary
from mdmfs.keystore.orders import Orders
from mdmfs.keystore.row_shelf import open_shelf
from mdmfs.model.identity import Principal
from mdmfs.pki.tls import ServerContexts
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
    ConfirmEpoch,
    Register,
    SetAcls,
    Unregister,
    Witness,
)
from mdmfs.wire.messages.message import Message
from mdmfs.wire.server import serve
from mdmfs.wire.service import Reply, Request, Respond, Service, responding
from mdmfs.wire.stream import Address

M = TypeVar("M", bound=Message)


async def run_keystore(
    configuration: KeystoreConfiguration, *, task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve until cancelled; ``started`` gives the address that was bound.

    Raises ``ConfigurationError`` or ``StoreError`` when it cannot start. The process is the caller's: a daemon calls
    ``mdmfs.daemon.process.forbid_core_dumps`` first.
    """
    contexts = await trio.to_thread.run_sync(
        ServerContexts, configuration.credential, configuration.anchors, configuration.vomsdir
    )
    async with open_shelf(configuration, stands_by=True) as shelf, open_plain_nursery() as nursery:
        nursery.start_soon(shelf.run)
        notary = Notary(configuration.name, configuration.credential, configuration.backup_days)
        keystore = Keystore(shelf, configuration.hospitals, notary=notary)
        orders = Orders(shelf, configuration.hospitals, configuration.credential.subject())
        service = keystore_service(keystore, configuration.name, orders)
        await serve(service, contexts, configuration.listen, task_status=task_status)


def keystore_service(keystore: Keystore, name: str, orders: Orders) -> Service:
    """Give the paths of a keystore; what changes anything is an order."""

    def ordered(kind: type[M], answer: Callable[[Principal, M], Awaitable[Message]]) -> Respond:
        async def respond_to_order(request: Request) -> Reply:
            body = await request.body()
            await orders.refuse_others(request, body)
            return Reply(await answer(request.principal, request.decode(body, kind)))

        return respond_to_order

    return Service(
        f"keystore {name}",
        {
            ("POST", REGISTER_PATH): ordered(Register, keystore.register),
            ("POST", COLLECT_PATH): ordered(Collect, keystore.collect),
            ("POST", UNREGISTER_PATH): ordered(Unregister, keystore.unregister),
            ("POST", SET_ACLS_PATH): ordered(SetAcls, keystore.set_acls),
            ("POST", STATUS_PATH): responding(AskStatus, keystore.status),
            ("POST", EPOCH_PATH): responding(AskEpoch, keystore.epoch),
            ("POST", CONFIRM_PATH): ordered(ConfirmEpoch, keystore.confirm),
            ("POST", CERTIFY_PATH): responding(Certify, keystore.certify),
            ("POST", WITNESS_PATH): ordered(Witness, keystore.witness),
            ("POST", WITNESSED_PATH): responding(AskWitnessed, keystore.witnessed),
        },
    )
