"""What ``mdmfs doctor`` looks at in a hospital: files, certificates, all it asks, room, and the daemon's own word.

It reads the configuration and asks from outside, so it is of use where the daemon does not start. The store is the
daemon's alone: nothing here opens it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import functools
import pathlib
import time
from collections.abc import Iterator
from typing import Final

import trio

from mdmfs.daemon.configuration import KeystorePeer
from mdmfs.daemon.diagnosis import (
    GIB,
    LEAST_ROOM,
    Check,
    authorities_check,
    credential_check,
    free_bytes,
    judge_clock,
)
from mdmfs.hospital.assembly import read_choices, read_policy
from mdmfs.hospital.configuration import HospitalConfiguration, MetadataPeer, PacsEntry, StorageEntry
from mdmfs.hospital.dicom.choices import FILE, Choice
from mdmfs.hospital.dicom.pacs import RetrievalService
from mdmfs.hospital.dicom.probe import Visit, visit
from mdmfs.hospital.projects import Project, read_patient_list, read_projects
from mdmfs.hospital.storage.elements import open_element
from mdmfs.hospital.storage.port import StorageError
from mdmfs.hospital.storage.probe import probe
from mdmfs.hospital.store import store_layout
from mdmfs.model.errors import StoreError
from mdmfs.model.finding import Finding
from mdmfs.pki.health import DAY
from mdmfs.pki.tls import ClientContexts
from mdmfs.rows.diagnosis import database_checks
from mdmfs.wire.messages.administration import HEALTH_PATH, AskHealth, Health
from mdmfs.wire.messages.keystores import EPOCH_PATH, AskEpoch, EpochHeld
from mdmfs.wire.peers import open_client
from mdmfs.wire.stream import Address

DEADLINE: Final = 10.0
"""Seconds for an answer of a keystore, the metadata service or the daemon."""
SOON_OVER: Final = 30 * DAY
FEW: Final = 0.01
"""Of the files: so many may be without a header, as those with new keys are, or one of more than 4 MiB."""


def checks_of(configuration: HospitalConfiguration) -> list[Check]:
    """Give everything that is looked at."""
    settings, reads, metadata = configuration.hospital, configuration.reads, configuration.metadata
    tls = [("[tls]", configuration.tls)]
    if configuration.dicom is not None and configuration.dicom.tls is not None:
        tls.append(("[dicom.tls]", configuration.dicom.tls))
    tls += [(f"[pacs.tls] of {entry.name}", entry.tls) for entry in configuration.pacs if entry.tls is not None]
    about = functools.partial
    return [
        Check("projects", settings.projects, about(_look_at_projects, configuration)),
        *(credential_check(name, configuration.credential_of(files)) for name, files in tls),
        *(authorities_check(name, configuration.anchors_of(files)) for name, files in tls),
        *database_checks(settings.store, store_layout()),
        Check("room", settings.directory, about(_look_at_room, configuration)),
        *(Check("pacs", entry.name, about(_look_at_pacs, configuration, entry)) for entry in configuration.pacs),
        *(Check("keystore", it.name, about(_look_at_hearer, configuration, it)) for it in configuration.keystores),
        *(Check("storage", it.name, about(_look_at_storage, configuration, it)) for it in configuration.storage),
        *([Check("metadata", metadata.address, about(_look_at_hearer, configuration, metadata))] if metadata else []),
        Check("daemon", str(configuration.public), about(_look_at_daemon, configuration)),
        *([Check("reads", str(reads), about(_look_at_reads, configuration, reads))] if reads else []),
    ]


# Files


async def _look_at_projects(configuration: HospitalConfiguration, check: Check) -> list[Finding]:
    settings = configuration.hospital
    projects = read_projects(configuration.path(settings.projects), settings.name, read_policy)
    if settings.opt_out:
        read_patient_list(configuration.path(settings.opt_out))
    await trio.lowlevel.checkpoint()
    found = [judge_project(check, project, configuration, time.time()) for project in projects.values()]
    return found or [check.warning("there is no project (*.toml) in it")]


def judge_project(check: Check, project: Project, configuration: HospitalConfiguration, now: float) -> Finding:
    """Look whether all that a project names is configured, and how long it lasts."""
    check = dataclasses.replace(check, subject=project.name)
    if unknown := sorted(set(project.pacs) - {entry.name for entry in configuration.pacs}):
        return check.fault(f"names PACSs that are not configured: {', '.join(unknown)}")
    wanted = set(project.replicas.at) if project.replicas else set()
    if unknown := sorted(wanted - {entry.name for entry in configuration.storage}):
        return check.fault(f"wants replicas at what no [[storage]] names: {', '.join(unknown)}")
    if project.is_over(now):
        return check.warning(f"its last day was {project.until}: nothing of it is released any more")
    if project.is_over(now + SOON_OVER):
        return check.warning(f"its last day is {project.until}; after it names go and keys are destroyed")
    return check.ok(f"until {project.until}")


async def _look_at_room(configuration: HospitalConfiguration, check: Check) -> list[Finding]:
    limit = configuration.hospital.staging_bytes
    used, free = await trio.to_thread.run_sync(_room_of, configuration.path(configuration.hospital.directory))
    text = f"{free / GIB:.1f} GiB are free; {used / GIB:.1f} GiB are staged, of at most {limit / GIB:.1f}"
    if free < LEAST_ROOM:
        return [check.fault(f"{text}: registration and recalls are about to fail, make room")]
    if free < limit - used + LEAST_ROOM:
        return [check.warning(f"{text}: staging may still take more than there is, lower hospital.staging_bytes")]
    return [check.ok(text)]


def _room_of(directory: pathlib.Path) -> tuple[int, int]:
    """Give the bytes that staging uses and those that are free; the directory may not have been made yet."""
    staging = directory / "staging"
    try:
        used = sum(file.stat().st_size for file in staging.iterdir()) if staging.is_dir() else 0
        return used, free_bytes(directory)
    except OSError as error:
        message = f"{directory} cannot be looked into: {error.strerror}"
        raise StoreError(message) from error


# Peers


async def _look_at_pacs(configuration: HospitalConfiguration, entry: PacsEntry, check: Check) -> list[Finding]:
    seen = await visit(entry.location, entry.politeness, configuration.dicom_tls(entry.tls))
    known = None if entry.retrieval else read_choices(configuration).of(entry.name, entry.location)
    service = _service_of(entry, known, seen)
    return [
        check.ok(f"answers C-ECHO, {1000 * seen.seconds:.0f} ms with the association"),
        _judge_services(configuration, service, seen, check),
        *([] if known is None else [judge_choice(known, seen, check)]),
        _judge_contexts(service, seen, check),
    ]


def _service_of(entry: PacsEntry, known: Choice | None, seen: Visit) -> RetrievalService | None:
    """Choose as the daemon does: as configured or remembered, else C-GET, else C-MOVE, but only what is offered."""
    both = (RetrievalService.GET, RetrievalService.MOVE)
    wanted = (RetrievalService(entry.retrieval),) if entry.retrieval else (*([known.service] if known else []), *both)
    return next((service for service in wanted if _is_offered(service, seen)), None)


def _is_offered(service: RetrievalService, seen: Visit) -> bool:
    return f"C-{service.upper()}" in seen.services


def judge_choice(known: Choice, seen: Visit, check: Check) -> Finding:
    """Say by which service the daemon has found a PACS to give its images, and whether that may be better by now."""
    day = dt.datetime.fromtimestamp(known.since, dt.UTC).date()
    text = f"C-{known.service.upper()} was negotiated on {day}, and is remembered in {FILE}"
    if not _is_offered(known.service, seen):
        return check.warning(f"{text}; it is offered no longer, and will be negotiated anew")
    if known.service is RetrievalService.MOVE and _is_offered(RetrievalService.GET, seen):
        return check.ok(f"{text}; to try C-GET again, delete that file and start hospitald again")
    return check.ok(text)


def _judge_services(
    configuration: HospitalConfiguration, service: RetrievalService | None, seen: Visit, check: Check
) -> Finding:
    text = f"offers {', '.join(seen.services) or 'no service'} to us"
    if "C-FIND" not in seen.services:
        return check.fault(f"{text}: without C-FIND (Study Root) nothing can be registered")
    if service is None:
        return check.fault(f"{text}: images could come neither by C-GET nor by C-MOVE, as configured")
    if service is RetrievalService.MOVE and configuration.dicom is None:
        return check.fault(f"{text}: images come by C-MOVE only, and there is no [dicom] to move to")
    return check.ok(f"{text}; images come by C-{service.upper()}")


def _judge_contexts(service: RetrievalService | None, seen: Visit, check: Check) -> Finding:
    text = f"takes {seen.accepted} of {seen.offered} usual storage contexts"
    if not seen.accepted and service is RetrievalService.GET:
        return check.fault(f"{text}: nothing could come by C-GET; does it allow us the role of an SCP?")
    if seen.refused_classes and service is RetrievalService.GET:
        text += f"; not for {', '.join(seen.refused_classes)}"
    return check.ok(text)


async def _look_at_hearer(
    configuration: HospitalConfiguration, peer: KeystorePeer | MetadataPeer, check: Check
) -> list[Finding]:
    """Look at a keystore or the metadata service: both answer nobody before they have heard what was decided."""
    client = open_client(peer.address, peer.dn, configuration.credential, configuration.anchors)
    async with contextlib.aclosing(client):
        held = await client.call(EPOCH_PATH, AskEpoch(), EpochHeld, deadline=trio.current_time() + DEADLINE)
    clock = judge_clock(check.subject, client.skew)
    if held.is_current:
        return [check.ok("answers, also others than the hospital"), clock]
    return [check.warning("answers, but nobody else, until hospitald has told it what was decided: is it up?"), clock]


async def _look_at_storage(configuration: HospitalConfiguration, entry: StorageEntry, check: Check) -> list[Finding]:
    context = ClientContexts(configuration.credential, configuration.anchors)
    element, begun = open_element(entry, configuration, context), trio.current_time()
    try:
        await trio.to_thread.run_sync(probe, element, abandon_on_cancel=True)
    except StorageError as error:
        return [check.fault(str(error))]
    taken = 1000 * (trio.current_time() - begun)
    return [check.ok(f"takes a probe object, finds it and deletes it, in {taken:.0f} ms")]


async def _look_at_daemon(configuration: HospitalConfiguration, check: Check) -> list[Finding]:
    health, _ = await _ask_health(configuration, configuration.public, check)
    return list(judge_health(health, check))


async def _look_at_reads(configuration: HospitalConfiguration, reads: Address, check: Check) -> list[Finding]:
    health, clock = await _ask_health(configuration, reads, check)
    return [*judge_reads(health, check), clock]


async def _ask_health(configuration: HospitalConfiguration, address: Address, check: Check) -> tuple[Health, Finding]:
    """Ask a daemon of this hospital, which must show its certificate; tell of its clock, too."""
    credential = configuration.credential
    client = open_client(str(address), str(credential.subject()), credential, configuration.anchors)
    async with contextlib.aclosing(client):
        health = await client.call(HEALTH_PATH, AskHealth(), Health, deadline=trio.current_time() + DEADLINE)
    return health, judge_clock(check.subject, client.skew)


def _judge_headers(health: Health, check: Check) -> Finding:
    text = f"of {health.headerless} files at least no header is kept"
    if not health.is_header_room:
        return check.ok(f"{text}: hospital.headers_bytes are full, and what was registered longest ago made room")
    text += ", as after a full disk or a restored backup: who opens one waits for the PACS, which makes it anew; "
    text += "mdmfs stage does before"
    return check.warning(text) if health.headerless > FEW * health.files else check.ok(text)


def judge_reads(health: Health, check: Check) -> Iterator[Finding]:
    """Say in which role a daemon answers readers, and how far its copy is behind."""
    yield check.ok("answers readers, with the hospital's certificate")
    if health.copy is None:
        yield check.ok("works on the store itself: nothing is behind")
        return
    copy = health.copy
    yield check.ok("follows the daemon that works, and answers from its copy")
    heard = f"{copy.behind} changes are not in its copy; it heard of the daemon that works {copy.silence:.0f} s ago"
    if not copy.lease:
        yield check.fault(f"{heard}: it has no lease and refuses readers, see its log for why")
    elif copy.behind:
        yield check.warning(f"{heard}: if that stays so, see whether its database answers")
    else:
        yield check.ok(f"{heard}, and may answer for {copy.lease:.0f} s more")


def judge_health(health: Health, check: Check) -> Iterator[Finding]:
    """Say what is to be seen to of what the daemon tells."""
    text = f"answers; {health.files} files, {health.notices} series told of, {health.outbox} messages for keystores"
    yield check.ok(text)
    for pacs in health.pacs:
        about = dataclasses.replace(check, subject=f"{check.subject}, PACS {pacs.name}")
        if pacs.is_left_alone:
            yield about.fault("is left alone for a while, because it failed several times in a row: see the log")
        elif pacs.retrieval:
            yield about.ok(f"images come by C-{pacs.retrieval.upper()}")
        else:
            yield about.ok("has not been asked for images yet")
    for keystore, count in sorted(health.lies.items()):
        about = dataclasses.replace(check, subject=f"{check.subject}, keystore {keystore}")
        yield about.fault(f"gave {count} wrong shares since hospitald was started: ask its owner, verify the keys")
    if health.headerless:
        yield _judge_headers(health, dataclasses.replace(check, subject=f"{check.subject}, headers"))
    for name in health.untold:
        about = dataclasses.replace(check, subject=f"{check.subject}, {name}")
        yield about.warning("has yet to acknowledge what was decided last: if that stays so, the log says why")
