"""Tasks on the keys of all files, or of some: verify, repair, split anew, rotate, destroy; page by page."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import structlog
import trio

from mdmfs.daemon.nursery import open_plain_nursery
from mdmfs.hospital.catalogue.records import FileRecord, FileState
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.incident import note_incident
from mdmfs.hospital.kept.audit import AuditRecord, Event
from mdmfs.hospital.keys import amends, renewals
from mdmfs.hospital.keys.currency import behind, is_effective
from mdmfs.hospital.keys.holders import DEADLINE, Answers, ask_holders
from mdmfs.hospital.keys.introduction import give_first, introduce
from mdmfs.hospital.keys.judge import Fault, Held, Verdict, holding, judge, latest_held
from mdmfs.hospital.keys.recount import show_held
from mdmfs.hospital.keys.selection import Selection
from mdmfs.hospital.keys.settling import Settling, adopt, settle, tell_of_change
from mdmfs.hospital.pages import PAGE
from mdmfs.hospital.store import Transaction
from mdmfs.model.errors import BusyError, MdmfsError, UnknownNameError
from mdmfs.model.names import GUID_SIZE, Guid
from mdmfs.wire.messages.key_tasks import Certificate, Certificates, KeyProgress, KeyTask
from mdmfs.wire.messages.message import MAX_BATCH

log = structlog.get_logger()

INTERVAL: Final = 600.0
"""Seconds between two looks for destructions that were broken off."""
SOON: Final = 10.0
"""Seconds until keystores are asked again that did not tell what they hold of new keys that were noted."""
MAX_LINES: Final = 100
MAX_WAITING: Final = 100
"""Items of the outbox that are counted for each keystore."""


class Task:
    """One task and what it found."""

    def __init__(self, task: KeyTask, selection: Selection, hospital: Hospital, *, page: int = PAGE) -> None:
        """Know what is to be done, to so many files together; none is looked at yet."""
        self._task = task
        self._page = page
        self._selection = selection
        self.destroyed = bytearray()
        """The octets of the files whose keys this task has destroyed, of which there may be a million."""
        self._hospital = hospital
        self._files = self._done = self._lost = self._changed = self._epoch = 0
        self._faults: Counter[str] = Counter()
        self._lines: list[str] = []
        self._silent: dict[str, str] = {}
        self._unwilling: dict[str, str] = {}
        """Keystores that answer, and did not take new shares when they were asked last."""
        self._holders: dict[Guid, frozenset[str]] = {}
        """Of files that do not show yet: who holds a right share."""
        self.failure = ""
        self.is_over = False

    def progress(self) -> KeyProgress:
        """Tell how far it is."""
        epoch, hospital = self._epoch, self._hospital
        waiting, missing, holds = hospital.store.read(
            lambda tx: (_waiting(tx, hospital), behind(tx, hospital, epoch), is_effective(tx, hospital, epoch))
        )
        return KeyProgress(
            task=self._task,
            files=self._files,
            files_done=self._done,
            faults=dict(self._faults),
            lost=self._lost,
            lines=self._lines,
            silent=self._unwilling | self._silent,
            changed=self._changed,
            waiting=waiting,
            behind=missing if epoch else [],
            is_effective=holds,
            failure=self.failure,
            is_over=self.is_over,
        )

    async def run(self) -> None:
        """Do it."""
        try:
            try:
                await self._do_all()
            except UnknownNameError as error:
                self.failure = str(error)  # and nothing is left to be done
            if self._task is KeyTask.DESTROY:
                await self._hospital.store.write(lambda tx: tx.destructions.remove(self._selection.record))
        except MdmfsError as error:
            self.failure = str(error)
            log.warning("a task on keys failed", task=self._task.value, reason=error.told_here)
        except Exception as error:  # noqa: BLE001 the service loop: one task must not end the daemon
            self.failure = note_incident("the task", error)
        finally:
            self.is_over = True
            log.info("keys", task=self._task.value, files=self._done, faults=dict(self._faults), lost=self._lost)

    async def _do_all(self) -> None:
        for page in self._pages():
            self._files += len(page)
            await trio.lowlevel.checkpoint()
        for page in self._pages():
            if page:
                await self._do(page)
            self._done += len(page)
            await trio.lowlevel.checkpoint()
        if self._task is KeyTask.RESPLIT:
            await self._forget_removed()
        if self._holders and self._task in {KeyTask.VERIFY, KeyTask.REPAIR}:
            await self._hospital.store.write(lambda tx: show_held(tx, self._hospital, self._holders))
            self._hospital.feed.bell.ring()
            self._hospital.outbox.ring()

    async def _do(self, page: Sequence[FileRecord]) -> None:
        match self._task:
            case KeyTask.VERIFY | KeyTask.REPAIR | KeyTask.RESPLIT:
                await self._judge(page)
            case KeyTask.ROTATE:
                await self._rotate([file for file in page if file.state is not FileState.WITHDRAWN])
            case KeyTask.DESTROY:
                await self._destroy(page)

    async def _rotate(self, page: Sequence[FileRecord]) -> None:
        """Give files new keys once k keystores have taken them; raises ``BusyError`` where fewer do, and they stay.

        Where so few have shares that the first to take new ones would close the files, they are sent to all, as they
        come.
        """
        hospital, guids = self._hospital, [file.guid for file in page]
        await self._record(Event.ROTATION, page)
        answers = await self._ask(guids)
        latest, given = latest_held(guids, answers), list[str]()
        new, note = hospital.store.read(lambda tx: renewals.new_keys(tx, hospital, guids, latest)), None
        if new and len(answers) >= hospital.threshold:
            current = holding(page, answers)
            spare = len(current) - max(file.threshold for file in page)
            names = [name for name in hospital.keystores.names if name in answers]
            names.sort(key=lambda name: (name in self._unwilling, name in current))
            note = await hospital.store.write(lambda tx: renewals.note(tx, hospital, new))
            found = await give_first(hospital, [one.shipment for one in new], names, current=current, spare=spare)
            given, refused = found.taken, found.refused
            self._unwilling |= refused
            if found.is_safe and len(given) < hospital.threshold:
                settled = await settle(hospital, note, new, is_certain=found.is_certain, silent=self._silent)
                self._changed += len(settled.changed)
                if not settled.is_whole:
                    raise _not_taken(given, self._silent | refused, hospital.threshold)
                return
        self._changed += len(await adopt(hospital, new, given, note))

    async def _destroy(self, page: Sequence[FileRecord]) -> None:
        """Destroy what is on record as to go, and in the same transaction what else there is of the same images."""
        epoch, files, unrecorded = self._epoch, list(page), list(page)
        while unrecorded:
            await self._record(Event.DESTRUCTION, unrecorded)
            await self._hospital.headers.forget(file.guid for file in unrecorded)
            withdraw = functools.partial(amends.withdraw, files=files)
            epoch, unrecorded = await self._hospital.store.write(withdraw)
            files += unrecorded
        self._epoch = epoch
        guids = [file.guid for file in files]
        self.destroyed += b"".join(guid.octets for guid in guids)
        self._changed += len(guids)
        tell_of_change(self._hospital, guids)

    async def _forget_removed(self) -> None:
        """Let what waits for removed keystores go, unless a key is left of which a share may be among it."""
        if not self._selection.is_everything or self._silent or self._lost:
            return
        while await self._hospital.store.write(lambda tx: amends.drop_for_removed(tx, self._hospital)):
            pass

    async def _record(self, event: Event, page: Sequence[FileRecord]) -> None:
        """Write down what is about to be done; raises ``StoreError``, and then it is not done."""
        now, audit = self._hospital.clock(), self._hospital.audit
        async with open_plain_nursery() as nursery:
            for file in page:
                record = AuditRecord(time=now, event=event, guid=str(file.guid), project=file.project)
                nursery.start_soon(audit.record, record)

    async def _judge(self, page: Sequence[FileRecord]) -> None:
        answers = await self._ask([file.guid for file in page])
        shipments: list[amends.Shipment] = []
        surplus: list[Guid] = []
        for number, file in enumerate(page):
            held = {name: answer[number] for name, answer in answers.items()}
            verdict = judge(file, held)
            self._note(file, verdict)
            if file.state is FileState.PENDING:
                self._holders[file.guid] = frozenset(verdict.honest)
            shipment = self._amend(file, verdict, held)
            if shipment is not None:
                shipments.append(shipment)
            if self._task is KeyTask.REPAIR and Fault.SURPLUS in verdict.faults.values():
                surplus.append(file.guid)
        changed = {shipment.guid for shipment in shipments} | set(surplus)
        if changed:
            event = Event.RESPLIT if self._task is KeyTask.RESPLIT else Event.REPAIR
            await self._record(event, [file for file in page if file.guid in changed])
            if self._task is KeyTask.RESPLIT:
                shipments, silent = await introduce(self._hospital, shipments)
                self._silent |= silent
            await self._hospital.store.write(functools.partial(self._send, shipments=shipments, surplus=surplus))
            self._changed += len(shipments) + len(surplus)
            self._hospital.outbox.ring()

    def _amend(self, file: FileRecord, verdict: Verdict, held: Mapping[str, Held]) -> amends.Shipment | None:
        names = self._hospital.keystores.names
        if self._task is KeyTask.REPAIR:
            return amends.repair(names, file.guid, verdict, held)
        if self._task is KeyTask.RESPLIT:
            return amends.resplit(names, self._hospital.threshold, verdict, held)
        return None

    def _send(self, tx: Transaction, *, shipments: Sequence[amends.Shipment], surplus: Sequence[Guid]) -> None:
        amends.ship(tx, self._hospital, shipments)
        for guid in surplus:
            tx.epochs.bury(guid)
        if self._task is KeyTask.RESPLIT:
            amends.adopt_threshold(tx, self._hospital, [shipment.guid for shipment in shipments])

    async def _ask(self, guids: Sequence[Guid]) -> Answers:
        """Ask every keystore for what it holds of each; one that does not answer is noted.

        Rotation asks it no more: keys that are suspected are not to wait for it at each page.
        """
        passed = self._silent.keys() if self._task is KeyTask.ROTATE else ()
        names = [name for name in self._hospital.keystores.names if name not in passed]
        answers, silent = await ask_holders(self._hospital, guids, names)
        self._silent |= silent
        return answers

    def _note(self, file: FileRecord, verdict: Verdict) -> None:
        self._faults.update(fault.value for fault in verdict.faults.values())
        self._lost += verdict.is_lost
        for name, fault in verdict.faults.items():
            if fault is Fault.WRONG:
                self._hospital.keystores.note_lie(name, file.guid, "what it holds is no share of this key")
        told = [f"{file.guid} {name}: {fault.value}" for name, fault in verdict.faults.items()]
        if verdict.is_lost:
            told.append(f"{file.guid}: no shares make its key")
        self._lines += told[: MAX_LINES - len(self._lines)]

    def _pages(self) -> Iterator[list[FileRecord]]:
        return self._selection.pages(self._hospital.store, self._page)


def _not_taken(given: Sequence[str], refused: Mapping[str, str], threshold: int) -> BusyError:
    reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
    message = (
        f"only {len(given)} of the {threshold} keystores that make a key took new shares, and the files keep theirs: "
    )
    what_to_do = "see to these keystores, whose logs say more, and rotate again"
    return BusyError(message + reasons, what_to_do=what_to_do)


def _waiting(tx: Transaction, hospital: Hospital) -> int:
    """Count what keystores have yet to get, up to some hundred for each; other zones' items are not waited for."""
    return sum(len(tx.outbox.peek(name, limit=MAX_WAITING)) for name in hospital.keystores.names)


