"""The stager: brings the files of requests online, series by series, through restarts of hospital and PACS.

Nothing leaves the hospital by being staged: whoever wants the object asks for it, and is decided upon then. What is
known of a request is in the store before it is told, so that progress never goes backwards.
"""

from __future__ import annotations

import contextlib
import secrets
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Final

import msgspec
import structlog
import trio

from mdmfs.hospital.dav.failures import is_for_ever, is_passing
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.incident import note_incident
from mdmfs.hospital.kept.audit import Event
from mdmfs.hospital.ledger.stages import REQUEST_ID_SIZE, StageFile, StageRequest, StageState
from mdmfs.hospital.outward import speaking_for_the_inside
from mdmfs.hospital.release.arrivals import Released
from mdmfs.hospital.release.recall import Recalls
from mdmfs.hospital.release.release import release_all
from mdmfs.hospital.replicas.publish import is_kept, is_kept_on, keep_at
from mdmfs.hospital.store import Transaction
from mdmfs.hospital.tape.bodies import DAY, AskedFile
from mdmfs.hospital.tape.line import Job, Line
from mdmfs.hospital.tape.pins import SHARE, Pins
from mdmfs.hospital.tape.submission import Find, judge
from mdmfs.hospital.uidmap.records import SeriesKey
from mdmfs.model.errors import BusyError, InstanceRefusedError, MdmfsError, NoSuchFileError, StoreError
from mdmfs.model.identity import Dn, Fqan, Principal
from mdmfs.model.names import Guid

PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 30.0
ATTEMPTS: Final = 3
"""After which a fault that is neither passing nor for ever is taken for the latter."""
MAX_OUTSTANDING: Final = 100_000
"""Files of one DN that are still to be staged."""
REMEMBERED: Final = 7 * DAY
"""How long a request is known after its last file was staged, or failed."""
HOUSEKEEPING: Final = 3600.0

_NO_SERIES: Final = SeriesKey("", "", "")

log = structlog.get_logger()


