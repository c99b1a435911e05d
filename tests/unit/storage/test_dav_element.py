"""What the hospital tells of its own files when it cannot speak to a WebDAV storage element: nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog.testing
from cryptography.hazmat.primitives import serialization

from mdmfs.hospital.storage.dav import DavElement
from mdmfs.hospital.storage.port import StorageError
from mdmfs.pki.tls import ClientContexts, Credential
from mdmfs.pki.trust import TrustAnchors
from tests.twins import certificates as make


@pytest.mark.parametrize("fault", ["gone", "torn", "open"])
def test_a_credential_that_cannot_be_used_is_told_without_its_place(tmp_path: Path, fault: str) -> None:
    """As an error of the storage element, whatever is wrong; the log says where the file is."""
    anchors = tmp_path / "ca.pem"
    anchors.write_bytes(make.authority().certificate.public_bytes(serialization.Encoding.PEM))
    credential = make.host("hospital").save(tmp_path, "hospital")
    spoil(credential, fault)
    context = ClientContexts(credential, TrustAnchors(anchors))
    element = DavElement("tier1", "https://127.0.0.1:9/sealed", context, padding=0)
    for use in (element.size, element.delete, lambda name: element.put(name, lambda: iter([b"x"]), 1)):
        with structlog.testing.capture_logs() as logs, pytest.raises(StorageError) as raised:
            use("0" * 64)
        assert str(raised.value) == "storage tier1: our credential cannot be used"
        assert str(credential.key_file) in logs[0]["reason"]


def spoil(credential: Credential, fault: str) -> None:
    """Do to the key what happens to keys."""
    match fault:
        case "gone":
            credential.key_file.unlink()
        case "torn":
            credential.key_file.write_bytes(credential.key_file.read_bytes()[:100])
        case _:
            credential.key_file.chmod(0o644)