def _guids(octets: bytes | bytearray) -> list[Guid]:
    return [Guid(bytes(octets[start : start + GUID_SIZE])) for start in range(0, len(octets), GUID_SIZE)]


class Tasks:
    """The tasks of a hospital: one at a time."""

    def __init__(self, hospital: Hospital, nursery: trio.Nursery) -> None:
        """Run tasks in a nursery that outlives them."""
        self._hospital = hospital
        self._nursery = nursery
        self._latest: Task | None = None
        self._settling = Settling(hospital)

    async def start(self, task: KeyTask, selection: Selection) -> KeyProgress:
        """Start a task; one that destroys goes on after a kill, by ``take_up``.

        Raises ``BusyError`` while another runs, ``UnknownNameError`` for destroying everything, and ``StoreError``.
        """
        if self._latest is not None and not self._latest.is_over:
            message = f"{self._latest.progress().task.value} is under way"
            raise BusyError(message, what_to_do="wait for its end")
        if task is KeyTask.DESTROY and selection.is_everything:
            message = "no file, subject or project is named, and nothing destroys all keys at once"
            raise UnknownNameError(message, what_to_do="say which: --guid, --subject or --project")
        if task is KeyTask.DESTROY:  # what is registered meanwhile nobody has decided on, however late it ends
            selection = selection._replace(up_to=self._hospital.store.read(lambda tx: tx.catalogue.latest_inode()))
        started = self._latest = Task(task, selection, self._hospital)
        try:
            if task is KeyTask.DESTROY:
                await self._hospital.store.write(lambda tx: tx.destructions.put(selection.record))
            self._nursery.start_soon(started.run)
        except BaseException:
            started.is_over = True
            raise
        return started.progress()

    async def take_up(self) -> None:
        """Go on with what was to be destroyed and is not, after a kill or on a full disk; now and every ten minutes.

        New keys that keystores may have and the store does not say are the files' are settled first.
        """
        while True:
            pause = INTERVAL
            try:
                pause = INTERVAL if await self._settle() else SOON
                for record in self._hospital.store.read(lambda tx: tx.destructions.all()):
                    if self._latest is None or self._latest.is_over:
                        log.warning("a destruction that was broken off goes on", files=len(record.guids) or "many")
                        self._latest = Task(KeyTask.DESTROY, Selection.of_record(record), self._hospital)
                        await self._latest.run()
            except MdmfsError as error:
                log.error("what is to be destroyed cannot be read", reason=error.told_here)  # noqa: TRY400 the reason says it
            await trio.sleep(pause)

    async def _settle(self) -> bool:
        """Settle what a rotation has left that was broken off; False where keystores have yet to say what they have."""
        is_busy = self._latest is not None and not self._latest.is_over  # what is noted may be its own
        return is_busy or await self._settling.go_on()

    @property
    def destroyed(self) -> list[Guid]:
        """Give the files whose keys the latest task has destroyed."""
        return [] if self._latest is None else _guids(self._latest.destroyed)

    async def certificates(self, after: int) -> Certificates:
        """Ask every keystore to certify some of what the latest task destroyed."""
        octets = b"" if self._latest is None else self._latest.destroyed
        destroyed = _guids(octets[GUID_SIZE * after : GUID_SIZE * (after + MAX_BATCH)])
        found: dict[str, Certificate] = {}
        silent: dict[str, str] = {}

        async def ask(name: str) -> None:
            deadline = trio.current_time() + DEADLINE
            try:
                found[name] = await self._hospital.keystores.certify(name, destroyed, deadline=deadline)
            except MdmfsError as error:
                silent[name] = str(error)

        async with open_plain_nursery() as nursery:
            for name in self._hospital.keystores.names if destroyed else ():
                nursery.start_soon(ask, name)
        return Certificates(found, silent, len(destroyed))

    def progress(self) -> KeyProgress:
        """Tell how far the latest task is; raises ``UnknownNameError`` where there was none."""
        if self._latest is None:
            message = "no task on keys has been started since the hospital's daemon was"
            raise UnknownNameError(message, what_to_do="start it again: it goes on where it was")
        return self._latest.progress()
