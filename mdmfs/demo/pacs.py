"""A small PACS for demonstration and tests: C-ECHO, C-FIND, C-GET, C-MOVE and C-STORE over a directory of files.

It behaves as a strict archive does: unique keys of the levels above are demanded, and an instance goes out as its bytes
lie on disk, in the transfer syntax it was stored in, or not at all. No identifier of a query or answer is logged.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click
from pydicom.config import IGNORE, settings
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import (
    AE,
    ALL_TRANSFER_SYNTAXES,
    AllStoragePresentationContexts,
    _config,
    build_context,
    evt,
)
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from mdmfs.demo.archive import Archive, Holding, Root
from mdmfs.model.errors import ConfigurationError, MalformedMessageError

AE_TITLE: Final = "DEMOPACS"
LOOPBACK: Final = "127.0.0.1"
MAXIMUM_PDU: Final = 131_072
MAXIMUM_ASSOCIATIONS: Final = 20

SUCCESS: Final = 0x0000
PENDING: Final = 0xFF00
CANCELLED: Final = 0xFE00
IDENTIFIER_DOES_NOT_MATCH: Final = 0xA900
"""C-FIND, C-GET and C-MOVE; for C-STORE the data set does not match the SOP class (PS3.4 Tables C.4-1 and B.2-1)."""
CANNOT_UNDERSTAND: Final = 0xC000

_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_MAX_UID_LENGTH = 64
_MAX_CONTEXTS = 128
_VERIFICATION = UID("1.2.840.10008.1.1")
_PATIENT_ROOT = tuple(UID(f"1.2.840.10008.5.1.4.1.2.1.{number}") for number in (1, 2, 3))
_STUDY_ROOT = tuple(UID(f"1.2.840.10008.5.1.4.1.2.2.{number}") for number in (1, 2, 3))
"""FIND, MOVE and GET of each query model (PS3.4 sections C.6.1.3 and C.6.2.3)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Destination:
    """Where a C-MOVE may send to."""

    host: str
    port: int


@dataclasses.dataclass(slots=True)
class Pacs:
    """A running PACS: where it listens and what it holds. ``delay`` may be changed while it runs."""

    ae_title: str
    host: str
    port: int
    archive: Archive
    destinations: dict[str, Destination]
    """By AE title; C-MOVE to any other is refused (status A801)."""
    delay: float = 0.0
    """Seconds to wait before each answer to C-FIND and each sub-operation of C-GET and C-MOVE."""


@contextlib.contextmanager
def serving(
    directory: Path,
    *,
    ae_title: str = AE_TITLE,
    host: str = LOOPBACK,
    port: int = 0,
    destinations: Mapping[str, Destination] | None = None,
    delay: float = 0.0,
) -> Iterator[Pacs]:
    """Serve the ``*.dcm`` files below ``directory`` from threads until the block ends; port 0 takes a free one.

    Any calling AE title is let in; the called one must be ours. Raises ``OSError`` if the port is taken.
    """
    with _keeping_quiet():
        archive = Archive(directory)
        pacs = Pacs(ae_title, host, port, archive, dict(destinations or {}), delay)
        entity = AE(ae_title=ae_title)
        entity.maximum_pdu_size = MAXIMUM_PDU
        entity.maximum_associations = MAXIMUM_ASSOCIATIONS
        entity.require_called_aet = True
        contexts = supported_contexts(archive)
        server = entity.start_server((host, port), block=False, contexts=contexts, evt_handlers=_handlers(pacs))
        if server is None or server.socket is None:
            message = f"the PACS {ae_title} did not start at {host}:{port}"
            raise ConfigurationError(message, what_to_do="see who listens there: ss -tlnp")
        pacs.port = server.socket.getsockname()[1]
        try:
            yield pacs
        finally:
            entity.shutdown()


@contextlib.contextmanager
def _keeping_quiet() -> Iterator[None]:
    """Keep pynetdicom and pydicom from writing identifiers, and from decoding what is only passed on.

    Both libraries have these settings for the whole process; they are put back at the end.
    """
    wanted: list[tuple[object, str, object]] = [
        (_config, "LOG_REQUEST_IDENTIFIERS", False),
        (_config, "LOG_RESPONSE_IDENTIFIERS", False),
        (_config, "STORE_SEND_CHUNKED_DATASET", True),
        # A pattern such as C* is no valid value, and the warning about it would hold it.
        (settings, "reading_validation_mode", IGNORE),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in wanted]
    logger = logging.getLogger("pynetdicom")
    level = logger.level
    try:
        # Lower levels name SOP Instance UIDs, and errors quote values that could not be read.
        logger.setLevel(logging.CRITICAL + 1)
        for owner, name, value in wanted:
            setattr(owner, name, value)
        yield
    finally:
        logger.setLevel(level)
        for owner, name, value in before:
            setattr(owner, name, value)


