"""Hospital, keystores and metadata services as one caller reaches them: one pool of connections per credential.

A proxy that was renewed on disk makes new pools at the next call, and so does a configuration that names other
keystores; calls under way end over the old ones.
"""

from __future__ import annotations

import contextlib
import random
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog
import trio

from mdmfs.daemon.configuration import KeystorePeer
from mdmfs.model.errors import ConfigurationError, CredentialRefusedError, MdmfsError
from mdmfs.model.names import Lfn
from mdmfs.pki.certificate import UNREADABLE, Certificate
from mdmfs.pki.health import certificates_of
from mdmfs.pki.tls import Credential, client_context
from mdmfs.pki.trust import Stamp, TrustAnchors, stamps_within
from mdmfs.wire.client import Client
from mdmfs.wire.keystores.keystores import Keystores
from mdmfs.wire.peers import PeerJudge, open_client
from mdmfs.worker.configuration import HospitalPeer, MetadataPeer, MountConfiguration

LOOK_SECONDS: Final = 1.0
"""How often the files are looked at."""
WRITING_SECONDS: Final = 2.0
"""So long a credential may be unusable before it is: many renew a proxy by writing over it."""
WRITING_LOOK_SECONDS: Final = 0.05
WARN_SECONDS: Final = 3600.0
"""So long before a credential ends the log says so: jobs that run longer need a new one."""

TOP: Final = Lfn(())

log = structlog.get_logger(__name__)


