"""Contexts, credentials and trust anchors: what is set, and which files are refused."""

from __future__ import annotations

import socket
import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from mdmfs.model.errors import ConfigurationError, CredentialRefusedError
from mdmfs.pki.tls import ClientContexts, Credential, ServerContexts, client_context, server_context, verified_chain
from mdmfs.pki.trust import TrustAnchors
from tests.twins import certificates as make


@pytest.fixture
def anchors(tmp_path: Path) -> TrustAnchors:
    """Trust the tests' CA."""
    file = tmp_path / "ca.pem"
    file.write_bytes(make.authority().certificate.public_bytes(serialization.Encoding.PEM))
    return TrustAnchors(file)


@pytest.fixture
def credential(tmp_path: Path) -> Credential:
    """Be the hospital."""
    return make.host("hospital").save(tmp_path, "hospital")


def test_both_contexts_speak_tls_1_3_only_and_demand_a_certificate(
    anchors: TrustAnchors, credential: Credential
) -> None:
    """And a server's makes no session that could be resumed."""
    for context in (server_context(credential, anchors), client_context(credential, anchors)):
        assert (context.minimum_version, context.maximum_version) == (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3)
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert not context.verify_flags & (ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN)
    assert server_context(credential, anchors).num_tickets == 0


def test_proxies_are_allowed_in_server_contexts_only(anchors: TrustAnchors, credential: Credential) -> None:
    """A client that took proxies would take a user's for the hospital."""
    assert server_context(credential, anchors).verify_flags & ssl.VERIFY_ALLOW_PROXY_CERTS
    assert not client_context(credential, anchors).verify_flags & ssl.VERIFY_ALLOW_PROXY_CERTS
    assert not client_context(credential, anchors).hostname_checks_common_name


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610])
@pytest.mark.parametrize("is_proxy", [False, True])
def test_a_key_that_others_may_open_is_refused_by_name(
    anchors: TrustAnchors,
    tmp_path: Path,
    mode: int,
    is_proxy: bool,  # noqa: FBT001 a case
) -> None:
    """For a key file as for a proxy that holds its key."""
    jane = make.person("jane")
    credential = jane.save_proxy(tmp_path / "proxy") if is_proxy else jane.save(tmp_path, "jane")
    credential.key_file.chmod(mode)
    with pytest.raises(ConfigurationError, match=credential.key_file.name):
        client_context(credential, anchors)


def test_files_are_written_for_their_owner_only(credential: Credential) -> None:
    """From their first moment, so by their creation."""
    assert credential.key_file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("fault", ["missing", "directory", "fifo", "no pem", "another's key", "passphrase"])
def test_a_credential_that_is_none_is_refused(
    anchors: TrustAnchors, credential: Credential, tmp_path: Path, fault: str
) -> None:
    """At once, with the file's name, and without waiting for a passphrase or a writer."""
    key = credential.key_file
    key.unlink()
    match fault:
        case "directory":
            key.mkdir(0o700)
        case "fifo":
            subprocess.run(["mkfifo", "-m", "600", key], check=True)
        case "no pem":
            key.write_text("no key")
        case "another's key":
            make.person("other").save(tmp_path, "other").key_file.rename(key)
        case "passphrase":
            key.write_bytes(
                make.person("other").key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.BestAvailableEncryption(b"secret"),
                )
            )
        case _:
            assert fault == "missing"
    if key.is_file():
        key.chmod(0o600)
    with pytest.raises(ConfigurationError, match=r"hospital\.key|passphrase"):
        server_context(credential, anchors)


def test_a_ca_directory_is_read_by_hash_names(tmp_path: Path, anchors: TrustAnchors, credential: Credential) -> None:
    """As grids lay it out; one without a hash name trusts nobody and is refused at once."""
    directory = tmp_path / "certificates"
    directory.mkdir()
    (directory / "ca.pem").write_bytes(anchors.path.read_bytes())
    with pytest.raises(ConfigurationError, match="rehash"):
        server_context(credential, TrustAnchors(directory))
    subprocess.run(["openssl", "rehash", directory], check=True)
    before = TrustAnchors(directory).stamp()
    assert server_context(credential, TrustAnchors(directory))
    (directory / "01234567.r0").write_text("a CRL")
    assert TrustAnchors(directory).stamp() != before


def test_a_credential_that_is_missing_or_does_not_fit_is_told_as_that(
    anchors: TrustAnchors, credential: Credential, tmp_path: Path
) -> None:
    """Which file is not there, whose key it is not, and of a proxy what to do."""
    other = make.person("other").save(tmp_path, "other")
    with pytest.raises(ConfigurationError, match=r"other\.key is not the key of .*hospital\.pem"):
        server_context(Credential(credential.certificate_file, other.key_file), anchors)
    nothing = Credential(tmp_path / "none.pem", credential.key_file)
    for look in (nothing.subject, nothing.hosts, lambda: server_context(nothing, anchors)):
        with pytest.raises(ConfigurationError, match=r"none\.pem cannot be read: No such file"):
            look()
    with pytest.raises(ConfigurationError, match=r"none\.pem cannot be opened: No such file") as raised:
        client_context(Credential.of_proxy(tmp_path / "none.pem"), anchors)
    assert raised.value.what_to_do.startswith("make a proxy")


def test_missing_anchors_are_named(tmp_path: Path, credential: Credential) -> None:
    """Trusting nobody is not a default to start with."""
    with pytest.raises(ConfigurationError, match=r"none\.pem"):
        client_context(credential, TrustAnchors(tmp_path / "none.pem"))


@pytest.mark.parametrize("kind", [ServerContexts, ClientContexts])
def test_a_renewed_certificate_is_shown_and_another_ca_believed_without_a_restart(
    anchors: TrustAnchors, credential: Credential, tmp_path: Path, kind: type[ServerContexts | ClientContexts]
) -> None:
    """The context is made again when a file has changed, and only then."""
    contexts = kind(credential, anchors)
    first = contexts()
    assert contexts() is first
    make.host("hospital").save(tmp_path, "hospital")
    second = contexts()
    assert second is not first
    anchors.path.write_bytes(make.authority("other CA").certificate.public_bytes(serialization.Encoding.PEM))
    assert contexts() is not second


def test_no_chain_is_no_peer(anchors: TrustAnchors, credential: Credential) -> None:
    """A socket that has not shaken hands is nobody's."""
    context = client_context(credential, anchors, check_hostname=False)
    with (
        context.wrap_socket(socket.socket(), do_handshake_on_connect=False) as tls,
        pytest.raises(CredentialRefusedError),
    ):
        verified_chain(tls)