def supported_contexts(archive: Archive) -> list[PresentationContext]:
    """Accept every storage class in every transfer syntax, as SCU and SCP.

    Where a context offers a choice the first of ours is taken: what is held of that class comes first.
    """
    held = archive.transfer_syntaxes()
    contexts = [build_context(uid) for uid in (_VERIFICATION, *_PATIENT_ROOT, *_STUDY_ROOT)]
    for storage in AllStoragePresentationContexts:
        sop_class = storage.abstract_syntax or ""
        first = sorted(held.get(sop_class, set()))
        context = _SharedContext()
        context.abstract_syntax = UID(sop_class)
        context.transfer_syntax = [UID(uid) for uid in dict.fromkeys((*first, *ALL_TRANSFER_SYNTAXES))]
        context.scu_role = context.scp_role = True
        contexts.append(context)
    return contexts


class _SharedContext(PresentationContext):
    """A context that no negotiation changes: copying all of them for each association would take 50 ms."""

    def __deepcopy__(self, memo: dict[int, object]) -> _SharedContext:
        return self


class _Parcel(Dataset):
    """A stored instance on its way through pynetdicom, which wants a data set: its UID, and where it lies."""

    def __init__(self, holding: Holding) -> None:
        super().__init__()
        self.SOPInstanceUID = holding.header.SOPInstanceUID
        self.path = holding.path


class _Association(Association):
    """An association that sends a stored instance as its bytes lie on disk; it adds no state to its parent."""

    def send_c_store(self, dataset: Any, *arguments: Any, **options: Any) -> Dataset:  # noqa: ANN401 - as its parent
        """Send a parcel's file undecoded in a context of exactly its transfer syntax; without one, ``ValueError``."""
        source = dataset.path if isinstance(dataset, _Parcel) else dataset
        return super().send_c_store(source, *arguments, **options)


def _prepare_connection(event: evt.Event) -> None:
    """Switch Nagle's algorithm off, and let the association send files as they are."""
    _set_tcp_option(event, socket.TCP_NODELAY)
    _acknowledge_at_once(event)
    # pynetdicom makes associations of its own class only, and this is the one moment before they start.
    event.assoc.__class__ = _Association


def _acknowledge_at_once(event: evt.Event) -> None:
    """Ask for the next segment to be acknowledged at once: a peer that uses Nagle's algorithm waits for that."""
    _set_tcp_option(event, socket.TCP_QUICKACK)


def _set_tcp_option(event: evt.Event, option: int) -> None:
    association_socket = event.assoc.dul.socket
    connection = association_socket.socket if association_socket is not None else None
    if connection is not None:
        with contextlib.suppress(OSError):  # the peer may be gone, which the association finds out by itself
            connection.setsockopt(socket.IPPROTO_TCP, option, 1)


_CONNECTION_HANDLERS: list[evt.EventHandlerType] = [
    (evt.EVT_CONN_OPEN, _prepare_connection),
    (evt.EVT_DATA_RECV, _acknowledge_at_once),
    (evt.EVT_DATA_SENT, _acknowledge_at_once),
]


def _handlers(pacs: Pacs) -> list[evt.EventHandlerType]:
    """Bind what a PACS does; C-ECHO is pynetdicom's own."""
    return [
        *_CONNECTION_HANDLERS,
        (evt.EVT_C_FIND, _find, [pacs]),
        (evt.EVT_C_GET, _get, [pacs]),
        (evt.EVT_C_MOVE, _move, [pacs]),
        (evt.EVT_C_STORE, _store, [pacs]),
    ]


def _find(event: evt.Event, pacs: Pacs) -> Iterator[tuple[int, Dataset | None]]:
    """Answer a C-FIND (PS3.4 section C.4.1)."""
    try:
        for answer in pacs.archive.find(_root(event), event.identifier):
            if event.is_cancelled:
                yield CANCELLED, None
                return
            time.sleep(pacs.delay)
            answer.RetrieveAETitle = pacs.ae_title
            yield PENDING, answer
    except MalformedMessageError:
        yield IDENTIFIER_DOES_NOT_MATCH, None


