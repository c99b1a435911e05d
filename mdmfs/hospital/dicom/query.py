"""C-FIND in the Study Root model (PS3.4 section C.4.1): series by patient or study, instances by series."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from mdmfs.hospital.dicom import identifier as tags
from mdmfs.hospital.dicom.association import Fragment
from mdmfs.hospital.dicom.commands import Command, CommandField, is_pending
from mdmfs.hospital.dicom.connection import Connection, StaleAssociationError
from mdmfs.hospital.dicom.identifier import MAX_IDENTIFIER_BYTES, encode_identifier, parse_identifier
from mdmfs.hospital.dicom.negotiation import STUDY_ROOT_FIND
from mdmfs.hospital.dicom.pacs import InstanceFound, InstanceKey, SeriesFound
from mdmfs.hospital.dicom.paging import LEAST_LIMIT, TRUNCATED, Answer, Match, find_studies
from mdmfs.hospital.dicom.pool import Pool
from mdmfs.model.errors import MalformedNameError, RecallFailedError

MAX_ANSWER_BYTES: Final = 256 * 2**20
"""Of all matches of one query together: more than a million of them."""
MAX_PATIENT_ID: Final = 64
_MATCH_OVERHEAD_BYTES: Final = 100
_SUCCESS: Final = 0x0000
_UID = re.compile(r"(?=.{1,64}\Z)[0-9]+(?:\.[0-9]+)*")
_NOT_IN_PATIENT_IDS = re.compile(r"[*?\\\x00-\x1f\x7f]")

Note = Callable[[Match], None]
"""Takes a match as soon as it has come."""


async def find_series(pool: Pool, patient_id: str | None, study_uid: str | None) -> list[SeriesFound]:
    """Ask at STUDY level, then for the series of each study; see ``Pacs.find_series``."""
    check_asked(patient_id, study_uid)
    asked = {
        tags.QUERY_RETRIEVE_LEVEL: "STUDY",
        tags.PATIENT_ID: patient_id or "",
        tags.ISSUER_OF_PATIENT_ID: "",
        tags.STUDY_INSTANCE_UID: study_uid or "",
        tags.STUDY_DATE: "",
        tags.NUMBER_OF_PATIENT_RELATED_STUDIES: "",
        tags.NUMBER_OF_STUDY_RELATED_SERIES: "",
    }
    found: list[SeriesFound] = []
    for study in await _find_studies(pool, asked, is_of_patient=patient_id is not None):
        is_meant = patient_id is None or study.get(tags.PATIENT_ID, "") == patient_id
        if is_meant and study_uid in {None, study.get(tags.STUDY_INSTANCE_UID)}:
            found += await _find_series_of(pool, study)
    return found


async def _find_studies(pool: Pool, asked: Mapping[int, str], *, is_of_patient: bool) -> list[Match]:
    if not is_of_patient:
        return await _find(pool, asked)
    return await find_studies(functools.partial(_answer, pool), asked, pool.address, pool.today())


async def _find_series_of(pool: Pool, study: Match) -> list[SeriesFound]:
    study_uid, patient_id = _uid(pool, study, tags.STUDY_INSTANCE_UID), study.get(tags.PATIENT_ID, "")
    asked = {
        tags.QUERY_RETRIEVE_LEVEL: "SERIES",
        tags.STUDY_INSTANCE_UID: study_uid,
        tags.PATIENT_ID: "",
        tags.SERIES_INSTANCE_UID: "",
        tags.MODALITY: "",
        tags.SERIES_NUMBER: "",
        tags.NUMBER_OF_SERIES_RELATED_INSTANCES: "",
    }
    matches = await _find(pool, asked)
    counted = _count(study.get(tags.NUMBER_OF_STUDY_RELATED_SERIES, "")) or 0
    if counted > len(matches) >= LEAST_LIMIT:
        message = f"{pool.address}: of {counted} series of a study it names {len(matches)}: does it limit its answers?"
        raise RecallFailedError(message)
    return [
        SeriesFound(
            patient_id=patient_id or series.get(tags.PATIENT_ID, ""),
            issuer=study.get(tags.ISSUER_OF_PATIENT_ID, ""),
            study_uid=study_uid,
            series_uid=_uid(pool, series, tags.SERIES_INSTANCE_UID),
            modality=series.get(tags.MODALITY, ""),
            study_date=study.get(tags.STUDY_DATE, ""),
            series_number=series.get(tags.SERIES_NUMBER, ""),
            instance_count=_count(series.get(tags.NUMBER_OF_SERIES_RELATED_INSTANCES, "")),
        )
        for series in matches
        # One study UID may stand under two patients after a wrong merge.
        if series.get(tags.STUDY_INSTANCE_UID, study_uid) == study_uid
        and (not patient_id or series.get(tags.PATIENT_ID, "") in {"", patient_id})
    ]


async def find_instances(
    pool: Pool, study_uid: str, series_uid: str, *, are_described: bool = True
) -> list[InstanceFound]:
    """Ask at IMAGE level; see ``Pacs.find_instances``."""
    asked = _instances_of(study_uid, series_uid)
    if are_described:
        return await _found(pool, asked | _DESCRIPTION, series_uid)
    found = await _found(pool, asked, series_uid)
    if not found:
        return []
    described = await _found(pool, asked | _DESCRIPTION | {tags.SOP_INSTANCE_UID: found[0].instance_uid}, series_uid)
    if any(it.transfer_syntax is not None for it in described):
        del found  # they may be many, and come once more
        return await _found(pool, asked | _DESCRIPTION, series_uid)  # it knows more than may be passed over
    found[0] = next((it for it in described if it.instance_uid == found[0].instance_uid), found[0])
    return found


async def _found(pool: Pool, asked: dict[int, str], series_uid: str) -> list[InstanceFound]:
    """List instances: of each match its UID stays and nothing else, since a series may have tens of thousands."""
    found: dict[str, InstanceFound] = {}

    def note(match: Match) -> None:
        if match.get(tags.SERIES_INSTANCE_UID, series_uid) != series_uid:
            return
        uid = _uid(pool, match, tags.SOP_INSTANCE_UID)
        class_uid, syntaxes = (
            sys.intern(match.get(tag, "")) for tag in (tags.SOP_CLASS_UID, tags.AVAILABLE_TRANSFER_SYNTAX_UID)
        )
        found[uid] = InstanceFound(uid, class_uid, syntaxes if _UID.fullmatch(syntaxes) else None)

    await _go_through(pool, asked, note)
    return list(found.values())


async def is_held(pool: Pool, key: InstanceKey) -> bool:
    """Ask whether the PACS still knows one instance."""
    asked = _instances_of(key.study_uid, key.series_uid) | {tags.SOP_INSTANCE_UID: key.instance_uid}
    return any(match.get(tags.SOP_INSTANCE_UID) == key.instance_uid for match in await _find(pool, asked))


_DESCRIPTION: Final = {tags.SOP_CLASS_UID: "", tags.AVAILABLE_TRANSFER_SYNTAX_UID: ""}
"""What some PACSs read from each image's file: Orthanc takes ten times as long for it as for the UIDs alone."""


