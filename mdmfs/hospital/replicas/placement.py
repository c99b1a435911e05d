"""Where replicas of a file are to be and may be, and which of them are to stay."""

from __future__ import annotations

from collections.abc import Iterable

from mdmfs.hospital.catalogue.records import FileRecord
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.ledger.replicas import Replica, ReplicaState
from mdmfs.hospital.projects import Placement, Project
from mdmfs.hospital.release.decision import is_open_under
from mdmfs.hospital.store import Transaction
from mdmfs.model.errors import AccessDeniedError, ConfigurationError
from mdmfs.model.names import Guid


def lacking(placement: Placement | None, known: Iterable[Replica]) -> list[str]:
    """Name the storage elements at which a project wants a replica of what is let out, and none is, or is coming."""
    there = {it.element for it in known if it.state is not ReplicaState.LEAVING}
    wanted = () if placement is None or not placement.on_release else placement.at[: placement.copies]
    return [it for it in wanted if it not in there]


def misplaced(project: Project, element: str) -> AccessDeniedError | None:
    """Say why no replica of a project's files may be put somewhere: only where the project lets them be kept."""
    allowed = () if project.replicas is None else project.replicas.at
    if element in allowed:
        return None
    known = f"they may be at {', '.join(allowed)}" if allowed else "the hospital has to say where they may be"
    return AccessDeniedError(f"the project {project.name} keeps no replicas at {element!r}: {known}")


def is_usable(replica: Replica, file: FileRecord, now: float) -> bool:
    """Ask whether a file can be fetched there: it is whole, of the file's key, and its time is not over."""
    is_of_key = replica.generation == file.generation
    return is_of_key and replica.state is ReplicaState.THERE and replica.until > now


def is_wanted(tx: Transaction, hospital: Hospital, replica: Replica) -> bool:
    """Tell whether a replica may stay: file and key are, the project keeps it there, and its time is not over."""
    guid = Guid(replica.guid)
    file = tx.catalogue.file(guid)
    if file is None or not is_open_under(file, replica.generation) or tx.losses.get(guid) is not None:
        return False
    project = hospital.projects.get(file.project)
    return project is not None and misplaced(project, replica.element) is None and replica.until > hospital.clock()


def refuse_unknown_storage(hospital: Hospital) -> None:
    """Raise ``ConfigurationError`` where a project wants replicas at a place that is not configured."""
    for project in hospital.projects.values():
        unknown = set(project.replicas.at if project.replicas else ()) - set(hospital.replicas.elements)
        if unknown:
            message = f"project {project.name} wants replicas at {sorted(unknown)}, which no [[storage]] names"
            raise ConfigurationError(message)
