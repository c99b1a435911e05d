"""Scripts of a PACS that breaks the rules in a recall of one instance, each in one way."""

from __future__ import annotations

import struct

import trio

from tests.twins.scripted_pacs import CT, FIND, PENDING, ScriptedPeer, message, pdu, pdv

FIRST, OTHER = "1.2.3.4.5", "1.2.3.4.9"
CONTENT = bytes(range(256)) * 600  # 150 kB, ten fragments
MR = "1.2.840.10008.5.1.4.1.1.4"


def begun(peer: ScriptedPeer) -> bytes:
    """Write an instance without its last fragment, which has 9,600 bytes and 12 before them."""
    return peer.store_request(FIRST, CONTENT)[:-9_612]


async def asked(peer: ScriptedPeer) -> None:
    """Accept, and receive the C-GET."""
    await peer.accept()
    await peer.read_request()


async def other_instance(peer: ScriptedPeer) -> None:
    """Send an instance that nobody asked for."""
    await asked(peer)
    await peer.store(OTHER, CONTENT)


async def duplicate(peer: ScriptedPeer) -> None:
    """Send the instance twice."""
    await asked(peer)
    await peer.store(FIRST, CONTENT)
    await peer.store(FIRST, CONTENT)


async def no_instance_uid(peer: ScriptedPeer) -> None:
    """Send an instance without its UID."""
    await asked(peer)
    await peer.store("", CONTENT)


async def other_class(peer: ScriptedPeer) -> None:
    """Say another class in the command than the context has."""
    await asked(peer)
    await peer.store(FIRST, CONTENT, class_uid=MR)


async def in_the_find_context(peer: ScriptedPeer) -> None:
    """Send the instance where identifiers belong."""
    await asked(peer)
    await peer.store(FIRST, CONTENT, class_uid=FIND, context=FIND)


async def no_data_set(peer: ScriptedPeer) -> None:
    """Send a C-STORE request that says it has no data set."""
    await asked(peer)
    await peer.send(peer.store_request(FIRST, None))
    await peer.read_request()


async def unaccepted_context(peer: ScriptedPeer) -> None:
    """Use a presentation context that was never proposed."""
    await asked(peer)
    await peer.send(message(99, {0x0002: CT, 0x0100: 1, 0x0110: 7, 0x0800: 1, 0x1000: FIRST}, CONTENT))
    await peer.read_request()


async def abort_at_once(peer: ScriptedPeer) -> None:
    """Abort instead of answering."""
    await asked(peer)
    await peer.send(pdu(7, bytes([0, 0, 2, 2])))


async def abort_within(peer: ScriptedPeer) -> None:
    """Abort in the middle of an instance."""
    await asked(peer)
    await peer.send(begun(peer))
    await peer.send(pdu(7, bytes([0, 0, 0, 0])))


async def close_at_once(peer: ScriptedPeer) -> None:
    """Close the connection instead of answering."""
    await asked(peer)


async def close_within(peer: ScriptedPeer) -> None:
    """Close in the middle of a PDU, between its bytes."""
    await asked(peer)
    await peer.send(peer.store_request(FIRST, CONTENT)[:-1])


async def close_between_fragments(peer: ScriptedPeer) -> None:
    """Close behind a whole fragment that is not the last."""
    await asked(peer)
    await peer.send(begun(peer))


async def half_close(peer: ScriptedPeer) -> None:
    """Send the end of the stream, and go on listening."""
    await asked(peer)
    await peer.send(begun(peer))
    await peer.stream.send_eof()
    await peer.read_request()


async def release_within(peer: ScriptedPeer) -> None:
    """Ask for the release while an instance is owed."""
    await asked(peer)
    await peer.send(pdu(5, bytes(4)))
    assert await peer.read_pdu() == (6, bytes(4))


async def four_gigabytes(peer: ScriptedPeer) -> None:
    """Announce a PDU of 4 GiB."""
    await asked(peer)
    await peer.send(struct.pack(">BxI", 4, 2**32 - 1))
    await peer.read_request()


async def one_byte_too_long(peer: ScriptedPeer) -> None:
    """Send a PDU that is longer than what we announced."""
    await asked(peer)
    await peer.send(struct.pack(">BxI", 4, 128 * 2**10 + 1))
    await peer.read_request()