def _instances_of(study_uid: str, series_uid: str) -> dict[int, str]:
    check_uids((study_uid, series_uid))
    return {
        tags.QUERY_RETRIEVE_LEVEL: "IMAGE",
        tags.STUDY_INSTANCE_UID: study_uid,
        tags.SERIES_INSTANCE_UID: series_uid,
        tags.SOP_INSTANCE_UID: "",
    }


def check_asked(patient_id: str | None, study_uid: str | None) -> None:
    """Refuse questions that a PACS would answer with more than was meant; raises ``MalformedNameError``."""
    if patient_id is None and study_uid is None:
        message = "a query names a patient, a study, or both"
        raise MalformedNameError(message)
    if study_uid is not None:
        check_uids((study_uid,))
    if patient_id is None:
        return
    is_bare = patient_id == patient_id.strip() and not _NOT_IN_PATIENT_IDS.search(patient_id)
    if not is_bare or not 0 < len(patient_id) <= MAX_PATIENT_ID:
        message = "a Patient ID in a query has 1 to 64 characters, no wildcard, no backslash, no space at its ends"
        raise MalformedNameError(message)


def check_uids(uids: Sequence[str]) -> None:
    """Refuse what is no UID: empty, a wildcard or a list; raises ``MalformedNameError``."""
    if not all(_UID.fullmatch(uid) for uid in uids):
        message = "a UID has 1 to 64 digits and dots"
        raise MalformedNameError(message)


