"""Incidents: failures that nobody foresaw, noted in the hospital's log under a number that others may be told."""

from __future__ import annotations

import secrets

import structlog

from mdmfs.daemon.outline import outline

log = structlog.get_logger()


def note_incident(what: str, error: Exception) -> str:
    """Log where an error arose, without its message, which may quote a patient; give what may be told of it."""
    incident = secrets.token_hex(4)
    log.error("incident", what=what, incident=incident, where=outline(error))
    return f"{what} failed; the hospital's log tells more under incident {incident}"
