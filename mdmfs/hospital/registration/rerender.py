"""Rendering anew: what was made under another policy or engine is registered again, under its names (decision 2).

Series by series. The old files are readable to nobody meanwhile, as since the day on which the policy changed; when all
of a series is registered anew and enough keystores hold the new keys, it appears, and the old keys are destroyed. A
crash costs at most the instances under way: the next run goes on from what the store says.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import AsyncIterator, Sequence
from typing import Final

import structlog
import trio

from mdmfs.hospital.catalogue.records import FileRecord, FileState
from mdmfs.hospital.dicom.pacs import SeriesFound
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.incident import note_incident
from mdmfs.hospital.ledger.records import SeriesState
from mdmfs.hospital.pages import pages_of_files, pages_of_series
from mdmfs.hospital.projects import Project
from mdmfs.hospital.registration.ending import take_away
from mdmfs.hospital.registration.harvest import FRUITLESS, NO_FAULT_OF_THEIRS
from mdmfs.hospital.registration.register import register_series
from mdmfs.hospital.registration.settled import is_made_under, rules_of
from mdmfs.hospital.store import Transaction
from mdmfs.hospital.uidmap.records import SeriesKey
from mdmfs.model.errors import AccessDeniedError, BusyError, MdmfsError, UnknownNameError
from mdmfs.model.names import Guid
from mdmfs.wire.messages.administration import RerenderProgress

log = structlog.get_logger()

DEPOSIT_SECONDS: Final = 60.0
"""What is not deposited by then is ended by the next run."""
INTERVAL: Final = 0.2
MAX_FAILURES: Final = 20
_ENDED: Final = {SeriesState.VISIBLE, SeriesState.HIDDEN}


@dataclasses.dataclass
class Rerendering:
    """One run over one project, and how far it is."""

    project: Project
    patience: float = DEPOSIT_SECONDS
    """Seconds that keystores are waited for."""
    series_found: int = 0
    series_done: int = 0
    rendered: int = 0
    refused: int = 0
    destroyed: int = 0
    left: int = 0
    """Files of other rules that are there yet: as many as were counted last, at the beginning and at the end."""
    failures: list[str] = dataclasses.field(default_factory=list)
    is_over: bool = False
    _fruitless: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """Failures in a row of each PACS that are no series' own."""

    def progress(self) -> RerenderProgress:
        """Tell how far it is."""
        return RerenderProgress(
            series_found=self.series_found,
            series_done=self.series_done,
            rendered=self.rendered,
            refused=self.refused,
            destroyed=self.destroyed,
            left=self.left,
            failures=self.failures[:MAX_FAILURES],
            is_over=self.is_over,
        )

    async def run(self, hospital: Hospital) -> None:
        """Do it. What fails is told and does not stop the rest; the next run goes on from there.

        Raises ``AccessDeniedError`` once the project's last day is past.
        """
        try:
            self.left = await self._count_left(hospital)
            stale = await _stale_series(hospital, self.project)
            self.series_found = len(stale)
            whole = []
            for key, pacs in stale.items():
                tried = [name for name in pacs if self._fruitless[name] < FRUITLESS]
                if await self._render(key, tried, hospital) and len(tried) == len(pacs):
                    whole.append(key)
                self.series_done += len(tried) == len(pacs)
            if left := len(stale) - self.series_done:
                self._note(f"{left} series were not tried: run it again when that is mended, it goes on from there")
            await self._retire_deposited(whole, hospital)
            self.left = await self._count_left(hospital)
        finally:
            self.is_over = True
            log.info("rendered anew", project=self.project.name, files=self.rendered, destroyed=self.destroyed)

    async def _count_left(self, hospital: Hospital) -> int:
        rules = rules_of(self.project)
        return sum([_is_left(file, rules) async for file in _files(hospital, self.project)])

    async def _render(self, key: SeriesKey, pacs: Sequence[str], hospital: Hospital) -> bool:
        """Register a series again; tell whether that went through."""
        failures = len(self.failures)
        for name in pacs:
            found = SeriesFound("", "", key.study_uid, key.series_uid, "", "", "", None)
            register = functools.partial(register_series, on_instance=lambda _octets: None, is_anew=True)
            before = self._fruitless.pop(name, 0)
            try:
                outcome = await register(found, name, self.project, hospital)
            except AccessDeniedError:
                raise
            except MdmfsError as error:
                self._fruitless[name] = before + 1 if isinstance(error, NO_FAULT_OF_THEIRS) else 0
                self._note(f"a series of PACS {name}: {error}", error.place)
            except Exception as error:  # noqa: BLE001 the service loop: one series must not end the run
                self._note(note_incident(f"a series of PACS {name}", error))
            else:
                if outcome is None:
                    self._note(f"a series of PACS {name}: its patient is no longer included; withdraw it")
                    continue
                self.rendered += outcome.registered
                self.refused += outcome.refused
        return len(self.failures) == failures

    async def _retire_deposited(self, keys: list[SeriesKey], hospital: Hospital) -> None:
        """Destroy the old files of each series as soon as the new ones have been shown."""
        with trio.move_on_after(self.patience):
            while keys:
                keys = [key for key in keys if not await self._retire(key, hospital)]
                if keys:
                    await trio.sleep(INTERVAL)
        if keys:
            self._note(f"{len(keys)} series wait for keystores or for their PACS: run it again")

    async def _retire(self, key: SeriesKey, hospital: Hospital) -> bool:
        """Destroy what has a successor, or was refused; tell whether the series needs no further look."""
        await trio.lowlevel.checkpoint()
        state = hospital.store.read(lambda tx: _state(tx, key))
        if state not in _ENDED:
            return state is None
        if old := hospital.store.read(lambda tx: _succeeded(tx, key, rules_of(self.project))):
            await take_away(hospital, old, project=key.project)
            self.destroyed += len(old)
        return True

    def _note(self, failure: str, place: str = "") -> None:
        log.warning("rendering anew", project=self.project.name, failure=failure, place=place or None)
        self.failures.append(failure)