async def fragment_beyond_pdu(peer: ScriptedPeer) -> None:
    """Let a fragment end behind its PDU."""
    await asked(peer)
    await peer.send(pdu(4, struct.pack(">IBB", 1000, peer.context_id(CT), 3) + bytes(10)))
    await peer.read_request()


async def tiny_fragment(peer: ScriptedPeer) -> None:
    """Let a fragment be shorter than its own header."""
    await asked(peer)
    await peer.send(pdu(4, struct.pack(">IBB", 1, peer.context_id(CT), 3)))
    await peer.read_request()


async def empty_fragments(peer: ScriptedPeer) -> None:
    """Send fragments of nothing, for ever."""
    await asked(peer)
    await peer.send(begun(peer))
    while True:
        await peer.send(pdu(4, pdv(peer.context_id(CT), 0, b"")) * 100)


async def empty_pdu(peer: ScriptedPeer) -> None:
    """Send a P-DATA-TF without a fragment."""
    await asked(peer)
    await peer.send(pdu(4, b""))
    await peer.read_request()


async def unknown_pdu(peer: ScriptedPeer) -> None:
    """Send a PDU of a type that does not exist."""
    await asked(peer)
    await peer.send(pdu(9, bytes(4)))
    await peer.read_request()


async def second_accept(peer: ScriptedPeer) -> None:
    """Accept the association once more."""
    await asked(peer)
    await peer.send(pdu(2, bytes(68)))
    await peer.read_request()


async def command_within(peer: ScriptedPeer) -> None:
    """Begin another message in the middle of an instance."""
    await asked(peer)
    await peer.send(begun(peer))
    await peer.finish_get()
    await peer.read_request()


async def endless_command(peer: ScriptedPeer) -> None:
    """Send a command that does not end."""
    await asked(peer)
    while True:
        await peer.send(pdu(4, pdv(peer.context_id(CT), 1, bytes(10_000))))


async def garbage_command(peer: ScriptedPeer) -> None:
    """Send a command set that is none."""
    await asked(peer)
    await peer.send(pdu(4, pdv(peer.context_id(CT), 3, b"\xff" * 100)))
    await peer.read_request()


async def other_message_id(peer: ScriptedPeer) -> None:
    """Answer a request that we have not sent."""
    await asked(peer)
    peer.message_id += 1
    await peer.finish_get()
    await peer.read_request()


async def find_response(peer: ScriptedPeer) -> None:
    """Answer a C-GET as if it had been a C-FIND."""
    await asked(peer)
    await peer.respond(0x8020, FIND, 0)
    await peer.read_request()


async def silent(peer: ScriptedPeer) -> None:
    """Take the request and never answer."""
    await asked(peer)
    await trio.sleep_forever()


async def dripping(peer: ScriptedPeer) -> None:
    """Send a byte a second."""
    await asked(peer)
    for byte in peer.store_request(FIRST, CONTENT):
        await peer.send(bytes([byte]))
        await trio.sleep(1)


async def dripping_fragments(peer: ScriptedPeer) -> None:
    """Send a fragment of one byte each second: whole PDUs, and no progress to speak of."""
    await asked(peer)
    await peer.send(begun(peer))
    while True:
        await peer.send(pdu(4, pdv(peer.context_id(CT), 0, b"x")))
        await trio.sleep(1)


async def pending_for_ever(peer: ScriptedPeer) -> None:
    """Say each second that it is still at it."""
    await asked(peer)
    while True:
        await peer.finish_get(PENDING)
        await trio.sleep(1)


FAULTS = [
    other_instance,
    duplicate,
    no_instance_uid,
    other_class,
    in_the_find_context,
    no_data_set,
    unaccepted_context,
    abort_at_once,
    abort_within,
    close_at_once,
    close_within,
    close_between_fragments,
    half_close,
    release_within,
    four_gigabytes,
    one_byte_too_long,
    fragment_beyond_pdu,
    tiny_fragment,
    empty_fragments,
    empty_pdu,
    unknown_pdu,
    second_accept,
    command_within,
    endless_command,
    garbage_command,
    other_message_id,
    find_response,
]

SILENCES = [silent, dripping, dripping_fragments, pending_for_ever]
