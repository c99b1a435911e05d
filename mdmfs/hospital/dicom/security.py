"""DICOM over TLS (PS3.15 sections B.12 and B.13, which are BCP 195, RFC 9325): 1.2 and 1.3, both sides certified.

A port speaks TLS or it does not; nothing is ever negotiated down to plain text.
"""

from __future__ import annotations

import dataclasses
import socket
import ssl
from typing import Final

import trio

from mdmfs.pki.tls import Credential
from mdmfs.pki.trust import Crls, TrustAnchors

CIPHERS: Final = "ECDHE+AESGCM"
"""Of TLS 1.2: what RFC 9325 section 4.2 recommends; those of 1.3 are all good."""


@dataclasses.dataclass(frozen=True, slots=True)
class DicomTls:
    """Our certificate towards a PACS, and the CAs that its own may come from."""

    credential: Credential
    anchors: TrustAnchors

    def client(self) -> ssl.SSLContext:
        """Make the context of an SCU: it checks the PACS's host name. Raises ``ConfigurationError``."""
        context = self._context(ssl.PROTOCOL_TLS_CLIENT)
        context.hostname_checks_common_name = False
        return context

    def server(self) -> ssl.SSLContext:
        """Make the context of an SCP: it demands a certificate. Raises ``ConfigurationError``."""
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        context.num_tickets = 0
        return context

    def _context(self, protocol: ssl._SSLMethod) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(CIPHERS)
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_TRUSTED_FIRST
        if self.anchors.crls is Crls.REQUIRE:
            context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_CHAIN
        self.anchors.trust_in(context)
        self.credential.show_in(context)
        return context


async def shake_hands(connected: socket.socket, context: ssl.SSLContext, host: str | None = None) -> ssl.SSLSocket:
    """Shake hands over a socket that does not block, as the client of ``host`` or, without one, as the server.

    The socket is taken over: on any error and on cancellation it is closed. Raises ``OSError``. The arithmetic runs in
    threads, which never wait for the peer.
    """
    try:
        connected.getpeername()  # raises where it was reset; the library would, too, and leave a socket of its own open
        tls = context.wrap_socket(
            connected, server_side=host is None, server_hostname=host, do_handshake_on_connect=False
        )
    except BaseException:
        connected.close()
        raise
    try:
        while True:
            try:
                await trio.to_thread.run_sync(tls.do_handshake)
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(tls)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(tls)
            else:
                return tls
    except BaseException:
        tls.close()
        raise
