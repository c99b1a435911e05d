"""Replicas on a real WebDAV server (rclone, from Debian): put, looked for, read with a proxy or not at all, deleted."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import http.client
import secrets
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from mdmfs.demo.pki import ThrowAwayPki, make_pki
from mdmfs.hospital.storage.dav import TIMEOUT, DavElement
from mdmfs.hospital.storage.port import BrokenOffError, StorageError
from mdmfs.hospital.storage.probe import probe
from mdmfs.pki.tls import client_context, server_context
from tests.twins.servers import free_port

OBJECT = secrets.token_bytes(300_000)
NAME = secrets.token_hex(32)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> ThrowAwayPki:
    """Make one for the hospital, a storage element with a keystore's name, and readers."""
    return make_pki(tmp_path_factory.mktemp("pki"), keystores=1, now=dt.datetime.now(dt.UTC))


@pytest.fixture
def server(tmp_path: Path, pki: ThrowAwayPki) -> Iterator[tuple[str, Path]]:
    """Serve a folder to those who show a certificate of the CA; gives its URL and the folder."""
    folder, port = tmp_path / "served", free_port()
    (folder / "sealed").mkdir(parents=True)
    host = pki.keystores[0]
    command = ["rclone", "serve", "webdav", str(folder), "--addr", f"127.0.0.1:{port}", "--config", "/dev/null"]
    command += ["--cert", str(host.certificate_file), "--key", str(host.key_file), "--client-ca", str(pki.anchors.path)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        yield f"https://127.0.0.1:{port}/sealed", folder / "sealed"
    finally:
        process.kill()
        process.wait()


def element(pki: ThrowAwayPki, url: str, *, shows: bool = True, timeout: float = TIMEOUT) -> DavElement:
    """Open it as the hospital, or as somebody without a certificate."""
    context = functools.partial(client_context, pki.hospital if shows else None, pki.anchors)
    return DavElement("tier1", url, context, padding=0, timeout=timeout)


def test_an_object_is_put_found_read_and_deleted(pki: ThrowAwayPki, server: tuple[str, Path]) -> None:
    """The bytes are the same, and what is gone is gone."""
    url, folder = server
    storage = element(pki, url)
    assert storage.size(NAME) is None
    storage.put(NAME, lambda: iter([OBJECT[:100_000], OBJECT[100_000:]]), len(OBJECT))
    assert storage.size(NAME) == len(OBJECT)
    assert (folder / NAME).read_bytes() == OBJECT
    assert fetched(storage.turl(NAME, 60), client_context(pki.users["reader"], pki.anchors)) == OBJECT
    storage.delete(NAME)
    storage.delete(NAME)
    assert storage.size(NAME) is None
    assert not list(folder.iterdir())


def test_the_cas_of_the_system_are_read_for_no_exchange(pki: ThrowAwayPki, server: tuple[str, Path]) -> None:
    """There are a hundred or more, and nobody here trusts them."""
    own = client_context(pki.hospital, pki.anchors)
    storage = DavElement("tier1", server[0], lambda: own, padding=0)
    called: set[str] = set()
    sys.setprofile(lambda frame, event, _: called.add(frame.f_code.co_name) if event == "call" else None)
    try:
        storage.size(NAME)
    finally:
        sys.setprofile(None)
    assert "putrequest" in called
    assert "create_default_context" not in called


def test_the_probe_of_the_doctor_goes_through_and_leaves_nothing(pki: ThrowAwayPki, server: tuple[str, Path]) -> None:
    """It says what fails where something does."""
    url, folder = server
    probe(element(pki, url))
    assert not list(folder.iterdir())
    with pytest.raises(StorageError, match="a probe object cannot be put: storage tier1 does not answer PUT"):
        probe(element(pki, url, shows=False))


def test_who_shows_no_certificate_neither_writes_nor_deletes(pki: ThrowAwayPki, server: tuple[str, Path]) -> None:
    """The error names the storage element."""
    url, folder = server
    (folder / NAME).write_bytes(OBJECT)
    storage = element(pki, url, shows=False)
    for use in (storage.size, storage.delete):
        with pytest.raises(StorageError, match="tier1"):
            use(NAME)
    assert (folder / NAME).read_bytes() == OBJECT


def test_a_folder_that_is_not_there_and_a_server_that_is_gone_are_told(
    pki: ThrowAwayPki, server: tuple[str, Path]
) -> None:
    """No object is taken for kept that is not."""
    url, _ = server
    with pytest.raises(StorageError, match="tier1"):
        element(pki, f"{url}/not/there").put(NAME, lambda: iter([OBJECT]), len(OBJECT))
    with pytest.raises(StorageError, match="does not answer"):
        element(pki, f"https://127.0.0.1:{free_port()}").size(NAME)


@pytest.mark.parametrize("place", ["https://[x", "https://a:99999/", "https://:x/", "https://h/\xe9", "ftp://a/"])
def test_a_door_that_sends_us_to_what_is_no_url_is_an_answer_like_any_other(pki: ThrowAwayPki, place: str) -> None:
    """Whatever the header says, the error is that of the port."""
    answer = f"HTTP/1.1 307 Temporary Redirect\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n"
    with answering(pki, answer) as url, pytest.raises(StorageError, match="tier1"):
        element(pki, url).delete(NAME)


def test_a_body_without_an_end_holds_nobody_up(pki: ThrowAwayPki) -> None:
    """What is to be known stands in the head."""
    with answering(pki, "HTTP/1.1 200 OK\r\nContent-Length: 9000000000\r\n\r\n") as url:
        element(pki, url).delete(NAME)


def test_an_object_whose_length_is_not_told_is_not_taken_for_gone(pki: ThrowAwayPki) -> None:
    """Only 404 and 410 say that it is gone."""
    with answering(pki, "HTTP/1.1 200 OK\r\n\r\n") as url, pytest.raises(StorageError, match="tier1"):
        element(pki, url).size(NAME)


@pytest.mark.parametrize(("answer", "more"), [("HTTP/1.1 200 OK\r\nX: ", "x"), ("", "HTTP/1.1 100 Continue\r\n\r\n")])
def test_who_answers_for_ever_is_broken_off_in_the_end(pki: ThrowAwayPki, answer: str, more: str) -> None:
    """Byte after byte of a head, or one interim answer after the other, each in time."""
    with answering(pki, answer, more) as url, pytest.raises(StorageError, match="tier1"):
        element(pki, url, timeout=0.5).size(NAME)


def test_an_object_that_is_taken_and_not_answered_may_yet_be_kept(pki: ThrowAwayPki, server: tuple[str, Path]) -> None:
    """A refusal is none of that, nor a server that is not there."""
    with answering(pki, "") as url, pytest.raises(BrokenOffError):
        element(pki, url, timeout=0.5).put(NAME, lambda: iter([OBJECT]), len(OBJECT))
    for refusing in (f"{server[0]}/not/there", f"https://127.0.0.1:{free_port()}"):
        with pytest.raises(StorageError) as refused:
            element(pki, refusing).put(NAME, lambda: iter([OBJECT]), len(OBJECT))
        assert type(refused.value) is StorageError


@contextlib.contextmanager
def answering(pki: ThrowAwayPki, answer: str, more: str = "") -> Iterator[str]:
    """Answer every request with the same, over TLS, and leave the connection open; gives a URL.

    ``more`` follows again and again, until nobody listens.
    """
    context = server_context(pki.keystores[0], pki.anchors)
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    tls = stack.enter_context(context.wrap_socket(listener.accept()[0], server_side=True))
                    tls.recv(65_536)
                    tls.sendall(answer.encode("latin-1"))
                    with contextlib.suppress(OSError):
                        while more:
                            tls.sendall(more.encode())
                            time.sleep(0.01)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"https://127.0.0.1:{listener.getsockname()[1]}/sealed"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def fetched(url: str, context: ssl.SSLContext) -> bytes:
    """GET it."""
    parts = urllib.parse.urlsplit(url)
    with contextlib.closing(http.client.HTTPSConnection(parts.netloc, context=context, timeout=10)) as connection:
        connection.request("GET", parts.path)
        return connection.getresponse().read()
