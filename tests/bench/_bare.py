"""A server of our own that answers one small message, always the same: what a request costs that asks for nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from mdmfs.keystore.configuration import KeystoreConfiguration
from mdmfs.pki.tls import ServerContexts
from mdmfs.wire.messages.keystores import Outcomes
from mdmfs.wire.server import serve
from mdmfs.wire.service import Reply, Request, Service
from mdmfs.wire.stream import Address

BARE_PATH = "/v1/bare"


async def answer(request: Request) -> Reply:
    """Give back what came."""
    return Reply(await request.read(Outcomes))


def main(configuration: KeystoreConfiguration, port: int) -> None:
    """Listen with a keystore's certificate, for whom a keystore would let in."""
    contexts = ServerContexts(configuration.credential, configuration.anchors)
    service = Service("bare server", {("POST", BARE_PATH): answer})
    trio.run(serve, service, contexts, Address("127.0.0.1", port))


if __name__ == "__main__":
    main(KeystoreConfiguration.read(Path(sys.argv[1])), int(sys.argv[2]))
