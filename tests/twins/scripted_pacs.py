"""A PACS that does what a test's script says, byte by byte, on a free port of the loopback interface."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import trio

from mdmfs.hospital.dicom.pacs import PacsAddress

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
GET = "1.2.840.10008.5.1.4.1.2.2.3"
MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
SUCCESS = 0x0000
PENDING = 0xFF00
Elements = Mapping[int, int | str]
VERIFICATION = "1.2.840.10008.1.1"
APPLICATION = b"1.2.840.10008.3.1.1.1"
OUR_AE_TITLE = "MDMFS-SCP"
Proposals = dict[int, tuple[str, list[str]]]
PROPOSED: Proposals = {1: (VERIFICATION, ["1.2.840.10008.1.2"]), 3: (CT, [EXPLICIT])}


class PeerGoneError(Exception):
    """We have closed or aborted the association: the script ends."""


class ScriptedPeer:
    """The accepting side of one connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.contexts: dict[int, tuple[str, str]] = {}
        """What was proposed: ID to abstract syntax and transfer syntax."""
        self.roles: set[str] = set()
        """The SOP classes for which the requestor is SCP."""
        self.message_id = 0
        """Of the last request received."""

    async def read(self, count: int) -> bytes:
        """Receive exactly so many bytes."""
        received = b""
        while len(received) < count:
            try:
                some = await self.stream.receive_some(count - len(received))
            except trio.BrokenResourceError as error:
                raise PeerGoneError from error
            if not some:
                raise PeerGoneError
            received += bytes(some)
        return received

    async def send(self, encoded: bytes) -> None:
        """Send bytes."""
        try:
            await self.stream.send_all(encoded)
        except trio.BrokenResourceError as error:
            raise PeerGoneError from error

    async def read_pdu(self) -> tuple[int, bytes]:
        """Receive one PDU; an abort ends the script."""
        kind, length = struct.unpack(">BxI", await self.read(6))
        body = await self.read(length)
        if kind == 7:
            raise PeerGoneError
        return kind, body

    async def accept(self, *, max_length: int = 16_384, refused: tuple[str, ...] = ()) -> None:
        """Answer the association request; contexts of the refused SOP classes are rejected."""
        kind, body = await self.read_pdu()
        assert kind == 1
        for item, value in items(body[68:]):
            if item == 0x20:
                (_, abstract), (_, syntax) = items(value[4:])
                self.contexts[value[0]] = (abstract.decode(), syntax.decode())
            elif item == 0x50:
                self.roles |= {sub[2:-2].decode() for number, sub in items(value) if number == 0x54}
        await self.send(associate_accept(body, self.contexts, max_length, refused))

    def context_id(self, abstract: str) -> int:
        """Find the context for a SOP class."""
        return next(number for number, (name, _) in self.contexts.items() if name == abstract)

    async def read_request(self) -> tuple[dict[int, bytes], bytes]:
        """Receive a message: the elements of its command, and its data set."""
        command, data_set = b"", b""
        while True:
            kind, body = await self.read_pdu()
            if kind == 5:
                await self.send(pdu(6, bytes(4)))
                raise PeerGoneError
            assert kind == 4
            for pdv in pdvs(body):
                if pdv[1] & 1:
                    command += pdv[2:]
                    is_whole = bool(pdv[1] & 2) and elements_of(command)[0x0800] == b"\x01\x01"
                else:
                    data_set += pdv[2:]
                    is_whole = bool(pdv[1] & 2)
                if is_whole:
                    found = elements_of(command)
                    if 0x0110 in found:
                        self.message_id = int.from_bytes(found[0x0110], "little")
                    return found, data_set

    async def respond(self, field: int, abstract: str, status: int, data_set: bytes | None = None) -> None:
        """Send a response to the last request."""
        command = {0x0100: field, 0x0120: self.message_id, 0x0800: 0x0101 if data_set is None else 1, 0x0900: status}
        await self.send(message(self.context_id(abstract), command, data_set))

    async def finish_get(self, status: int = SUCCESS) -> None:
        """Send the final response of a C-GET."""
        await self.respond(0x8010, GET, status)

    async def store(self, instance_uid: str, data_set: bytes, *, class_uid: str = CT, context: str = CT) -> int:
        """Send an instance and wait for the answer: its status."""
        await self.send(self.store_request(instance_uid, data_set, class_uid=class_uid, context=context))
        command, _ = await self.read_request()
        assert command[0x0100] == b"\x01\x80"
        return int.from_bytes(command[0x0900], "little")

    def store_request(
        self, instance_uid: str, data_set: bytes | None, *, class_uid: str = CT, context: str = CT, room: int = 16_000
    ) -> bytes:
        """Write a C-STORE request."""
        command: Elements = {
            0x0002: class_uid,
            0x0100: 1,
            0x0110: 7,
            0x0700: 0,
            0x0800: 0x0101 if data_set is None else 1,
        }
        return message(self.context_id(context), {**command, 0x1000: instance_uid}, data_set, room)


