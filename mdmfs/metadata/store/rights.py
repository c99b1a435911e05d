"""Rights as rows: which ACLs stand above an entry, what they say, and which entries a principal may read.

An entry names a *chain*: the ids of the ACLs above it. Chains whose ACLs say the same are of one *class*, and a caller
is decided about once for each class, of which there are few; the database then filters by the class's number. When an
ACL is set, a class of which all chains change together changes in place, so that no entry has to be written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import sqlalchemy as sa

from mdmfs.access.acl import ACL_ID_SIZE, Acl
from mdmfs.access.decide import Granted, grant
from mdmfs.metadata.store.about import stamp_rights
from mdmfs.metadata.store.bulk import insert
from mdmfs.metadata.store.tables import (
    ACLS,
    ACLS_OF_CHAINS,
    CHAINS,
    CLASSES,
    COLLECTIONS,
    FROZEN,
    GROUPS,
    IMAGES,
    SERIES,
    records_table,
)
from mdmfs.model.errors import MalformedMessageError, MalformedNameError
from mdmfs.model.identity import Principal
from mdmfs.model.names import GUID_SIZE, Guid
from mdmfs.wire.messages.keystores import Outcome, VersionedAcl

MAX_ALIASES: Final = 64
MAX_CHAIN: Final = 256
_NOBODY: Final = Guid(bytes(GUID_SIZE))
_CHUNK: Final = 500
"""Numbers in one statement."""

_CHAINS_OF_DIGESTS: Final = sa.select(CHAINS.c.digest, CHAINS.c.id, CHAINS.c["class"]).where(
    CHAINS.c.digest.in_(sa.bindparam("digests", expanding=True))
)
_ACLS_OF_IDS: Final = sa.select(ACLS.c.id, ACLS.c.version, ACLS.c.acl).where(
    ACLS.c.id.in_(sa.bindparam("ids", expanding=True))
)

AclIds = Sequence[Sequence[bytes]]
"""For each name of an entry the ids of the ACLs above it, outermost first, and last its own."""
Contents = tuple[tuple[bytes | None, ...], ...]
"""What they say, encoded; None for one that is not known, which lets nobody pass."""


class Classes:
    """The classes as they are now, decoded."""

    def __init__(self, aliases: Mapping[int, tuple[tuple[Acl | None, ...], ...]]) -> None:
        self._aliases = aliases

    @classmethod
    def read(cls, connection: sa.Connection) -> Classes:
        """Read all of them."""
        acls: dict[bytes | None, Acl | None] = {None: None}

        def decoded(octets: bytes | None) -> Acl | None:
            if octets not in acls:
                acls[octets] = Acl.decode(octets or b"")
            return acls[octets]

        return cls(
            {
                number: tuple(tuple(decoded(one) for one in chain) for chain in _decode(contents))
                for number, contents in connection.execute(sa.select(CLASSES.c.id, CLASSES.c.contents))
            }
        )

    def readable_by(self, principal: Principal, now: float) -> list[int]:
        """Name the classes whose entries a principal may read at this moment."""
        return [
            number
            for number, chains in self._aliases.items()
            if isinstance(grant(principal, _NOBODY, chains, now), Granted)
        ]


class Chain(NamedTuple):
    """A chain of ACLs, and the class that it is of."""

    number: int
    its_class: int


class Chains:
    """Chains that are known, by the ACL ids that they name."""

    def __init__(self, known: Mapping[bytes, Chain]) -> None:
        self._known = known

    def of(self, acl_ids: AclIds) -> Chain:
        """Give one of those that were asked for."""
        return self._known[_key(acl_ids)]


def chain_of(connection: sa.Connection, acl_ids: AclIds) -> Chain:
    """Give the numbers of a chain and of its class, new where they are missing; raises ``MalformedMessageError``."""
    return chains_of(connection, [acl_ids]).of(acl_ids)


def chains_of(connection: sa.Connection, wanted: Iterable[AclIds]) -> Chains:
    """Do the same for many at once."""
    canonical = {_key(acl_ids): acl_ids for acl_ids in wanted}
    by_digest = {hashlib.sha256(key).digest(): key for key in canonical}
    found: dict[bytes, Chain] = {}
    for start in range(0, len(by_digest), _CHUNK):
        some = list(by_digest)[start : start + _CHUNK]
        for digest, number, its_class in connection.execute(_CHAINS_OF_DIGESTS, {"digests": some}):
            found[by_digest[bytes(digest)]] = Chain(number, its_class)
    missing = {digest: key for digest, key in by_digest.items() if key not in found}
    if missing:
        found |= _new_chains(connection, {digest: canonical[key] for digest, key in missing.items()})
    return Chains(found)


def _new_chains(connection: sa.Connection, wanted: Mapping[bytes, AclIds]) -> dict[bytes, Chain]:
    """Keep chains that are not known, by their digests."""
    acls = _Acls(connection)
    acls.read(acl_id for acl_ids in wanted.values() for one in acl_ids for acl_id in one)
    classes: dict[Contents, int] = {}
    rows = []
    for digest, acl_ids in wanted.items():
        contents = acls.contents(acl_ids)
        if contents not in classes:
            classes[contents] = _class_of(connection, contents)
        rows.append({"digest": digest, "acl_ids": _key(acl_ids), "class": classes[contents]})
    insert(connection, CHAINS, rows)
    known: dict[bytes, Chain] = {}
    named = []
    for start in range(0, len(rows), _CHUNK):
        some = [row["digest"] for row in rows[start : start + _CHUNK]]
        for digest, number, its_class in connection.execute(_CHAINS_OF_DIGESTS, {"digests": some}):
            acl_ids = wanted[bytes(digest)]
            known[_key(acl_ids)] = Chain(number, its_class)
            named += [{"acl": one, "chain": number} for one in sorted({one for chain in acl_ids for one in chain})]
    insert(connection, ACLS_OF_CHAINS, named)
    return known


def set_acls(connection: sa.Connection, acls: Sequence[VersionedAcl]) -> list[Outcome]:
    """Know ACLs: a later version replaces an earlier one only. Raises ``MalformedMessageError``.

    What they change is worked out once for all of them: a project's directories change by the thousand.
    """
    before = _held(connection, [versioned.id for versioned in acls])
    now, changed = dict(before), list[bytes]()
    outcomes = [_set_acl(now, versioned, changed) for versioned in acls]
    new = [{"id": one, "version": held.version, "acl": held.acl} for one, held in now.items() if one not in before]
    insert(connection, ACLS, new)
    for one, held in now.items():
        if one in before and held != before[one]:
            connection.execute(ACLS.update().where(ACLS.c.id == one).values(version=held.version, acl=held.acl))
    _part(connection, changed)
    _classify_again(connection, changed)
    return outcomes


def own_chain(guid: bytes, acl_ids: AclIds) -> AclIds:
    """Give the ids above an image that goes by an ACL of its own: that has the image's GUID as its id."""
    return [[*chain[:-1], guid] for chain in acl_ids]