class Stager:
    """All requests of one hospital; ``run`` works on them."""

    def __init__(self, hospital: Hospital, recalls: Recalls) -> None:
        self._hospital = hospital
        self._recalls = recalls
        self._lines = {name: Line() for name in hospital.pacs}
        self._outstanding: Counter[str] = Counter()
        self._attempts: Counter[tuple[bytes, int]] = Counter()
        self._reasons: dict[bytes, str] = {}
        self.pins = Pins(int(hospital.staging.limit * SHARE), hospital.clock)
        hospital.staging.is_pinned = self.pins.is_pinned

    # What is asked

    async def submit(self, principal: Principal, address: str, asked: Sequence[AskedFile], find: Find) -> bytes:
        """Keep a request, once it is decided and recorded; gives its id.

        Files that the principal may not read fail at once; if he may read none of them, the first refusal is raised.
        """
        dn, now = str(principal.dn), self._hospital.clock()
        if self._outstanding[dn] + len(asked) > MAX_OUTSTANDING:
            message = f"{MAX_OUTSTANDING} files of {dn} are waiting to be staged; ask again when some are"
            raise BusyError(message)
        files, errors, refusals = judge(principal, address, asked, self._hospital, find)
        if refusals:
            await self._hospital.audit.record(*refusals)
        if len(errors) == len(files):
            raise errors[0]
        fqans, request_id = [str(it) for it in principal.fqans], secrets.token_bytes(REQUEST_ID_SIZE)
        request = StageRequest(request_id, dn, fqans, address, now, len(files), len(files) - len(errors))
        await self._hospital.store.write(lambda tx: tx.stages.put(request, files))
        self._enqueue(request, files)
        return request.id

    async def cancel(self, request_id: bytes, paths: Iterable[str] | None = None) -> None:
        """Give up what is not staged yet of a request, or of these paths of it."""
        wanted = None if paths is None else set(paths)
        now = self._hospital.clock()

        def act(tx: Transaction) -> list[StageFile]:
            return [
                change(tx, request_id, msgspec.structs.replace(file, state=StageState.CANCELLED, finished=now))
                for file in tx.stages.files(request_id)
                if not file.state.is_over and (wanted is None or file.path in wanted)
            ]

        request = self.request(request_id)
        cancelled = await self._hospital.store.write(act)
        self._outstanding[request.dn] -= len(cancelled)
        for file in cancelled:
            self.pins.drop(Guid(file.guid), request_id)

    async def release(self, request_id: bytes, paths: Iterable[str] | None = None) -> None:
        """Let files of a request make room again; all of them without ``paths``."""
        wanted = None if paths is None else set(paths)

        def act(tx: Transaction) -> list[StageFile]:
            request = tx.stages.get(request_id)
            released = [
                msgspec.structs.replace(file, is_released=True)
                for file in tx.stages.files(request_id)
                if file.state is StageState.COMPLETED and (wanted is None or file.path in wanted)
            ]
            if request is not None:
                tx.stages.put(request, released)
            return released

        for file in await self._hospital.store.write(act):
            self.pins.drop(Guid(file.guid), request_id)

    async def forget(self, request_id: bytes) -> None:
        """Cancel a request, release what it staged, and know it no more."""
        await self.cancel(request_id)
        await self.release(request_id)
        await self._hospital.store.write(lambda tx: tx.stages.remove(request_id))
        self._reasons.pop(request_id, None)

    def request(self, request_id: bytes) -> StageRequest:
        """Give a request; raises ``NoSuchFileError``."""
        request = self._hospital.store.read(lambda tx: tx.stages.get(request_id))
        if request is None:
            message = (
                f"there is no request {request_id.hex()}; one that is over is remembered for {REMEMBERED / DAY:g} days"
            )
            raise NoSuchFileError(message)
        return request

    def files(self, request_id: bytes) -> list[StageFile]:
        """Give the files of a request, in its order."""
        return self._hospital.store.read(lambda tx: tx.stages.files(request_id))

    def reason(self, request_id: bytes) -> str:
        """Say why a request waits; empty where nothing hinders it."""
        return self._reasons.get(request_id, "")

    def is_on_disk(self, guid: Guid) -> bool:
        """Ask whether a whole sealed object is staged now."""
        file = self._hospital.store.read(lambda tx: tx.catalogue.file(guid))
        staged = None if file is None else self._hospital.staging.find(guid, file.generation)
        return staged is not None and staged.is_complete

    def is_at_hand(self, file: StageFile) -> bool:
        """Ask whether a file is where it was wanted: staged, or at a storage element."""
        guid = Guid(file.guid)
        return self.is_on_disk(guid) or (bool(file.element) and is_kept(self._hospital, guid, file.element))

    # Work

    async def run(self) -> None:
        """Take up what an earlier run has left, and stage until cancelled."""
        self._resume()
        async with trio.open_nursery() as nursery:
            for line in self._lines.values():
                nursery.start_soon(self._work, line)
            nursery.start_soon(self._keep_house)

    async def _work(self, line: Line) -> None:
        """Stage what one PACS has, a batch at a time: its other associations are for those who open files."""
        pause = PAUSE
        while True:
            batch = await line.take()
            again = await self._stage(batch)
            if not again:
                pause = PAUSE
                continue
            await trio.sleep(pause)
            line.put_back(again)
            pause = min(2 * pause, LONGEST_PAUSE) if len(again) == len(batch) else PAUSE

    async def _stage(self, batch: Sequence[Job]) -> list[Job]:
        """Stage a batch; gives those that have to be tried again later."""
        again: list[Job] = []

        async def end(job: Job, outcome: Released | MdmfsError) -> None:
            if not await self._end(job, outcome):
                again.append(job)

        wanted = []
        for job in await self._start(batch):
            if not await self._is_kept(job):
                wanted.append(job)
            elif not await self._finish(job, StageState.COMPLETED):
                again.append(job)
        pinned = [job for job in wanted if self.pins.hold(job.guid, job.request, job.size)]
        async with trio.open_nursery() as nursery:
            for job in wanted:
                if job not in pinned:
                    nursery.start_soon(end, job, self._no_room_for(job))
            async with contextlib.aclosing(self._bring(pinned)) as brought:
                async for job, outcome in brought:
                    nursery.start_soon(end, job, outcome)
        return again

    async def _is_kept(self, job: Job) -> bool:
        """Ask whether a file is where it was asked for; where that cannot be written down, it is brought there anew."""
        try:
            return bool(job.element) and await is_kept_on(self._hospital, job.guid, job.element)
        except MdmfsError as error:
            log.error("how long a replica stays cannot be written down", reason=error.told_here)  # noqa: TRY400 the reason says it
            return False

    async def _bring(self, jobs: Sequence[Job]) -> AsyncGenerator[tuple[Job, Released | MdmfsError]]:
        """Have files of one caller brought online, each given as soon as it begins to be there, or why it will not."""
        left = dict(enumerate(jobs))
        if not left:
            return
        principal, address, guids = jobs[0].principal, jobs[0].address, [job.guid for job in jobs]
        releasing = release_all(principal, guids, self._hospital, self._recalls, address=address, event=Event.STAGING)
        failure = MdmfsError("staging ended early")
        try:
            async with contextlib.aclosing(releasing) as released:
                async for let_out in released:
                    if let_out is not None:
                        yield left.pop(let_out[0]), let_out[1]
        except MdmfsError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 the service loop: one batch must not end the stager
            failure = MdmfsError(note_incident("staging", error))
        for job in left.values():
            yield job, failure

    def _no_room_for(self, job: Job) -> MdmfsError:
        if job.size > self.pins.limit:
            message = f"{job.guid} is larger than what staging may pin: open it, or get it, without staging it first"
            return InstanceRefusedError(message)
        message = f"so much is pinned that there is no room for {job.guid}"
        return BusyError(message, what_to_do="release some with mdmfs stage release, or wait")

    async def _start(self, batch: Sequence[Job]) -> list[Job]:
        """Say that files are being staged; gives the jobs that nobody has cancelled."""
        now = self._hospital.clock()

        def act(tx: Transaction) -> list[Job]:
            wanted = []
            for job in batch:
                file = tx.stages.file(job.request, job.number)
                if file is None or (file.state.is_over and not job.is_again):
                    continue
                wanted.append(job)
                if file.state is StageState.SUBMITTED:
                    change(tx, job.request, msgspec.structs.replace(file, state=StageState.STARTED, started=now))
            return wanted

        try:
            return await self._hospital.store.write(act)
        except MdmfsError as error:
            log.error("what is being staged cannot be written down", reason=error.told_here)  # noqa: TRY400 the reason says it
            return list(batch)

    async def _end(self, job: Job, outcome: Released | MdmfsError) -> bool:
        """Wait until a file is whole, and say how it ended; False where it has to be tried again."""
        try:
            with speaking_for_the_inside(job.guid):
                if isinstance(outcome, MdmfsError):
                    raise outcome
                await outcome.staged.settled.wait()
                await outcome.staged.wait_for(job.size)  # raises why it is not whole, should it not be
            if job.element:
                await keep_at(self._hospital, job.guid, job.element)
        except MdmfsError as error:
            return await self._fail(job, error)
        self._reasons.pop(job.request, None)
        if job.element:
            self.pins.drop(job.guid, job.request)
        else:
            self.pins.hold(job.guid, job.request, job.size, self._hospital.clock() + job.lifetime)
        return await self._finish(job, StageState.COMPLETED)

    async def _fail(self, job: Job, error: MdmfsError) -> bool:
        """Give a file up for good, or for now: outages and full disks pass, and some faults are tried again."""
        self.pins.drop(job.guid, job.request)
        key = job.request, job.number
        self._attempts[key] += not (is_passing(error) or isinstance(error, StoreError))
        is_old = self._hospital.clock() > job.created + REMEMBERED
        if is_for_ever(error) or is_old or self._attempts[key] >= ATTEMPTS:
            return await self._finish(job, StageState.FAILED, str(error))
        self._reasons[job.request] = str(error)
        return False

    async def _finish(self, job: Job, state: StageState, error: str = "") -> bool:
        """Write down how a file ended; False where that fails, as on a full disk."""
        if job.is_again:
            return True
        now = self._hospital.clock()

        def act(tx: Transaction) -> bool:
            file = tx.stages.file(job.request, job.number)
            if file is None or file.state.is_over:
                return False
            change(tx, job.request, msgspec.structs.replace(file, state=state, finished=now, error=error))
            return True

        try:
            is_mine = await self._hospital.store.write(act)
        except MdmfsError as failure:
            self._reasons[job.request] = "a store of the hospital does not work"
            log.error("what is staged cannot be written down", reason=str(failure))  # noqa: TRY400 the reason says it
            return False
        self._attempts.pop((job.request, job.number), None)
        if is_mine:
            self._outstanding[str(job.principal.dn)] -= 1
        else:
            self.pins.drop(job.guid, job.request)
        return True

    # Beginning and end

    def _resume(self) -> None:
        """Pin again what is to stay, and queue what is not over, or what has gone though it is pinned."""
        now = self._hospital.clock()
        for request in self._hospital.store.read(lambda tx: tx.stages.all()):
            files, gone = self.files(request.id), []
            for file in files:
                until = file.finished + file.lifetime
                is_pinned = file.state is StageState.COMPLETED and not file.is_released and not file.element
                if is_pinned and now < until:
                    self.pins.hold(Guid(file.guid), request.id, file.size, until)
                    if not self.is_on_disk(Guid(file.guid)):
                        gone.append(msgspec.structs.replace(file, lifetime=until - now))
            self._enqueue(request, gone, are_again=True)
            self._enqueue(request, files)

    def _enqueue(self, request: StageRequest, files: Iterable[StageFile], *, are_again: bool = False) -> None:
        principal = Principal(Dn.parse(request.dn), tuple(map(Fqan.parse, request.fqans)), float("inf"))
        waiting = [file for file in files if are_again or not file.state.is_over]
        self._outstanding[request.dn] += 0 if are_again else len(waiting)
        guids = [Guid(file.guid) for file in waiting]
        instances = self._hospital.store.read(lambda tx: [tx.uidmap.resolve(guid) for guid in guids])
        for file, guid, instance in zip(waiting, guids, instances, strict=True):
            # One whose PACS has gone from the configuration waits in another's line, until it is too old.
            line = self._lines.get(instance.pacs) if instance is not None else None
            job = Job(
                request=request.id,
                number=file.number,
                guid=guid,
                size=file.size,
                lifetime=file.lifetime,
                created=request.created,
                series=_NO_SERIES if instance is None else instance.series,
                principal=principal,
                address=request.address,
                is_again=are_again,
                element=file.element,
            )
            (line or next(iter(self._lines.values()))).put(job)

    async def _keep_house(self) -> None:
        """Forget requests that have been over for long."""
        while True:
            await trio.sleep(HOUSEKEEPING)
            now = self._hospital.clock()
            try:
                for request in self._hospital.store.read(lambda tx: tx.stages.all()):
                    files = self.files(request.id)
                    if not request.left and now > REMEMBERED + max(file.finished for file in files):
                        await self.forget(request.id)
            except MdmfsError as error:
                log.error("old requests cannot be forgotten", reason=error.told_here)  # noqa: TRY400 the reason says it


def change(tx: Transaction, request_id: bytes, file: StageFile) -> StageFile:
    """Keep a file of a request in place of what was kept of it; its end counts."""
    request = tx.stages.get(request_id)
    if request is not None:
        left = request.left - file.state.is_over
        tx.stages.put(msgspec.structs.replace(request, left=left), [file])
    return file