def _get(event: evt.Event, pacs: Pacs) -> Iterator[Any]:
    """Answer a C-GET (PS3.4 section C.4.3): how many, then each."""
    try:
        chosen = pacs.archive.select(_root(event), event.identifier)
    except MalformedMessageError:
        yield 1
        yield IDENTIFIER_DOES_NOT_MATCH, None
        return
    yield len(chosen)
    yield from _parcels(event, pacs, chosen)


def _move(event: evt.Event, pacs: Pacs) -> Iterator[Any]:
    """Answer a C-MOVE (PS3.4 section C.4.2): where to, how many, then each."""
    destination = pacs.destinations.get(str(event.move_destination))
    if destination is None:
        yield None, None
        return
    refused = False
    chosen: list[Holding] = []
    try:
        chosen = pacs.archive.select(_root(event), event.identifier)
    except MalformedMessageError:
        refused = True
    options = {"contexts": _needed_contexts(chosen), "evt_handlers": _CONNECTION_HANDLERS}
    yield destination.host, destination.port, options
    yield 1 if refused else len(chosen)
    if refused:
        yield IDENTIFIER_DOES_NOT_MATCH, None
    yield from _parcels(event, pacs, chosen)


def _parcels(event: evt.Event, pacs: Pacs, chosen: list[Holding]) -> Iterator[tuple[int, Dataset | None]]:
    for holding in chosen:
        if event.is_cancelled:
            yield CANCELLED, None
            return
        time.sleep(pacs.delay)
        yield PENDING, _Parcel(holding)


def _needed_contexts(chosen: list[Holding]) -> list[PresentationContext]:
    """Propose one context for each pair of class and transfer syntax; what goes beyond 128 fails by itself."""
    pairs = sorted({(str(holding.header.SOPClassUID), holding.transfer_syntax) for holding in chosen})
    return [build_context(sop_class, syntax) for sop_class, syntax in pairs[:_MAX_CONTEXTS]] or [
        build_context(_VERIFICATION)
    ]


def _store(event: evt.Event, pacs: Pacs) -> int:
    """Keep what a C-STORE brings, as it is (PS3.4 section B.2); the UID becomes a file name and is checked first."""
    uid = str(getattr(event.request, "AffectedSOPInstanceUID", ""))
    if len(uid) > _MAX_UID_LENGTH or not _UID.fullmatch(uid):
        return CANNOT_UNDERSTAND
    try:
        pacs.archive.add(uid, event.encoded_dataset())
    except MalformedMessageError:
        return IDENTIFIER_DOES_NOT_MATCH
    return SUCCESS


def _root(event: evt.Event) -> Root:
    return Root.PATIENT if event.request.AffectedSOPClassUID in _PATIENT_ROOT else Root.STUDY


def parse_destination(text: str) -> tuple[str, Destination]:
    """Read ``AET@HOST:PORT``; raises ``ConfigurationError``."""
    found = re.fullmatch(r"(?P<title>[^@]{1,16})@(?P<host>[^@]+):(?P<port>[0-9]{1,5})", text)
    if found is None:
        message = f"{text!r} is no destination"
        raise ConfigurationError(message, what_to_do="write AET@HOST:PORT")
    return found["title"], Destination(found["host"], int(found["port"]))


@click.command()
@click.option("--directory", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--port", type=int, default=0, help="0 takes a free one.")
@click.option("--host", default=LOOPBACK, show_default=True)
@click.option("--ae", default=AE_TITLE, show_default=True, help="Our AE title.")
@click.option("--destination", multiple=True, metavar="AET@HOST:PORT", help="Where C-MOVE may send to; repeatable.")
@click.option("--delay", type=float, default=0.0, help="Seconds to wait before each answer and sub-operation.")
def main(directory: Path, port: int, host: str, ae: str, destination: tuple[str, ...], delay: float) -> None:
    """Serve the DICOM files below a directory until SIGINT or SIGTERM."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        destinations = dict(parse_destination(text) for text in destination)
        with serving(directory, ae_title=ae, host=host, port=port, destinations=destinations, delay=delay) as pacs:
            click.echo(f"ready: {pacs.ae_title}@{pacs.host}:{pacs.port} ({len(pacs.archive)} instances)")
            stopped.wait()
    except (ConfigurationError, OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