def _uid(pool: Pool, match: Match, tag: int) -> str:
    """Take a UID from an answer; an empty one or a wildcard would make the next question a different one."""
    uid = match.get(tag, "")
    if not _UID.fullmatch(uid):
        message = f"{pool.address}: it answered a query without one of the UIDs that a match has"
        raise RecallFailedError(message)
    return uid


def _count(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


async def _find(pool: Pool, asked: Mapping[int, str]) -> list[Match]:
    """Ask one question; all its matches, or an error as ``_go_through``."""
    matches: list[Match] = []
    await _go_through(pool, asked, matches.append)
    return matches


async def _go_through(pool: Pool, asked: Mapping[int, str], note: Note) -> None:
    """Ask one question and note its matches; an error where they are not all: half a list looks like a stable count."""
    status, count = await _ask(pool, asked, note)
    if status == _SUCCESS:
        return
    why = ""
    if status in TRUNCATED and count:
        why = f"; it may limit its answers, and gave {count}: raise that limit above the largest series"
    message = f"{pool.address}: a query failed with status 0x{status:04X}{why}"
    raise RecallFailedError(message)


async def _answer(pool: Pool, asked: Mapping[int, str]) -> Answer:
    """Ask one question; its matches, and what the PACS said behind them."""
    matches: list[Match] = []
    status, _ = await _ask(pool, asked, matches.append)
    return Answer(matches, status)


async def _ask(pool: Pool, asked: Mapping[int, str], note: Note) -> tuple[int, int]:
    """Ask one question and note each match as it comes; gives the status behind them, and their number."""
    while True:
        connection = await pool.take({})
        try:
            return await _matches(pool, connection, asked, note)
        except StaleAssociationError:
            continue  # nothing had come; at most once for each association that was kept
        finally:
            pool.give_back(connection)


async def _matches(pool: Pool, connection: Connection, asked: Mapping[int, str], note: Note) -> tuple[int, int]:
    message_id = await connection.request(CommandField.FIND_RQ, STUDY_ROOT_FIND, encode_identifier(asked))
    count = size = 0
    while True:
        response = await connection.next_event()
        if not isinstance(response, Command) or (response.field, response.message_id) != (
            CommandField.FIND_RSP,
            message_id,
        ):
            message = f"{pool.address}: it answered a query with something else"
            raise RecallFailedError(message)
        encoded = await read_identifier(connection) if response.has_data_set else b""
        if not is_pending(response.status):
            connection.finished()
            return response.status, count
        note(_parsed(pool, encoded))
        count += 1
        connection.progressed()
        size += len(encoded) + _MATCH_OVERHEAD_BYTES
        if size > MAX_ANSWER_BYTES:
            message = f"{pool.address}: it answered a query with more than {MAX_ANSWER_BYTES} bytes"
            raise RecallFailedError(message)


def _parsed(pool: Pool, encoded: bytes) -> Match:
    try:
        return parse_identifier(encoded)
    except RecallFailedError as error:
        message = f"{pool.address}: {error}"
        raise RecallFailedError(message) from error


async def read_identifier(connection: Connection) -> bytes:
    """Receive the data set that belongs to a response, at most ``MAX_IDENTIFIER_BYTES``."""
    encoded = bytearray()
    while True:
        fragment = await connection.next_event()
        if not isinstance(fragment, Fragment) or len(encoded) + len(fragment.view) > MAX_IDENTIFIER_BYTES:
            message = f"it sent an identifier of more than {MAX_IDENTIFIER_BYTES} bytes"
            raise RecallFailedError(message)
        encoded += fragment.view
        if fragment.is_last:
            return bytes(encoded)
