"""The TLS contexts of both ends, the credentials they show, and the chain that a handshake verified.

TLS 1.3 only, both sides show a certificate, no session is ever resumed: a resumed one shows no chain and checks nothing
again. Proxies are allowed in server contexts only: a user can name a proxy like the hospital's host.
"""

from __future__ import annotations

import _ssl
import contextlib
import dataclasses
import os
import ssl
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NoReturn, Self

from asn1crypto import pem, x509

from mdmfs.model.errors import ConfigurationError, CredentialRefusedError
from mdmfs.model.identity import Dn
from mdmfs.pki.dn import dn_of
from mdmfs.pki.judge import Judge
from mdmfs.pki.trust import Stamp, TrustAnchors, stamp_of
from mdmfs.pki.voms import VomsDirectory

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_NO_PROXY: Final = "make a proxy, or name the file it is in: credential.proxy of the mount, or X509_USER_PROXY"


@dataclasses.dataclass(frozen=True, slots=True)
class Credential:
    """Whose certificate is shown: a PEM file with the chain, leaf first, and one with the key; they may be the same."""

    certificate_file: Path
    key_file: Path

    @classmethod
    def of_proxy(cls, file: Path) -> Self:
        """Take a proxy file as ``grid-proxy-init`` writes it: proxy, key, chain, all in one."""
        return cls(file, file)

    @property
    def otherwise(self) -> str:
        """What to do where it is not there, if that is told; only of what may be a proxy."""
        return _NO_PROXY if self.certificate_file == self.key_file else ""

    def show_in(self, context: ssl.SSLContext) -> None:
        """Load chain and key; raises ``ConfigurationError``, also when others than the owner may read the key."""
        is_one = self.certificate_file == self.key_file
        with open_private(self.key_file, otherwise=self.otherwise) as key:
            try:
                context.load_cert_chain(key if is_one else self.certificate_file, key, _no_passphrase)
            except ConfigurationError as error:
                raise error.about(self.key_file) from error
            except ssl.SSLError as error:
                message = f"{self.certificate_file} with {self.key_file} is no certificate chain in PEM with its key"
                if error.reason == "KEY_VALUES_MISMATCH":
                    message = f"{self.key_file} is not the key of {self.certificate_file}"
                raise ConfigurationError(message) from error
            except OSError as error:
                raise self._unreadable(error) from error

    def subject(self) -> Dn:
        """Read whose certificate it is; raises ``ConfigurationError``."""
        try:
            return dn_of(self._certificate().subject)
        except (OSError, ValueError, TypeError) as error:
            raise self._unreadable(error) from error

    def hosts(self) -> frozenset[str]:
        """Read the host names of the certificate, in lower case; raises ``ConfigurationError``."""
        try:
            names = self._certificate().subject_alt_name_value or ()
            return frozenset(name.native.lower() for name in names if name.name == "dns_name")
        except (OSError, ValueError, TypeError) as error:
            raise self._unreadable(error) from error

    def _certificate(self) -> x509.Certificate:
        _, _, der = pem.unarmor(self.certificate_file.read_bytes())
        return x509.Certificate.load(der)

    def _unreadable(self, error: Exception) -> ConfigurationError:
        reason = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else "does not begin with one in PEM"
        return ConfigurationError(f"the certificate {self.certificate_file} {reason}")

    def stamp(self) -> Stamp:
        """Say in which state the files are: a context made under another stamp shows an old certificate.

        Raises ``ConfigurationError``.
        """
        try:
            return stamp_of(self.certificate_file), stamp_of(self.key_file)
        except OSError as error:
            message = f"{error.filename} cannot be read: {error.strerror}"
            raise ConfigurationError(message) from error


def server_context(credential: Credential, anchors: TrustAnchors) -> ssl.SSLContext:
    """Make the context of a server: it demands a certificate and lets a user's RFC 3820 proxy stand for the user.

    Raises ``ConfigurationError``. What a proxy's policy says is not judged here but in ``mdmfs.pki.proxy``.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, credential, anchors)
    context.num_tickets = 0
    context.verify_flags |= ssl.VerifyFlags.VERIFY_ALLOW_PROXY_CERTS
    return context


def client_context(
    credential: Credential | None, anchors: TrustAnchors, *, check_hostname: bool = True
) -> ssl.SSLContext:
    """Make the context of a client; a host is checked by its subject alternative names only, never by a CN.

    Whoever leaves ``check_hostname`` out compares the peer's DN with the one expected. Raises ``ConfigurationError``.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, credential, anchors)
    context.check_hostname = check_hostname
    context.hostname_checks_common_name = False
    return context


