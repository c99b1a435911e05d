"""Servers and clients of the wire over real sockets and the tests' own certificates, on the loopback interface."""

from __future__ import annotations

import contextlib
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import trio
from cryptography.hazmat.primitives import serialization

from mdmfs.demo.pki import Authority, Issued
from mdmfs.model.identity import Dn
from mdmfs.pki.tls import ServerContexts, client_context
from mdmfs.pki.trust import TrustAnchors
from mdmfs.wire.client import Client
from mdmfs.wire.server import Address, Limits, Service, serve
from tests.twins import certificates as make

LOOPBACK = Address("127.0.0.1", 0)


def anchors_in(directory: Path, by: Authority | None = None) -> TrustAnchors:
    """Trust one CA."""
    file = directory / "ca.pem"
    file.write_bytes((by or make.authority()).certificate.public_bytes(serialization.Encoding.PEM))
    return TrustAnchors(file)


def context_of(issued: Issued | None, *, check_hostname: bool = True) -> ssl.SSLContext:
    """Make a client's context that shows this certificate and trusts the tests' CA."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        credential = None if issued is None else issued.save_proxy(directory / "credential")
        return client_context(credential, anchors_in(directory), check_hostname=check_hostname)


def contexts_of(issued: Issued, directory: Path) -> ServerContexts:
    """Make a server's contexts; the directory must stay."""
    return ServerContexts(issued.save(directory, "server"), anchors_in(directory))


@contextlib.asynccontextmanager
async def serving(
    service: Service,
    *,
    shown: Issued | None = None,
    limits: Limits | None = None,
    clock: Callable[[], float] = time.time,
    contexts: ServerContexts | None = None,
    at: str = LOOPBACK.host,
) -> AsyncIterator[Address]:
    """Serve as the hospital, or someone else, while the block runs; trust the tests' CA unless contexts are given."""
    with tempfile.TemporaryDirectory() as name:
        contexts = contexts or contexts_of(shown or make.host("hospital"), Path(name))
        async with trio.open_nursery() as nursery:

            async def serve_as_told(task_status: trio.TaskStatus[Address]) -> None:
                await serve(service, contexts, Address(at, 0), limits=limits, clock=clock, task_status=task_status)

            yield await nursery.start(serve_as_told)
            nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def calling(
    address: Address, issued: Issued | None, *, expected: Dn | None = None, check_hostname: bool = True
) -> AsyncIterator[Client]:
    """Be a client while the block runs."""
    client = Client(address, context_of(issued, check_hostname=check_hostname), expected=expected)
    try:
        yield client
    finally:
        await client.aclose()
