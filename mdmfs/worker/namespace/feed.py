"""Follow the hospital's feed of changes, so that what is remembered here and in the kernel stays right."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

import structlog
import trio

from mdmfs.daemon.looks import next_look
from mdmfs.daemon.nursery import open_plain_nursery
from mdmfs.model.errors import AccessDeniedError, BusyError, MdmfsError, NoSuchFileError
from mdmfs.wire.messages.files import MAX_REPORTED, Changes, Node, NodeKind, OpensReport
from mdmfs.worker.hospital.outage import OUTAGES
from mdmfs.worker.lease import Lease
from mdmfs.worker.namespace.leavers import DECIDED, Leaver, Leavers
from mdmfs.worker.namespace.listing import gone_or_changed
from mdmfs.worker.namespace.names import Namespace
from mdmfs.worker.reading.opens import Opens

JITTER: Final = (0.7, 1.0)
"""Of the time that a question may wait: mounts that began together must not ask together for ever."""
SHORTEST_STEP: Final = 0.05
"""Seconds between two questions: one hospital may always have news, and the loop is that of others, too."""
RETRY_SECONDS: Final = (1.0, 5.0)
"""Between two tries, at random: the mounts of a cluster must not come back all at once."""
FIRST_RETRY: Final = 0.2
"""Of that, before the first new try, twice as much before each one that follows: hospitald starts within two seconds,
its machine within minutes."""
LOOK_SECONDS: Final = 1.0
"""Between two looks at the credential."""
GONE_SECONDS: Final = 1.0
"""For the kernel to forget all pages of a mount that has ended; it takes some 0.1 s for a GiB."""
GONE_LOOK_SECONDS: Final = 0.01

log = structlog.get_logger(__name__)


class Told(Protocol):
    """What is needed of ``mdmfs.worker.hospital.Hospital``."""

    async def changes(
        self, since: int, wait: float, report: OpensReport | None = None, groups: Sequence[str] = ()
    ) -> Changes:
        """Say that version ``since`` is applied, and wait up to ``wait`` seconds for something newer and a lease.

        ``groups`` are those of the answer that was applied last.
        """

    async def give_back(self) -> None:
        """Say that the mount has ended: no change waits for it any more."""


class Witness(Protocol):
    """Who else remembers names and bytes and must be told that they have gone."""

    async def forget_names(self, directory: int, names: list[bytes]) -> None:
        """Forget entries of a directory that are no longer what they were."""

    def bar(self, inode: int) -> None:
        """Let nobody read on, from this instant: the file's name, right or rendition has gone."""

    async def revoke(self, inode: int) -> None:
        """Let nobody read on, and take back what the kernel has."""

    def forget_shares(self) -> None:
        """Have the keystores decide anew about what is opened next: more has gone than files that are in use."""

    async def revoke_all(self) -> None:
        """Let nobody read on without asking again: what has gone is not known."""