def _part(connection: sa.Connection, changed: Sequence[bytes]) -> None:
    """Let images go by ACLs of their own, known under their GUIDs, in place of those that their siblings share.

    And so do snapshots that hold them, also when they are gone.
    """
    for table in (IMAGES, FROZEN):
        named = sa.select(table.c.guid, CHAINS.c.id, CHAINS.c.acl_ids).join(CHAINS, CHAINS.c.id == table.c.chain)
        for start in range(0, len(changed), _CHUNK):
            some = named.where(table.c.guid.in_(changed[start : start + _CHUNK])).distinct()
            for guid, shared, acl_ids in connection.execute(some).all():
                chain = chain_of(connection, own_chain(guid, _decode(acl_ids)))
                values = {"chain": chain.number, "class": chain.its_class}
                mine = (table.c.guid == guid) & (table.c.chain == shared)
                connection.execute(table.update().where(mine).values(values))


class _Held(NamedTuple):
    version: int
    acl: bytes


def _held(connection: sa.Connection, ids: Sequence[bytes]) -> dict[bytes, _Held]:
    """Read what is known under some ids."""
    found: dict[bytes, _Held] = {}
    for start in range(0, len(ids), _CHUNK):
        for acl_id, version, acl in connection.execute(_ACLS_OF_IDS, {"ids": ids[start : start + _CHUNK]}):
            found[bytes(acl_id)] = _Held(version, bytes(acl))
    return found


def _set_acl(known: dict[bytes, _Held], versioned: VersionedAcl, changed: list[bytes]) -> Outcome:
    if len(versioned.id) != ACL_ID_SIZE or not 0 <= versioned.version < 2**63:
        message = f"an ACL has an id of {ACL_ID_SIZE} bytes and a version from 0 on"
        raise MalformedMessageError(message)
    try:
        acl = Acl.decode(versioned.acl).encode()
    except MalformedNameError as error:
        message = f"the ACL {versioned.id.hex()} is none"
        raise MalformedMessageError(message) from error
    held, told = known.get(versioned.id), _Held(versioned.version, acl)
    if held == told:
        return Outcome.DONE
    if held is not None and told.version <= held.version:
        return Outcome.CONFLICT
    known[versioned.id] = told
    if held is None or held.acl != acl:
        changed.append(versioned.id)
    return Outcome.DONE