class ServerContexts:
    """The server context of a moment, and the judge of whoever comes; both are made again when files have changed."""

    def __init__(
        self,
        credential: Credential,
        anchors: TrustAnchors,
        vomsdir: Path | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Read credential, trust anchors and, for FQANs, the ``vomsdir``; raises ``ConfigurationError``."""
        self.credential: Final = credential
        self._anchors = anchors
        voms = None if vomsdir is None else VomsDirectory(vomsdir, credential.hosts())
        self.judge = Judge(anchors, voms, clock=clock)
        self._state = self._state_now()
        self._context = server_context(credential, anchors)

    def __call__(self) -> ssl.SSLContext:
        """Give the context for the next handshake; it looks at the files each time. Raises ``ConfigurationError``."""
        self.judge.look()
        state = self._state_now()
        if state != self._state:
            # The stamp is older than what is then read: a change in between is seen at the next handshake.
            self._context = server_context(self.credential, self._anchors)
            self._state = state
        return self._context

    def _state_now(self) -> tuple[int, Stamp]:
        return self.judge.generation, self.credential.stamp()


class ClientContexts:
    """The client context of a moment; it is made when asked for, and again when files change.

    A context knows a CA as it met it first: that its key was rolled over, only another one sees.
    """

    def __init__(self, credential: Credential, anchors: TrustAnchors, *, check_hostname: bool = True) -> None:
        """Name credential and trust anchors; nothing is read yet. ``check_hostname`` as of ``client_context``."""
        self._credential = credential
        self._anchors = anchors
        self._check_hostname = check_hostname
        self._made: tuple[Stamp, ssl.SSLContext] | None = None

    def __call__(self) -> ssl.SSLContext:
        """Give the context for the next handshake, in any thread. Raises ``ConfigurationError``."""
        stamp, made = self._credential.stamp() + self._anchors.stamp(), self._made
        if made is None or made[0] != stamp:
            made = stamp, client_context(self._credential, self._anchors, check_hostname=self._check_hostname)
            self._made = made
        return made[1]


def verified_chain(tls: ssl.SSLSocket | ssl.SSLObject) -> list[bytes]:
    """Give the chain that the handshake verified, as DER, leaf first, root last.

    Raises ``CredentialRefusedError`` where there is none: without a chain nobody is anybody.
    """
    chain = _verified_chain(tls)
    if not chain:
        message = "the peer showed no certificate in this very handshake"
        raise CredentialRefusedError(message)
    return chain


if sys.version_info >= (3, 13):

    def _verified_chain(tls: ssl.SSLSocket | ssl.SSLObject) -> list[bytes]:
        return tls.get_verified_chain()

else:

    def _verified_chain(tls: ssl.SSLSocket | ssl.SSLObject) -> list[bytes]:
        connection = getattr(tls, "_sslobj", None)
        if connection is None:
            return []
        return [one.public_bytes(_ssl.ENCODING_DER) for one in connection.get_verified_chain() or ()]


def _context(protocol: ssl._SSLMethod, credential: Credential | None, anchors: TrustAnchors) -> ssl.SSLContext:
    # Not ssl.create_default_context: from Python 3.13 it refuses real proxies and takes a lone sub-CA for an anchor.
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags = ssl.VerifyFlags.VERIFY_X509_TRUSTED_FIRST
    anchors.trust_in(context)
    if credential is not None:
        credential.show_in(context)
    return context


@contextlib.contextmanager
def open_private(file: Path, *, otherwise: str = "") -> Iterator[str]:
    """Open a key and give a path to that very file, once it is certain that nobody else may read it.

    ``otherwise`` says what to do where it cannot be opened.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        message = f"the private key {file} cannot be opened: {error.strerror}"
        raise ConfigurationError(message, what_to_do=otherwise) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or (status.st_mode & _OTHERS and not _is_credential_of_unit(file)):
            message = f"the private key {file} is no plain file, or not its owner's alone: chmod 600 {file}"
            raise ConfigurationError(message)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _is_credential_of_unit(file: Path) -> bool:
    """Ask whether systemd keeps a file for this unit alone (systemd.exec(5), LoadCredential).

    It lets the unit's user in by an ACL, whose mask shows as the group's rights.
    """
    return str(file.parent) == os.environ.get("CREDENTIALS_DIRECTORY")


def _no_passphrase() -> NoReturn:
    message = "the private key is protected by a passphrase"
    raise ConfigurationError(message, what_to_do="give a key without one, its file readable by its owner only")