Script = Callable[[ScriptedPeer], Awaitable[None]]


class Site:
    """Where the scripted PACS listens, and what has happened there."""

    def __init__(self, address: PacsAddress) -> None:
        self.address = address
        self.connections = 0
        self.open_now = 0
        self.most_open = 0


@contextlib.asynccontextmanager
async def serving(*scripts: Script) -> AsyncIterator[Site]:
    """Listen; the first connection gets the first script, and all behind the last one get the last."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        site = Site(PacsAddress("SCRIPTED", "127.0.0.1", listener.socket.getsockname()[1]))

        async def serve(stream: trio.SocketStream) -> None:
            script = scripts[min(site.connections, len(scripts) - 1)]
            site.connections += 1
            site.open_now += 1
            site.most_open = max(site.most_open, site.open_now)
            try:
                async with stream:
                    await script(ScriptedPeer(stream))
            except PeerGoneError:
                pass
            finally:
                site.open_now -= 1

        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield site
        nursery.cancel_scope.cancel()


def pdu(kind: int, body: bytes) -> bytes:
    """Write a PDU."""
    return struct.pack(">BxI", kind, len(body)) + body


def pdv(context_id: int, control: int, fragment: bytes) -> bytes:
    """Write a PDV; control 1 is a command, 2 the last fragment."""
    return struct.pack(">IBB", len(fragment) + 2, context_id, control) + fragment


def message(context_id: int, command: Elements, data_set: bytes | None = None, room: int = 16_000) -> bytes:
    """Write a whole message, one PDV in each PDU."""
    pdus = [pdu(4, pdv(context_id, 3, encode_command(command)))]
    if data_set is None:
        return pdus[0]
    starts = range(0, max(len(data_set), 1), room)
    for start in starts:
        control = 2 if start == starts[-1] else 0
        pdus.append(pdu(4, pdv(context_id, control, data_set[start : start + room])))
    return b"".join(pdus)


def encode_command(command: Elements) -> bytes:
    """Write a command set."""
    body = b""
    for element, value in sorted(command.items()):
        encoded = struct.pack("<H", value) if isinstance(value, int) else value.encode() + b"\0" * (len(value) % 2)
        body += struct.pack("<HHI", 0, element, len(encoded)) + encoded
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def encode_identifier(elements: Mapping[int, str]) -> bytes:
    """Write an identifier."""
    body = b""
    for tag, value in sorted(elements.items()):
        encoded = value.encode() + b" " * (len(value.encode()) % 2)
        body += struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(encoded)) + encoded
    return body


def associate_accept(
    request: bytes, contexts: Mapping[int, tuple[str, str]], max_length: int, refused: tuple[str, ...] = ()
) -> bytes:
    """Write an A-ASSOCIATE-AC."""
    body = request[:68] + item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, (abstract, syntax) in contexts.items():
        result = 3 if abstract in refused else 0
        body += item(0x21, bytes([number, 0, result, 0]) + item(0x40, syntax.encode()))
    information = item(0x51, struct.pack(">I", max_length)) + item(0x52, b"1.2.3.4")
    return pdu(2, body + item(0x50, information))


def item(kind: int, value: bytes) -> bytes:
    """Write an item of an A-ASSOCIATE PDU."""
    return struct.pack(">BxH", kind, len(value)) + value


def items(encoded: bytes) -> list[tuple[int, bytes]]:
    """Read the items of an A-ASSOCIATE PDU."""
    found = []
    while encoded:
        kind, length = struct.unpack(">BxH", encoded[:4])
        found.append((kind, encoded[4 : 4 + length]))
        encoded = encoded[4 + length :]
    return found


def pdvs(body: bytes) -> list[bytes]:
    """Read the PDVs of a P-DATA-TF: context ID, control and fragment of each."""
    found = []
    while body:
        (length,) = struct.unpack(">I", body[:4])
        found.append(body[4 : 4 + length])
        body = body[4 + length :]
    return found


def elements_of(encoded: bytes) -> dict[int, bytes]:
    """Read a command set."""
    found = {}
    while encoded:
        _, element, length = struct.unpack("<HHI", encoded[:8])
        found[element] = encoded[8 : 8 + length]
        encoded = encoded[8 + length :]
    return found


def associate_request(
    proposals: Proposals = PROPOSED,
    *,
    calling: str = "ARCHIVE",
    called: str = OUR_AE_TITLE,
    application: bytes = APPLICATION,
    version: int = 1,
) -> bytes:
    """Write an A-ASSOCIATE-RQ."""
    body = struct.pack(">H2x16s16s32x", version, called.encode().ljust(16), calling.encode().ljust(16))
    body += item(0x10, application)
    for number, (abstract, syntaxes) in proposals.items():
        names = b"".join(item(0x40, syntax.encode()) for syntax in syntaxes)
        body += item(0x20, bytes([number, 0, 0, 0]) + item(0x30, abstract.encode()) + names)
    return pdu(1, body + item(0x50, item(0x51, struct.pack(">I", 16_384)) + item(0x52, b"1.2.3.4")))