class Peers:
    """Clients with the credential of the moment."""

    def __init__(  # noqa: PLR0913 whom a mount speaks with
        self,
        hospital: HospitalPeer,
        keystores: Sequence[KeystorePeer],
        credential: Credential | Callable[[], Credential],
        anchors: TrustAnchors,
        nursery: trio.Nursery,
        *,
        metadata: Sequence[MetadataPeer] = (),
        called: str = "",
        file: Path | None = None,
        root: Lfn = TOP,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Know where everyone is; nobody is asked yet. The nursery outlives all calls.

        A ``credential`` that is called gives that of the moment. ``called``: what its user calls the file, if another.
        ``file`` is the configuration: when it changes, the keystores that it names then, for what lies at ``root``, are
        asked from there on.
        """
        self._hospital_peer = hospital
        self._keystore_peers = tuple(keystores)
        self._metadata_peers = tuple(metadata)
        self._source = credential if callable(credential) else lambda: credential
        self._called = called
        self._anchors = anchors
        self._nursery = nursery
        self._configured_by = () if file is None else (file,)
        self._root = root
        self._clock = clock
        """Seconds since the epoch."""
        self._ends = float("inf")
        """When the first certificate of the credential ends; infinity once that is told."""
        self._stamp: Stamp = ()
        self._look_again = float("-inf")
        self._unusable_since = float("inf")
        self._told = ""
        """Why there is no usable credential, as the log says already."""
        self.on_leaving: Callable[[Client], None] | None = None
        """Takes over a client of the hospital with the credential of him whom another follows, or who has destroyed it,
        for his last words."""
        self._owner = ""
        """The DN of him whose credential it is."""
        self._hospital: Client | None = None
        self._readers: Client | None = None
        self._keystores: Keystores | None = None
        self._metadata: dict[str, Client] = {}
        self._storage_context: ssl.SSLContext | None = None
        self._clients: list[Client] = []
        """All of them."""

    def hospital(self) -> Client:
        """Give the client of the hospital; raises ``CredentialRefusedError`` where there is no usable credential."""
        self._renew()
        if self._hospital is None:
            raise self._missing()
        return self._hospital

    def readers(self) -> Client | None:
        """Give the client of the daemons that only answer readers, if there are any; raises as ``hospital``."""
        self._renew()
        return self._readers

    def keystores(self) -> Keystores:
        """Give the clients of the keystores; raises as ``hospital``."""
        self._renew()
        if self._keystores is None:
            raise self._missing()
        return self._keystores

    def metadata(self) -> Mapping[str, Client]:
        """Give the clients of all metadata services, by the names of their hospitals; raises as ``hospital``."""
        self._renew()
        if self._hospital is None:
            raise self._missing()
        return self._metadata

    def storage_context(self) -> ssl.SSLContext:
        """Give the TLS context towards storage elements: the host's name is checked, the caller's proxy is shown.

        Raises as ``hospital``.
        """
        self._renew()
        if self._hospital is None:
            raise self._missing()
        if self._storage_context is None:
            self._storage_context = client_context(self._credential, self._anchors)
        return self._storage_context

    def look(self) -> bool:
        """Look whether the credential is another by now, and take it over: who waits for news asks for nothing."""
        try:
            stamp: Stamp = self._credential.stamp()
        except ConfigurationError:
            stamp = ()
        if stamp and stamp == self._stamp[: len(stamp)]:
            return False
        before, self._look_again = self._stamp, float("-inf")
        with contextlib.suppress(CredentialRefusedError):
            self._renew()
        return self._stamp != before

    def change(
        self,
        hospital: HospitalPeer,
        keystores: Sequence[KeystorePeer],
        metadata: Sequence[MetadataPeer],
        anchors: TrustAnchors,
    ) -> None:
        """Speak with these from the next call on, where they are others than before."""
        before = self._hospital_peer, self._keystore_peers, self._metadata_peers, self._anchors
        after = hospital, tuple(keystores), tuple(metadata), anchors
        if after != before:
            self._hospital_peer, self._keystore_peers, self._metadata_peers, self._anchors = after
            self._stamp = ()
        self._look_again = float("-inf")

    async def aclose(self) -> None:
        """Close all connections."""
        clients, self._clients = self._clients, []
        for client in clients:
            await client.aclose()

    def _missing(self) -> CredentialRefusedError:
        message = f"there is no usable proxy or certificate at {self._file}: make a new proxy"
        return CredentialRefusedError(message)

    @property
    def _credential(self) -> Credential:
        return self._source()

    @property
    def _file(self) -> str:
        return self._called or str(self._credential.certificate_file)

    def _renew(self) -> None:
        """Make new clients where credential or trust anchors have changed on disk."""
        if trio.current_time() < self._look_again:
            return
        try:
            stamp = self._credential.stamp() + self._anchors.stamp() + self._configuration_stamp()
            if stamp != self._stamp:
                self._connect_with(stamp)
        except ConfigurationError as error:
            now = trio.current_time()
            self._unusable_since = min(self._unusable_since, now)
            may_come = self._hospital is not None and now < self._unusable_since + WRITING_SECONDS
            if may_come and not self._is_destroyed():
                self._look_again = now + WRITING_LOOK_SECONDS
                return
            self._disconnect(is_leaving=True)
            if str(error) != self._told:
                self._told = str(error)
                log.warning("no usable credential", reason=self._told)
            message = f"no usable proxy or certificate: {error}"
            raise CredentialRefusedError(message) from error
        self._unusable_since, self._told = float("inf"), ""
        self._look_again = trio.current_time() + LOOK_SECONDS
        if self._clock() >= self._ends - WARN_SECONDS:
            minutes = max(0, round((self._ends - self._clock()) / 60))
            log.warning("the credential ends soon", minutes=minutes, file=self._file)
            self._ends = float("inf")

    def _is_destroyed(self) -> bool:
        """Ask whether the credential is gone: whoever destroys a proxy means it. One out of reach may come back."""
        try:
            self._credential.certificate_file.stat()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return False

    def _connect_with(self, stamp: Stamp) -> None:
        self._read_keystores()
        peer = self._hospital_peer
        judge = PeerJudge(self._anchors)
        hospital = open_client(peer.address, peer.dn, self._credential, self._anchors, judge)
        readers = None
        if peer.reads:  # each mount begins with another one
            reads = peer.reads.split(",")
            places = ",".join(random.sample(reads, len(reads)))
            readers = open_client(places, peer.dn, self._credential, self._anchors, judge)
        keystores = {
            peer.name: open_client(peer.address, peer.dn, self._credential, self._anchors, judge)
            for peer in self._keystore_peers
        }
        metadata = {
            peer.name: open_client(peer.address, peer.dn, self._credential, self._anchors, judge)
            for peer in self._metadata_peers
        }
        certificates = _certificates_in(self._credential.certificate_file)
        owner = next((str(one.subject) for one in certificates if not one.is_proxy), "")
        self._disconnect(is_leaving=owner != self._owner)
        self._owner = owner
        self._hospital, self._keystores, self._metadata = hospital, Keystores(keystores, self._nursery), metadata
        self._readers = readers
        self._clients = [hospital, *([readers] if readers else []), *keystores.values(), *metadata.values()]
        self._stamp = stamp
        self._ends = min((one.ends for one in certificates), default=float("inf"))
        log.info("credential loaded", file=self._file)

    def _configuration_stamp(self) -> Stamp:
        """Say in which state the configuration is; one that is out of reach just now is as good as none."""
        try:
            return stamps_within(self._configured_by)
        except OSError:
            return ()

    def _read_keystores(self) -> None:
        """Look who the keystores are now; a file that is just being written, or wrong, changes nothing."""
        for file in self._configured_by:
            try:
                peers = tuple(MountConfiguration.read_again(file).of(self._root).keystores)
            except ConfigurationError as error:
                log.warning("the keystores stay as they were: the configuration is wrong", reason=error.told_here)
            else:
                self._keystore_peers = peers

    def _disconnect(self, *, is_leaving: bool) -> None:
        """Speak no more with the credential of before; calls under way end as they began."""
        if is_leaving and self._hospital is not None and self.on_leaving is not None:
            self.on_leaving(self._hospital.again())
        for client in self._clients:
            self._nursery.start_soon(client.aclose)
        self._clients = []
        self._hospital = self._readers = self._keystores = self._storage_context = None
        self._metadata = {}
        self._stamp = ()


def _certificates_in(file: Path) -> list[Certificate]:
    try:
        return list(certificates_of(file))
    except (OSError, MdmfsError, *UNREADABLE) as error:
        message = f"{file} cannot be read as certificates in PEM"
        raise ConfigurationError(message) from error
