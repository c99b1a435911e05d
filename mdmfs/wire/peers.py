"""From a configuration's peers to clients: the one place where credential, trust and expected DN come together."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from mdmfs.model.identity import Dn
from mdmfs.pki.tls import Credential, client_context
from mdmfs.pki.trust import TrustAnchors
from mdmfs.wire.client import Client
from mdmfs.wire.configuration import KeystorePeer
from mdmfs.wire.keystores import Keystores
from mdmfs.wire.stream import Address


def open_client(address: str, dn: str, credential: Credential, anchors: TrustAnchors) -> Client:
    """Make a client of the peer at ``HOST:PORT`` whose certificate has this DN; raises ``ConfigurationError``."""
    context = client_context(credential, anchors, check_hostname=False)
    return Client(Address.parse(address), context, expected=Dn.parse(dn))


def open_keystores(
    peers: Sequence[KeystorePeer], credential: Credential, anchors: TrustAnchors, nursery: trio.Nursery
) -> Keystores:
    """Make the clients of all keystores; their calls run in ``nursery``. Raises ``ConfigurationError``."""
    clients = {peer.name: open_client(peer.address, peer.dn, credential, anchors) for peer in peers}
    return Keystores(clients, nursery)