class Feed:
    """Follows the changes for as long as it is run."""

    def __init__(
        self,
        hospital: Told,
        namespace: Namespace,
        witness: Witness,
        lease: Lease,
        opens: Opens | None = None,
        look: Callable[[], bool] | None = None,
    ) -> None:
        """Tell the hospital of ``opens`` along with each question.

        ``look`` looks whether the credential has become another: who was refused asks again then.
        """
        self._look = look
        self._is_another = trio.Event()
        self._lease = lease
        self._opens = opens or Opens()
        self._leavers = Leavers(lambda: (self._version, self._groups), lambda: self._namespace.is_followed)
        self._version = 0
        """That was applied last."""
        self._groups: Sequence[str] = ()
        """Of the answer that was applied last."""
        self._is_noted = False
        """Whether the log says if the hospital is heard."""
        self._outdated: dict[int, bool] = {}
        """Directories that are listed anew, or rest after it, and whether they have changed since that began."""
        self._turn = trio.Lock()
        self._nursery: trio.Nursery
        self._hospital = hospital
        self._namespace = namespace
        self._witness = witness

    async def follow(self) -> None:
        """Apply every change, for ever; an outage is waited out, and the feed resumed where it broke off."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._take_back)
            nursery.start_soon(self._leavers.keep_telling)
            if self._look is not None:
                nursery.start_soon(self._keep_looking, self._look)
            version: int | None = None
            part = FIRST_RETRY
            while True:
                next_at = trio.current_time() + (0.0 if version is None else SHORTEST_STEP)
                try:
                    version = await self._step(version)
                    self._version, part = version, FIRST_RETRY
                except MdmfsError as error:
                    part = await self._wait_out(error, part)
                except Exception:  # the loop of all readers: what was not foreseen costs the lease, not the mount
                    log.exception("following the hospital's feed failed unexpectedly")
                    message = "following the hospital's feed failed unexpectedly, see the log of the mount"
                    part = await self._wait_out(MdmfsError(message), part)
                else:
                    self._note(is_followed=True, reason="")
                    await trio.sleep_until(next_at)

    async def _step(self, version: int | None) -> int:
        """Wait for changes after a version and apply them; gives the version that is now applied."""
        if version is None:
            return (await self._namespace.listing(self._namespace.top)).version
        sent = self._lease.clock()
        # after an outage the lease may be about to end: then the answer shall not wait for news
        longest = self._lease.seconds_to_ask() if self._namespace.is_followed else 0.0
        report = self._opens.report()
        is_full = report is not None and len(report.opens) == MAX_REPORTED  # then the next one shall go soon
        wait = 0.0 if is_full else longest * random.uniform(*JITTER)  # noqa: S311 no secret
        changes = await self._hospital.changes(version, wait, report, self._groups)
        self._opens.heard(report)
        outdated = await self._apply(changes)
        self._lease.grant(sent, changes.lease)
        self._list_anew(outdated)
        if not changes.lease:
            self._lease.fail(BusyError("the hospital cannot remember one mount more, and grants this one no lease"))
            await trio.sleep(_pause())
        self._groups = changes.groups  # not before: until then the version stays, of which they tell the history
        return changes.version

    async def _wait_out(self, failure: MdmfsError, part: float) -> float:
        """Wait for that part of a pause before the hospital is asked again; gives the next part."""
        if isinstance(failure, DECIDED):
            self._lease.refuse(failure)
        else:
            self._lease.fail(failure)
        self._note(is_followed=False, reason=str(failure))
        with trio.move_on_after(_pause(part)):
            await self._is_another.wait()
        return min(2 * part, 1.0)

    def _note(self, *, is_followed: bool, reason: str) -> None:
        if not is_followed and (self._namespace.is_followed or not self._is_noted):
            log.warning("the hospital's feed is interrupted, listings may be outdated", reason=reason)
        elif is_followed and not self._namespace.is_followed:
            log.info("following the hospital's feed")
        self._namespace.is_followed, self._is_noted = is_followed, True

    async def tell_last(self, has_gone: Callable[[], bool] | None) -> None:
        """Report what was opened since the last question; what the hospital does not hear of is lost.

        Then give the lease back, where all is on record and ``has_gone``, which tells whether the kernel has nothing of
        the mount any more; with None it stays.
        """
        async with open_plain_nursery() as nursery:
            nursery.start_soon(self._leavers.tell)
            with contextlib.suppress(MdmfsError):
                while (report := self._opens.report()) is not None:
                    await self._hospital.changes(self._version, 0.0, report, self._groups)
                    self._opens.heard(report)
            nursery.start_soon(self._leavers.tell)  # it may have come out so that the credential is gone or another
            if has_gone is not None and self._opens.report() is None:
                await self._give_back(has_gone)

    async def _give_back(self, has_gone: Callable[[], bool]) -> None:
        with trio.move_on_after(GONE_SECONDS):
            while self._lease.is_held and not has_gone():  # noqa: ASYNC110 the kernel sets no event
                await trio.sleep(GONE_LOOK_SECONDS)
        if self._lease.is_held and has_gone():
            self._lease.end()
            with contextlib.suppress(MdmfsError):
                await self._hospital.give_back()

    def note_leaving(self, leaver: Leaver) -> None:
        """Know that another's credential takes the place of this one: what was opened so far is not the other's."""
        self._leavers.note(leaver, self._opens.set_apart())

    async def _apply(self, changes: Changes) -> list[int]:
        """Stop the readers of what has gone; gives the directories to list anew, for which the hospital is asked."""
        outdated = self._namespace.apply(changes)
        # what is not in use has neither readers nor pages; and there may be many
        gone = {inode for inode in changes.files if inode in self._namespace.inodes}
        gone.update(self._namespace.lose(changes.lost))
        gone.update(self._namespace.files_of(changes.unreadable))
        if changes.files or changes.lost or changes.unreadable:
            self._witness.forget_shares()
        for inode in gone:
            self._witness.bar(inode)
        # nobody waits for that: it may itself wait for reads that wait for the lease
        for inode in gone:
            self._nursery.start_soon(self._witness.revoke, inode)
        if changes.is_reset:
            self._nursery.start_soon(self._witness.revoke_all)
        return outdated

    def _list_anew(self, directories: Iterable[int]) -> None:
        """Have directories listed anew, so that what has gone from them is taken back."""
        for inode in directories:
            if inode not in self._outdated:
                self._nursery.start_soon(self._renew, inode)
            self._outdated[inode] = True

    async def _renew(self, inode: int) -> None:
        """List a directory anew until it has not changed meanwhile; after an outage the next look does.

        Nothing that is told waits for that. One is listed at a time, and rests as long as that took: it may change
        faster than it is listed, and those who look at it are not to wait for this.
        """
        while self._outdated[inode]:
            self._outdated[inode] = False
            async with self._turn:
                begun = trio.current_time()
                is_done = await self._is_renewed(inode)
                took = trio.current_time() - begun
            if is_done:
                await trio.sleep(took)
            else:
                self._outdated[inode] = True
                await trio.sleep(_pause())
        del self._outdated[inode]

    async def _is_renewed(self, inode: int) -> bool:
        try:
            return await self._namespace.refresh(inode)
        except (NoSuchFileError, AccessDeniedError):
            return True
        except OUTAGES:  # of which the log tells once
            return False
        except MdmfsError as error:
            log.warning("a directory that has changed cannot be listed", reason=error.told_here)
            return False
        except Exception:  # as in ``follow``
            log.exception("listing a directory anew failed unexpectedly")
            return False

    async def _keep_looking(self, look: Callable[[], bool]) -> None:
        while True:
            await next_look(LOOK_SECONDS)
            try:
                is_another = look()
            except Exception:  # as in ``follow``
                log.exception("looking for another credential failed unexpectedly")
                continue
            if is_another:
                self._is_another.set()
                self._is_another = trio.Event()

    async def _take_back(self) -> None:
        """Let the kernel forget what is not in a newer listing, whoever asked for that one."""
        async for inode, before, after in self._namespace.replaced:
            names = gone_or_changed(before, None if after is before else after)
            await self._witness.forget_names(inode, names)
            for name in names:
                node = before.nodes[name]
                if _is_another_file(node, None if after is None else after.nodes.get(name)):
                    await self._witness.revoke(node.inode)


def _pause(part: float = 1.0) -> float:
    """Give the seconds before the hospital is asked again."""
    return random.uniform(*RETRY_SECONDS) * part  # noqa: S311 spreads load, guards nothing


def _is_another_file(before: Node, after: Node | None) -> bool:
    return before.kind is NodeKind.FILE and (after is None or after.inode != before.inode)
