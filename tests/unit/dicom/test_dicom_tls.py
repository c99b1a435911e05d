"""DICOM over TLS: both versions of BCP 195, both sides certified, and nothing in the clear where TLS is configured."""

from __future__ import annotations

import os
import socket
import ssl
import struct
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from pydicom import Dataset

from mdmfs.hospital.dicom.pacs import PacsAddress, Politeness
from mdmfs.hospital.dicom.pool import Surroundings
from mdmfs.hospital.dicom.remote import RemotePacs, open_pacs
from mdmfs.hospital.dicom.security import DicomTls, shake_hands
from mdmfs.model.errors import PacsUnreachableError
from mdmfs.pki.trust import TrustAnchors
from tests.twins import certificates as make
from tests.twins.images import ct_slice
from tests.twins.pacs import encoded_data_set, keys_of
from tests.twins.receiver import receiving
from tests.twins.servers import pynetdicom_scp


def anchors_of(folder: Path, name: str) -> TrustAnchors:
    """Trust one CA."""
    file = folder / f"{name}.pem"
    file.write_bytes(make.authority(name).certificate.public_bytes(serialization.Encoding.PEM))
    return TrustAnchors(file)


@pytest.fixture
def ours(tmp_path: Path) -> DicomTls:
    """Be the hospital."""
    return DicomTls(
        make.host("hospital", make.authority("ours")).save(tmp_path, "hospital"), anchors_of(tmp_path, "ours")
    )


@pytest.fixture
def strange(tmp_path: Path) -> DicomTls:
    """Be somebody with a certificate of another CA, who trusts everybody of ours."""
    credential = make.host("stranger", make.authority("other")).save(tmp_path, "stranger")
    return DicomTls(credential, anchors_of(tmp_path, "ours"))


def pacs_context(tls: DicomTls, version: ssl.TLSVersion) -> ssl.SSLContext:
    """Make a PACS's own context, one version of TLS only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED
    tls.anchors.trust_in(context)
    tls.credential.show_in(context)
    return context


@pytest.fixture
def held() -> list[Dataset]:
    """Hold slices."""
    return [ct_slice(number, size=256) for number in (1, 2, 3)]


async def recall(pacs: RemotePacs, held: list[Dataset]) -> dict[str, bytes]:
    """Retrieve all."""
    came = {}
    async with pacs.retrieve(list(keys_of(held))) as arriving:
        async for it in arriving:
            came[it.instance_uid] = b"".join([bytes(buffer) async for buffer in it])
    return came


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_recall_over_tls_brings_the_same_bytes(
    ours: DicomTls, held: list[Dataset], version: ssl.TLSVersion
) -> None:
    """Kept associations are used again there as well."""
    with pynetdicom_scp(held, tls=pacs_context(ours, version)) as address:
        async with open_pacs(address, surroundings=Surroundings(tls=ours)) as pacs:
            for _ in range(2):
                assert await recall(pacs, held) == {it.SOPInstanceUID: encoded_data_set(it) for it in held}
            await pacs.echo()


def test_an_old_version_is_not_spoken(ours: DicomTls) -> None:
    """Neither TLS 1.0 nor 1.1 (RFC 8996), whoever asks."""
    for context in (ours.client(), ours.server()):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        assert context.verify_mode is ssl.CERT_REQUIRED
        old = [it["name"] for it in context.get_ciphers() if "GCM" not in it["name"] and "POLY1305" not in it["name"]]
        assert old == []
    assert ours.client().check_hostname


async def test_a_pacs_of_another_ca_is_refused(ours: DicomTls, strange: DicomTls, held: list[Dataset]) -> None:
    """It is not spoken to."""
    with pynetdicom_scp(held, tls=pacs_context(strange, ssl.TLSVersion.TLSv1_3)) as address:
        async with open_pacs(address, surroundings=Surroundings(tls=ours)) as pacs:
            with pytest.raises(PacsUnreachableError, match="no TLS"):
                await pacs.echo()


async def test_a_pacs_in_the_clear_is_refused(ours: DicomTls, held: list[Dataset]) -> None:
    """Nothing is negotiated down."""
    with pynetdicom_scp(held) as address:
        polite = Politeness(connect_timeout=1)
        async with open_pacs(address, polite, Surroundings(tls=ours)) as pacs:
            with pytest.raises(PacsUnreachableError):
                await pacs.echo()


async def test_our_scp_over_tls_takes_who_is_certified(ours: DicomTls, strange: DicomTls) -> None:
    """A peer in the clear, one without a certificate and one of another CA are not heard; ours are."""
    peer = PacsAddress("SOMEBODY", "127.0.0.1", 104)
    async with receiving(peer, tls=ours) as reception:
        address = PacsAddress("MDMFS-SCP", "127.0.0.1", reception.port, "SOMEBODY")
        for tls in (None, strange):
            async with open_pacs(address, Politeness(connect_timeout=1), Surroundings(tls=tls)) as pacs:
                with pytest.raises(PacsUnreachableError):
                    await pacs.echo()
        async with open_pacs(address, surroundings=Surroundings(tls=ours)) as pacs:
            await pacs.echo()
    assert reception.noted == []


async def test_a_peer_that_resets_before_the_handshake_leaves_no_descriptor_behind(ours: DicomTls) -> None:
    """The library would keep a socket of its own open until it is collected."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        peer = socket.create_connection(listening.getsockname())
        accepted, _ = listening.accept()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        accepted.setblocking(False)  # noqa: FBT003 of the library
        descriptor = accepted.fileno()
        with pytest.raises(OSError) as raised:  # noqa: PT011 which one is the library's affair
            await shake_hands(accepted, ours.server())
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
    assert not isinstance(raised.value, ssl.SSLError)
