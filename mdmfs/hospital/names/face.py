"""The paths on which names and comments are changed, and on which the hospital's own people list and remove them."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator

from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.kept.audit import AuditRecord, Event
from mdmfs.hospital.names.change import Wish, change, check, comment, done_already
from mdmfs.hospital.own_people import for_own_people
from mdmfs.hospital.projects import NAME_PARTS
from mdmfs.hospital.store import Transaction
from mdmfs.model.errors import AccessDeniedError, MdmfsError, NoSuchFileError
from mdmfs.model.identity import Principal
from mdmfs.model.names import Lfn
from mdmfs.wire.messages.names import (
    CHANGE_NAME_PATH,
    LIST_NAMES_PATH,
    MAX_NAMES,
    READ_COMMENT_PATH,
    REMOVE_NAMES_PATH,
    ChangedName,
    ChangeName,
    Comment,
    ListNames,
    MadeName,
    MadeNames,
    ReadComment,
    RemovedNames,
    RemoveNames,
)
from mdmfs.wire.service import Reply, Request, Respond


def name_routes(hospital: Hospital) -> dict[tuple[str, str], Respond]:
    """Give the routes; each question is answered for the principal that asks it."""

    async def change_name(request: Request) -> Reply:
        wish = Wish.parse(await request.read(ChangeName))
        return Reply(await _change(hospital, request.principal, wish, request.peer.host))

    async def read_comment(request: Request) -> Reply:
        lfn = Lfn.parse((await request.read(ReadComment)).lfn)
        return Reply(Comment(hospital.store.read(lambda tx: comment(tx, request.principal, hospital, lfn))))

    async def list_names(request: Request) -> Reply:
        asked = await request.read(ListNames)
        lfn, end = Lfn.parse(asked.lfn), max(0, asked.skip) + MAX_NAMES
        found = hospital.store.read(lambda tx: list(itertools.islice(_made(tx, lfn), max(0, asked.skip), end)))
        return Reply(MadeNames(found))

    async def remove_names(request: Request) -> Reply:
        asked = await request.read(RemoveNames)
        return Reply(await _remove(hospital, request, Lfn.parse(asked.lfn), comments_only=asked.comments_only))

    return {
        ("POST", CHANGE_NAME_PATH): change_name,
        ("POST", READ_COMMENT_PATH): read_comment,
        ("POST", LIST_NAMES_PATH): for_own_people(hospital, list_names),
        ("POST", REMOVE_NAMES_PATH): for_own_people(hospital, remove_names),
    }


async def _change(hospital: Hospital, principal: Principal, wish: Wish, address: str) -> ChangedName:
    """Decide, write down, do: in this order, so that nothing is done that is not on record.

    What fails after it was written down, since another was quicker or the name is taken, is written down as refused.
    """
    is_recorded = False

    def look(tx: Transaction) -> ChangedName | None:
        before = done_already(tx, principal, wish)
        if before is None:
            check(tx, principal, hospital, wish)
        return before

    try:
        before = hospital.store.read(look)
        if before is not None:
            return before
        await _record(hospital, principal, str(wish.lfn), address, wish.told)
        is_recorded = True
        # decided again inside: what was allowed a moment ago may not be now
        changed = await hospital.store.write(lambda tx: change(tx, principal, hospital, wish))
    except MdmfsError as error:
        if is_recorded or isinstance(error, AccessDeniedError | NoSuchFileError):
            await _record(hospital, principal, str(wish.lfn), address, error.code, is_refused=True)
        raise
    hospital.feed.bell.ring()
    return changed


async def _remove(hospital: Hospital, request: Request, lfn: Lfn, *, comments_only: bool) -> RemovedNames:
    told = "all comments below" if comments_only else "all names and comments below"
    await _record(hospital, request.principal, str(lfn), request.peer.host, f"remove: {told}")

    def act(tx: Transaction) -> RemovedNames:
        comments = tx.names.drop_comments(lfn)
        tops, now = () if comments_only else _tops(tx, lfn), hospital.clock()
        return RemovedNames(sum(tx.names.remove_all(top, now=now) for top in tops), comments)

    removed = await hospital.store.write(act)
    hospital.feed.bell.ring()
    return removed


def _made(tx: Transaction, lfn: Lfn) -> Iterator[MadeName]:
    """Go through what users made, then through the comments on what they did not."""
    for one in itertools.chain.from_iterable(map(tx.names.made_below, _tops(tx, lfn))):
        leads = not one.target or tx.catalogue.look_up(Lfn.parse(one.target), with_aliases=True) is not None
        yield MadeName(str(one.lfn), one.maker, one.target, leads, one.modified, tx.names.comment(one.lfn))
    for said in tx.names.comments_below(lfn):
        node = tx.catalogue.look_up(said.lfn, with_aliases=True)
        if node is not None and not node.is_made:
            yield MadeName(str(said.lfn), "", "", leads=True, modified=node.modified, comment=said.text)


def _tops(tx: Transaction, lfn: Lfn) -> list[Lfn]:
    """Give below what names may be made: a name above the projects stands for all of them, configured or no more."""
    node = tx.catalogue.look_up(lfn)
    if node is None or len(lfn.parts) >= NAME_PARTS:
        return [lfn]
    below = tx.catalogue.list_page(node.inode, limit=sys.maxsize).nodes
    return [top for one in below for top in _tops(tx, lfn / one.name)]


async def _record(
    hospital: Hospital, principal: Principal, path: str, address: str, outcome: str, *, is_refused: bool = False
) -> None:
    await hospital.audit.record(
        AuditRecord(
            time=hospital.clock(),
            event=Event.REFUSAL if is_refused else Event.NAME,
            dn=str(principal.dn),
            fqans=tuple(map(str, principal.fqans)),
            address=address,
            path=path,
            outcome=outcome,
        )
    )