class Rerenderings:
    """The runs of a hospital: one at a time."""

    def __init__(self, hospital: Hospital, nursery: trio.Nursery) -> None:
        """Run in a nursery that outlives them."""
        self._hospital = hospital
        self._nursery = nursery
        self._latest: Rerendering | None = None

    def start(self, project: str) -> RerenderProgress:
        """Start, or find the run under way; raises ``BusyError`` and ``UnknownNameError``."""
        found = self._hospital.projects.get(project)
        if found is None or found.is_over(self._hospital.clock()):
            message = f"there is no project {project}, or its last day is past"
            raise UnknownNameError(message)
        latest = self._latest
        if latest is not None and not latest.is_over and latest.project.name != project:
            message = f"{latest.project.name} is being rendered anew"
            raise BusyError(message, what_to_do="wait for its end")
        if latest is None or latest.is_over:
            latest = self._latest = Rerendering(found)
            self._nursery.start_soon(self._run, latest)
        return latest.progress()

    def progress(self) -> RerenderProgress:
        """Tell how far the latest run is; raises ``UnknownNameError`` where there was none."""
        if self._latest is None:
            message = "nothing has been rendered anew since the hospital's daemon was started"
            raise UnknownNameError(message, what_to_do="start it again: what is done is not done again")
        return self._latest.progress()

    async def _run(self, run: Rerendering) -> None:
        try:
            await run.run(self._hospital)
        except MdmfsError as error:
            run.failures.append(str(error))
            log.warning("a rendering anew failed", reason=error.told_here)
        except Exception as error:  # noqa: BLE001 the service loop: one run must not end the daemon
            run.failures.append(note_incident("rendering anew", error))


async def old_files(hospital: Hospital, project: Project) -> list[Guid]:
    """List the files of a project that were made under other rules than its present ones, whatever became of them."""
    rules = rules_of(project)
    return [file.guid async for file in _files(hospital, project) if not is_made_under(rules, file.rendition)]


async def _stale_series(hospital: Hospital, project: Project) -> dict[SeriesKey, tuple[str, ...]]:
    """Find the series with files or refusals of other rules, and for each the PACSs that may hold it."""
    rules = rules_of(project)
    known: dict[SeriesKey, tuple[str, ...]] = {}
    for page in pages_of_series(hospital.store):
        known |= {it.key: (it.pacs,) for it in page if it.project == project.name}
        await trio.lowlevel.checkpoint()
    refusals = hospital.store.read(lambda tx: tx.quarantine.all(project.name))
    stale: dict[SeriesKey, tuple[str, ...]] = {}
    for key, pacs in known.items():
        if hospital.store.read(functools.partial(_is_stale, key=key, rules=rules)):
            stale[key] = pacs
        await trio.lowlevel.checkpoint()
    for refusal in refusals:
        if refusal.rules != rules:
            stale.setdefault(refusal.series, known.get(refusal.series, project.pacs))
    return stale


def _is_stale(tx: Transaction, key: SeriesKey, rules: bytes) -> bool:
    files = (tx.catalogue.file(guid) for guid, _ in tx.uidmap.of_series(key))
    return any(file is not None and _is_left(file, rules) for file in files)


def _is_left(file: FileRecord, rules: bytes) -> bool:
    return file.state is not FileState.WITHDRAWN and not is_made_under(rules, file.rendition)


async def _files(hospital: Hospital, project: Project) -> AsyncIterator[FileRecord]:
    """Go through the files of a project, some at a time: there may be millions, and readers do not wait for all."""
    for page in pages_of_files(hospital.store):
        for file in page:
            if file.project == project.name:
                yield file
        await trio.lowlevel.checkpoint()


def _state(tx: Transaction, key: SeriesKey) -> SeriesState | None:
    series = tx.series.get(key)
    return None if series is None else series.state


def _succeeded(tx: Transaction, key: SeriesKey, rules: bytes) -> list[Guid]:
    """List the files of a series that a newer one has replaced, or whose instance is refused now."""
    found = []
    for guid, record in tx.uidmap.of_series(key):
        file = tx.catalogue.file(guid)
        if file is None or not _is_left(file, rules):
            continue
        refusal = tx.quarantine.get(key, record.instance_uid)
        is_replaced = tx.uidmap.guids_of(key.project, record.instance_uid)[0] != guid
        if is_replaced or (refusal is not None and refusal.rules == rules):
            found.append(guid)
    return found
