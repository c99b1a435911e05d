"""The demonstration's PKI: what lies in its directory, and whether others than we believe it."""

from __future__ import annotations

import datetime as dt
import stat
import subprocess
from pathlib import Path

import pytest

from mdmfs.demo.pki import ThrowAwayPki, make_pki
from mdmfs.pki.tls import client_context, server_context


@pytest.fixture
def made(tmp_path: Path) -> ThrowAwayPki:
    """Make one with three keystores."""
    return make_pki(tmp_path / "pki", keystores=3, now=dt.datetime.now(dt.UTC))


def test_its_files_are_their_owners_alone(made: ThrowAwayPki) -> None:
    """Keys, proxies and the directory itself."""
    directory = made.anchors.path.parent
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in directory.iterdir()} == {0o600}
    assert sorted(made.dns) == ["hospital", "keystore-1", "keystore-2", "keystore-3", "metadata", "reader", "stranger"]


def test_every_credential_serves(made: ThrowAwayPki) -> None:
    """As a server or a client, certificate or proxy."""
    for credential in (made.hospital, *made.keystores, made.metadata):
        assert server_context(credential, made.anchors)
    for credential in (*made.users.values(), *made.proxies.values()):
        assert client_context(credential, made.anchors)


@pytest.mark.parametrize("user", ["reader", "stranger"])
def test_openssl_verifies_certificate_and_proxy(made: ThrowAwayPki, user: str) -> None:
    """With the same CA; the proxy only where proxies are allowed."""
    certificate, proxy = made.users[user].certificate_file, made.proxies[user].certificate_file
    verify = ["openssl", "verify", "-purpose", "sslclient", "-CAfile", str(made.anchors.path)]
    subprocess.run([*verify, certificate], check=True, capture_output=True)
    through = [*verify, "-untrusted", certificate, proxy]
    subprocess.run([*through[:2], "-allow_proxy_certs", *through[2:]], check=True, capture_output=True)
    assert subprocess.run(through, check=False, capture_output=True).returncode != 0


def test_it_can_be_made_again_in_the_same_place(made: ThrowAwayPki) -> None:
    """Other keys, the same names."""
    before = made.hospital.key_file.read_bytes()
    again = make_pki(made.anchors.path.parent, keystores=3, now=dt.datetime.now(dt.UTC))
    assert again.dns == made.dns
    assert again.hospital.key_file.read_bytes() != before
