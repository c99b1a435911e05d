"""What a user's worker gets to see: everything that the hospital answers him, as it comes out of TLS."""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec
import trio

from mdmfs.demo.site import Site
from mdmfs.model.names import Guid, Lfn
from mdmfs.wire.client import Client
from mdmfs.wire.messages.files import (
    CHANGES_PATH,
    DESCRIBE_PATH,
    LIST_PATH,
    SEALED_PATH,
    TOTALS_PATH,
    AskChanges,
    AskTotals,
    Changes,
    Describe,
    DirectoryPage,
    FileDescription,
    ListDirectory,
    NodeKind,
    Totals,
)
from mdmfs.wire.messages.message import Message
from mdmfs.wire.peers import open_client

DEADLINE: Final = 30.0

M = TypeVar("M", bound=Message)


def as_seen_by(site: Site, user: str) -> bytes:
    """Ask for everything that there is, as this user, and give all answers one after the other."""
    return trio.run(_listen, site, user)


async def _listen(site: Site, user: str) -> bytes:
    address = f"127.0.0.1:{site.ports.hospital}"
    client = open_client(address, str(site.pki.dns["hospital"]), site.pki.proxies[user], site.pki.anchors)
    heard = bytearray()

    async def ask(path: str, message: Message, kind: type[M]) -> M:
        answer = await client.call(path, message, kind, deadline=trio.current_time() + DEADLINE)
        heard.extend(msgspec.msgpack.encode(answer))
        return answer

    await ask(CHANGES_PATH, AskChanges(0, 0.0), Changes)
    await ask(TOTALS_PATH, AskTotals(str(Lfn(()))), Totals)
    directories = [Lfn(())]
    while directories:
        directory = directories.pop()
        after, is_last = "", False
        while not is_last:
            page = await ask(LIST_PATH, ListDirectory(str(directory), after), DirectoryPage)
            for node in page.entries:
                after = node.name
                if node.kind is NodeKind.DIRECTORY:
                    directories.append(directory / node.name)
                else:
                    await ask(DESCRIBE_PATH, Describe(node.guid), FileDescription)
                    heard += await _fetch(client, Guid(node.guid))
            is_last = page.is_last
    await client.aclose()
    return bytes(heard)


async def _fetch(client: Client, guid: Guid) -> bytearray:
    async with client.get(f"{SEALED_PATH}{guid}", deadline=trio.current_time() + DEADLINE) as download:
        told = "".join(f"{name}: {value}\n" for name, value in download.headers.items())
        return bytearray(told.encode()) + await download.read(download.length)
