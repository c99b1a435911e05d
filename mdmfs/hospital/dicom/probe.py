"""A short visit to a PACS: whether it answers, which services it offers to us, in which contexts images could come."""

from __future__ import annotations

from typing import Final, NamedTuple

import trio
from pydicom.uid import UID

from mdmfs.hospital.dicom.connection import open_connection
from mdmfs.hospital.dicom.echo import echo
from mdmfs.hospital.dicom.negotiation import STUDY_ROOT_FIND, STUDY_ROOT_GET, STUDY_ROOT_MOVE
from mdmfs.hospital.dicom.pacs import PacsAddress, Politeness
from mdmfs.hospital.dicom.recall import FOR_UNKNOWN_CLASSES
from mdmfs.hospital.dicom.security import DicomTls

_SERVICES: Final = {"C-FIND": STUDY_ROOT_FIND, "C-GET": STUDY_ROOT_GET, "C-MOVE": STUDY_ROOT_MOVE}


class Visit(NamedTuple):
    """What a visit showed."""

    seconds: float
    """For the association and one C-ECHO on it."""
    services: tuple[str, ...]
    """``C-FIND``, ``C-GET``, ``C-MOVE``: those offered in the Study Root model."""
    accepted: int
    """Storage contexts accepted, of those offered."""
    offered: int
    refused_classes: tuple[str, ...]
    """Names of the usual classes in which nothing could come by C-GET."""


async def visit(address: PacsAddress, politeness: Politeness, tls: DicomTls | None = None) -> Visit:
    """Open one association of its own, say C-ECHO, release it.

    Raises ``PacsUnreachableError`` without an association, ``RecallFailedError`` for an answer that is none,
    ``RecallTimedOutError`` for none.
    """
    begun = trio.current_time()
    connection = await open_connection(address, FOR_UNKNOWN_CLASSES, politeness, tls)
    try:
        await echo(connection, address)
        seconds = trio.current_time() - begun
        await connection.release()
    finally:
        connection.abort()
    contexts = connection.accepted.contexts.values()
    storage = [it for it in contexts if it.abstract_syntax in FOR_UNKNOWN_CLASSES]
    accepted = {it.abstract_syntax for it in storage}
    return Visit(
        seconds,
        tuple(name for name, uid in _SERVICES.items() if connection.accepted.context_id(uid) is not None),
        len(storage),
        sum(map(len, FOR_UNKNOWN_CLASSES.values())),
        tuple(UID(uid).name.removesuffix(" Storage") for uid in FOR_UNKNOWN_CLASSES if uid not in accepted),
    )
