"""From a configuration's peers to clients: the one place where credential, trust and expected DN come together."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import trio

from mdmfs.daemon.configuration import KeystorePeer, at_key
from mdmfs.model.errors import ConfigurationError, MalformedNameError
from mdmfs.model.identity import Dn, Principal
from mdmfs.pki.judge import Judge
from mdmfs.pki.tls import ClientContexts, Credential, client_context
from mdmfs.pki.trust import TrustAnchors
from mdmfs.wire.client import Client
from mdmfs.wire.keystores.answers import OnLie
from mdmfs.wire.keystores.keystores import Keystores
from mdmfs.wire.orders import Signer, vouching
from mdmfs.wire.stream import Address


class NamedPeer(Protocol):
    """A peer as configurations have it."""

    @property
    def address(self) -> str:
        """``HOST:PORT``, of a peer that may be at several places with commas between them."""

    @property
    def dn(self) -> str:
        """Of its certificate."""


def refuse_wrong_peer(key: str, peer: NamedPeer) -> None:
    """Raise ``ConfigurationError``, by its key, for an address or a DN that is none."""
    with at_key(f"{key}.address"):
        Address.parse_all(peer.address)
    with at_key(f"{key}.dn: {peer.dn!r}"):
        Dn.parse(peer.dn)


class PeerJudge:
    """Judges the chains of servers: signing policies and revocation count for them as for users.

    A server's DN is pinned, but without signing policies any CA of the directory could issue a certificate of that DN.
    """

    def __init__(self, anchors: TrustAnchors) -> None:
        """Know where the files are; they are read when the first chain comes, in a thread."""
        self._anchors = anchors
        self._lock = threading.Lock()
        self._judge: Judge | None = None

    def __call__(self, chain: Sequence[bytes]) -> Principal:
        """Give whom a verified chain proves, by the files of now.

        Raises ``CredentialRefusedError``, ``CredentialExpiredError`` or ``ConfigurationError``.
        """
        with self._lock:
            if self._judge is None:
                self._judge = Judge(self._anchors)
            else:
                self._judge.look()
        return self._judge.judge(chain).principal(time.time())


def open_client(
    address: str,
    dn: str,
    credential: Credential,
    anchors: TrustAnchors,
    judge: PeerJudge | None = None,
) -> Client:
    """Make a client of the peer at ``HOST:PORT`` whose certificate has this DN; raises ``ConfigurationError``.

    A peer that may be at several places, one after the other, has commas between them. Clients with the same trust
    anchors may share a ``judge``. Credential and anchors are those of now: whoever outlives them takes
    ``open_lasting_client``.
    """
    context = client_context(credential, anchors, check_hostname=False)
    return _client(address, dn, context, judge or PeerJudge(anchors))


def open_lasting_client(
    address: str,
    dn: str,
    credential: Credential,
    anchors: TrustAnchors,
    judge: PeerJudge | None = None,
    signer: Signer | None = None,
) -> Client:
    """Make a client as ``open_client`` whose every connection goes by the files of that moment.

    A ``signer`` signs orders to a keystore.
    """
    contexts = ClientContexts(credential, anchors, check_hostname=False)
    contexts()
    return _client(address, dn, contexts, judge or PeerJudge(anchors), signer)


def _client(
    address: str,
    dn: str,
    context: ssl.SSLContext | Callable[[], ssl.SSLContext],
    judge: PeerJudge,
    signer: Signer | None = None,
) -> Client:
    try:
        expected = Dn.parse(dn)
    except MalformedNameError as error:
        message = f"the DN of the peer at {address} is none: {error}"
        raise ConfigurationError(message) from error
    vouch = None if signer is None else vouching(signer, expected)
    return Client(Address.parse_all(address), context, expected=expected, judge=judge, vouch=vouch)


def open_keystores(
    peers: Sequence[KeystorePeer],
    credential: Credential,
    anchors: TrustAnchors,
    nursery: trio.Nursery,
    on_lie: OnLie | None = None,
    signer: Signer | None = None,
) -> Keystores:
    """Make lasting clients of all keystores, as ``Keystores``; raises ``ConfigurationError``."""
    judge = PeerJudge(anchors)
    clients = {
        peer.name: open_lasting_client(peer.address, peer.dn, credential, anchors, judge, signer) for peer in peers
    }
    return Keystores(clients, nursery, on_lie)
