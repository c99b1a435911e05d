"""Classes that a PACS does not tell: tried one association after the other, private and retired ones as configured."""

from __future__ import annotations

import pytest

from mdmfs.hospital.dicom.pacs import InstanceKey, Politeness
from mdmfs.hospital.dicom.remote import RemotePacs, open_pacs
from mdmfs.model.errors import RecallFailedError
from tests.twins.pacs_faults import CONTENT
from tests.twins.scripted_pacs import EXPLICIT, FIND, PENDING, ScriptedPeer, encode_identifier, serving

PRIVATE = "1.3.12.2.1107.5.9.1"
KEYS = [InstanceKey("1.2.3", "1.2.3.4", f"1.2.3.4.{number}", "", None) for number in (1, 2, 3)]


async def private(peer: ScriptedPeer) -> None:
    """Hold three instances of a private class, and send them where its context was accepted; tell nobody the class."""
    await peer.accept()
    mine = (PRIVATE, EXPLICIT) in peer.contexts.values()
    while True:
        command, identifier = await peer.read_request()
        asked = [key.instance_uid for key in KEYS if key.instance_uid.encode() in identifier]
        if command[0x0100] == b"\x20\x00":
            for uid in asked:
                await peer.respond(0x8020, FIND, PENDING, encode_identifier({0x0008_0018: uid}))
            await peer.respond(0x8020, FIND, 0)
        else:
            for uid in asked if mine else ():
                await peer.store(uid, CONTENT, class_uid=PRIVATE, context=PRIVATE)
            await peer.finish_get(0 if mine else 0xB000)


async def recall(pacs: RemotePacs, keys: list[InstanceKey]) -> dict[str, str]:
    """Retrieve instances, and tell their classes."""
    came = {}
    async with pacs.retrieve(keys) as instances:
        async for instance in instances:
            async for _ in instance:
                pass
            came[instance.instance_uid] = instance.class_uid
    return came


async def test_a_configured_private_class_is_found() -> None:
    """For the first instance all has to be tried; the others come the way that the first one came."""
    async with serving(*[private] * 40) as site, open_pacs(site.address, Politeness(classes=(PRIVATE,))) as pacs:
        assert await recall(pacs, KEYS) == dict.fromkeys((key.instance_uid for key in KEYS), PRIVATE)
        assert site.connections < 30


async def test_a_class_that_nobody_configured_is_a_failure_that_says_so() -> None:
    """After every storage class of the standard was offered, and no more often than that."""
    async with serving(*[private] * 40) as site, open_pacs(site.address) as pacs:
        with pytest.raises(RecallFailedError, match="holds an instance but does not send it"):
            await recall(pacs, KEYS[:1])
        assert site.connections < 30
