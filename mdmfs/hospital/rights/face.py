"""The paths on which ACLs are read and changed, and on which one learns whether a change holds everywhere."""

from __future__ import annotations

from mdmfs.access.acl import Right
from mdmfs.hospital.hospital import Hospital
from mdmfs.hospital.keys.currency import behind, is_effective
from mdmfs.hospital.rights.change import Target, Wish, change, record_change, target_of_file, targets, texts
from mdmfs.hospital.rights.why import explain
from mdmfs.hospital.sight import Sight
from mdmfs.hospital.store import Transaction
from mdmfs.model.errors import AccessDeniedError, MalformedMessageError, MdmfsError, NoSuchFileError
from mdmfs.model.identity import Principal
from mdmfs.model.names import Guid, Lfn
from mdmfs.wire.messages.acls import (
    ACL_EFFECT_PATH,
    CHANGE_ACL_PATH,
    READ_ACL_PATH,
    WHY_PATH,
    AclEffect,
    AclTexts,
    AskAclEffect,
    AskWhy,
    ChangeAcl,
    ChangedAcls,
    ReadAcl,
)
from mdmfs.wire.messages.files import NodeKind
from mdmfs.wire.service import Reply, Request, Respond

MAX_TEXTS = 1000


def rights_routes(hospital: Hospital) -> dict[tuple[str, str], Respond]:
    """Give the routes; each question is answered for the principal that asks it."""

    async def read_acl(request: Request) -> Reply:
        lfn = Lfn.parse((await request.read(ReadAcl)).lfn)
        found = hospital.store.read(lambda tx: _visible(tx, request.principal, hospital, lfn))
        return Reply(AclTexts(texts(found)))

    async def change_acl(request: Request) -> Reply:
        asked = await request.read(ChangeAcl)
        if not asked.edits:
            message = "a change of an ACL names at least one edit"
            raise MalformedMessageError(message)
        wish = Wish(
            Lfn.parse(asked.lfn), asked.edits, asked.files, asked.recursive, asked.keeps_mask, asked.expected_version
        )
        return Reply(await _change(hospital, request, wish, is_test=asked.is_test))

    async def effect(request: Request) -> Reply:
        asked = await request.read(AskAclEffect)
        return Reply(hospital.store.read(lambda tx: _effect(tx, hospital, request.principal, asked)))

    async def why(request: Request) -> Reply:
        asked = await request.read(AskWhy)
        return Reply(hospital.store.read(lambda tx: explain(tx, request.principal, asked, hospital)))

    return {
        ("POST", READ_ACL_PATH): read_acl,
        ("POST", CHANGE_ACL_PATH): change_acl,
        ("POST", ACL_EFFECT_PATH): effect,
        ("POST", WHY_PATH): why,
    }


async def _change(hospital: Hospital, request: Request, wish: Wish, *, is_test: bool) -> ChangedAcls:
    principal, address = request.principal, request.peer.host
    try:
        would = hospital.store.read(lambda tx: targets(tx, principal, hospital, wish))
    except MdmfsError as error:
        if isinstance(error, AccessDeniedError | NoSuchFileError):
            await record_change(principal, hospital, wish, address, error.code)
        raise
    if is_test:
        return ChangedAcls(len(would), texts(would[:MAX_TEXTS]), 0, 0)
    await record_change(principal, hospital, wish, address, "", len(would))
    # decided again inside: what was allowed a moment ago may not be now
    now, epoch, version = await hospital.store.write(
        lambda tx: (change(tx, principal, hospital, wish), tx.epochs.latest().number, tx.feed.version())
    )
    hospital.outbox.ring()
    hospital.feed.bell.ring()
    return ChangedAcls(len(now), texts(now[:MAX_TEXTS]), epoch, version)


def _visible(tx: Transaction, principal: Principal, hospital: Hospital, lfn: Lfn) -> list[Target]:
    """Give the ACLs of a name that may be read: by who may list the directory that it is in, and has a right on it."""
    sight = Sight(tx, principal, hospital.clock())
    node = tx.catalogue.look_up(lfn)
    is_own = principal.dn == hospital.dn
    if node is None or not (is_own or not lfn.parts or sight.may_traverse(lfn.parent)):
        raise _unknown(lfn)
    if node.kind is NodeKind.FILE:
        target = target_of_file(tx, lfn, Guid(node.guid))
        return [] if target is None else [target]
    own, files = tx.acls.ids_of(lfn)
    if not is_own and not sight.passes(own) and not sight.allows(own, Right.ADMINISTER):
        raise _unknown(lfn)
    found = [(False, tx.acls.find(own)), (True, tx.acls.find(files))]
    return [Target(lfn, of_files, one.id, one.version, one.acl) for of_files, one in found if one is not None]


def _effect(tx: Transaction, hospital: Hospital, principal: Principal, asked: AskAclEffect) -> AclEffect:
    """Tell who has yet to hear of a change; of mounts only those whose principal the asker may administer.

    A mount is named to the hospital's own people, and to others counted: they learn how many, not who.
    """
    late = behind(tx, hospital, asked.epoch)
    holds = is_effective(tx, hospital, asked.epoch)
    mounts = hospital.leases.behind(asked.version)
    is_own = principal.dn == hospital.dn
    named = [f"{lease.principal.dn} at {lease.address}" for lease in mounts] if is_own else []
    if mounts and not is_own:
        named = [f"{len(mounts)} mounts that hold a lease" if len(mounts) > 1 else "a mount that holds a lease"]
    unknown = hospital.leases.seconds_unknown()
    if unknown > 0:
        named.append(f"mounts from before hospitald's start, for {unknown:.0f} s more")
    return AclEffect(holds and not named, late, named)


def _unknown(lfn: Lfn) -> NoSuchFileError:
    return NoSuchFileError(f"there is no {lfn}, or it is not for this identity")