def _classify_again(connection: sa.Connection, changed: Sequence[bytes]) -> None:
    """Bring the chains that ACLs stand in into the classes of what they say now."""
    chains = ACLS_OF_CHAINS.join(CHAINS, CHAINS.c.id == ACLS_OF_CHAINS.c.chain)
    query = sa.select(CHAINS.c.id, CHAINS.c["class"], CHAINS.c.acl_ids).select_from(chains)
    affected: dict[int, tuple[int, bytes]] = {}
    for start in range(0, len(changed), _CHUNK):
        some = query.where(ACLS_OF_CHAINS.c.acl.in_(changed[start : start + _CHUNK]))
        affected |= {chain: (number, acl_ids) for chain, number, acl_ids in connection.execute(some)}
    known = _Acls(connection)
    moving: dict[int, dict[Contents, list[int]]] = {}
    for chain, (number, acl_ids) in affected.items():
        contents = known.contents(_decode(acl_ids))
        moving.setdefault(number, {}).setdefault(contents, []).append(chain)
    for number, parts in moving.items():
        whole = connection.execute(
            sa.select(sa.func.count()).select_from(CHAINS).where(CHAINS.c["class"] == number)
        ).scalar_one()
        ordered = sorted(parts.items(), key=lambda part: -len(part[1]))
        if whole == sum(map(len, parts.values())):
            _rewrite(connection, number, ordered.pop(0)[0])
        for contents, moved in ordered:
            _move(connection, moved, _class_of(connection, contents))


def _rewrite(connection: sa.Connection, number: int, contents: Contents) -> None:
    stamp_rights(connection)
    values = {"digest": _digest(contents), "contents": msgspec.msgpack.encode(contents)}
    connection.execute(CLASSES.update().where(CLASSES.c.id == number).values(values))


def _move(connection: sa.Connection, chains: Sequence[int], number: int) -> None:
    stamp_rights(connection)
    records = connection.execute(sa.select(COLLECTIONS.c.id)).scalars().all()
    tables = [CHAINS, SERIES, IMAGES, COLLECTIONS, GROUPS, FROZEN, *(records_table(one) for one in records)]
    for start in range(0, len(chains), _CHUNK):
        some = chains[start : start + _CHUNK]
        for table in tables:
            key: Any = table.c.id if table is CHAINS else table.c.chain
            connection.execute(table.update().where(key.in_(some)).values({"class": number}))


def _class_of(connection: sa.Connection, contents: Contents) -> int:
    digest = _digest(contents)
    found = connection.execute(sa.select(CLASSES.c.id).where(CLASSES.c.digest == digest)).scalars().first()
    if found is not None:
        return int(found)
    stamp_rights(connection)
    values = {"digest": digest, "contents": msgspec.msgpack.encode(contents)}
    return int(connection.execute(CLASSES.insert().values(values).returning(CLASSES.c.id)).scalar_one())


class _Acls:
    """What ACLs say, each read once."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._known: dict[bytes, bytes | None] = {}

    def read(self, acl_ids: Iterable[bytes]) -> None:
        missing = set(acl_ids) - self._known.keys()
        if missing:
            held = _held(self._connection, sorted(missing))
            self._known |= {acl_id: held[acl_id].acl if acl_id in held else None for acl_id in missing}

    def contents(self, acl_ids: AclIds) -> Contents:
        self.read(acl_id for chain in acl_ids for acl_id in chain)
        return tuple(tuple(self._known[acl_id] for acl_id in chain) for chain in acl_ids)


def _key(acl_ids: AclIds) -> bytes:
    """Write the ids of a chain in their one form; raises ``MalformedMessageError``."""
    if not 0 < len(acl_ids) <= MAX_ALIASES or any(not 0 < len(chain) <= MAX_CHAIN for chain in acl_ids):
        message = f"an entry has 1 to {MAX_ALIASES} names, each below 1 to {MAX_CHAIN} ACLs"
        raise MalformedMessageError(message)
    if any(len(acl_id) != ACL_ID_SIZE for chain in acl_ids for acl_id in chain):
        message = f"an ACL id has {ACL_ID_SIZE} bytes"
        raise MalformedMessageError(message)
    return msgspec.msgpack.encode([list(chain) for chain in acl_ids])


def _decode(octets: bytes) -> list[list[Any]]:
    found: list[list[Any]] = msgspec.msgpack.decode(bytes(octets))
    return found


def _digest(contents: Contents) -> bytes:
    return hashlib.sha256(msgspec.msgpack.encode(contents)).digest()
