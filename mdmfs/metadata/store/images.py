"""Images and their series as rows: they come, and are shown; every act can be done again without harm.

What is told of many series goes together: a statement costs a millisecond, and a series needs a dozen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from mdmfs.metadata.schema import IMAGE_ATTRIBUTES, Attribute, Level
from mdmfs.metadata.store.bulk import insert, upsert
from mdmfs.metadata.store.rights import AclIds, Chain, chains_of, own_chain
from mdmfs.metadata.store.tables import ACLS, IMAGES, SERIES, TOMBSTONES
from mdmfs.metadata.store.values import guid_octets, typed
from mdmfs.model.errors import MalformedMessageError, MalformedNameError
from mdmfs.model.names import Lfn
from mdmfs.wire.messages.metadata import ImageEntry, PutImages, SeriesEntry

_CHUNK: Final = 500


def put_images(connection: sa.Connection, *messages: PutImages) -> None:
    """Keep images with their series; those whose GUID was unregistered stay away. Raises ``MalformedMessageError``.

    Of one GUID the last counts. What is known of a series by its first image stays, but for the ACLs above it.
    """
    gone, apart = _buried_and_apart(connection, [image.guid for message in messages for image in message.images])
    images = [
        _Placed(message.series, image, own_chain(image.guid, image.acl_ids) if image.guid in apart else image.acl_ids)
        for message in messages
        for image in message.images
        if image.guid not in gone
    ]
    chains = chains_of(connection, (acl_ids for one in images for acl_ids in (one.series.acl_ids, one.acl_ids)))
    series = {one.series.path: one.series for one in reversed(images)}
    numbers = _series_of(connection, series, {one.series.path: chains.of(one.series.acl_ids) for one in images})
    rows = [_image_row(one.image, numbers[one.series.path], chains.of(one.acl_ids)) for one in images]
    upsert(connection, IMAGES, rows, "guid", "visible")


def show_series(connection: sa.Connection, *paths: str, is_visible: bool, hidden: Sequence[bytes] = ()) -> None:
    """Let series be found, or no longer, with all images that were put so far; of one name the latest stays.

    Without those of them whose GUIDs are ``hidden``.
    """
    for start in range(0, len(paths), _CHUNK):
        given = {"paths": paths[start : start + _CHUNK], "is_visible": is_visible}
        numbers = connection.execute(_SET_VISIBLE, given).scalars().all()
        if numbers and is_visible:
            connection.execute(_DROP_REPLACED, {"numbers": numbers})
            connection.execute(_SHOW_IMAGES, {"numbers": numbers})
    for start in range(0, len(hidden), _CHUNK):
        connection.execute(_HIDE_IMAGES, {"guids": hidden[start : start + _CHUNK]})


class _Placed(NamedTuple):
    series: SeriesEntry
    image: ImageEntry
    acl_ids: AclIds
    """That it goes by."""


class _Series(NamedTuple):
    number: int
    is_shown: bool


def _series_of(
    connection: sa.Connection, entries: Mapping[str, SeriesEntry], chains: Mapping[str, Chain]
) -> dict[str, _Series]:
    """Give the number of each series by its path, and whether it is shown.

    Images of one that is not are found with it; those that join one that is, when it is shown again.
    """
    found: dict[str, _Series] = {}
    for start in range(0, len(entries), _CHUNK):
        some = list(entries)[start : start + _CHUNK]
        for number, path, is_shown, chain, its_class in connection.execute(_SERIES_OF_PATHS, {"paths": some}):
            found[path] = _Series(number, is_shown)
            if (chain, its_class) != chains[path]:
                moved = {"number": number, "new_chain": chains[path].number, "new_class": chains[path].its_class}
                connection.execute(_MOVE_SERIES, moved)
    new_rows = [_series_row(entries[path], chains[path]) for path in entries if path not in found]
    insert(connection, SERIES, new_rows)
    paths = [row["path"] for row in new_rows]
    for start in range(0, len(paths), _CHUNK):
        made = connection.execute(_SERIES_OF_PATHS, {"paths": paths[start : start + _CHUNK]})
        found |= {path: _Series(number, is_shown) for number, path, is_shown, _, _ in made}
    return found


def _series_row(entry: SeriesEntry, chain: Chain) -> dict[str, Any]:
    try:
        Lfn.parse(entry.path)
    except MalformedNameError as error:
        raise MalformedMessageError(str(error)) from error
    row = dict.fromkeys(_SERIES_NAMES) | typed(entry.attributes, _COLUMNS[Level.SERIES])
    return row | {"path": entry.path, "visible": False, "chain": chain.number, "class": chain.its_class}


def _image_row(entry: ImageEntry, series: _Series, chain: Chain) -> dict[str, Any]:
    own: dict[str, Any] = dict.fromkeys(_COLUMNS[Level.IMAGE])
    own |= typed(entry.attributes, _COLUMNS[Level.IMAGE])
    return own | {
        "guid": guid_octets(entry.guid),
        "series": series.number,
        "name": entry.name,
        "inode": entry.inode,
        "sha256": entry.sha256,
        "policy": entry.policy,
        "chain": chain.number,
        "class": chain.its_class,
        "Size": entry.size,
        "visible": not series.is_shown,
    }


def _buried_and_apart(connection: sa.Connection, guids: Iterable[bytes]) -> tuple[set[bytes], set[bytes]]:
    """Tell which of these were unregistered, and which go by ACLs of their own: known under their GUIDs."""
    wanted = list(dict.fromkeys(guids))
    buried, apart = set[bytes](), set[bytes]()
    for start in range(0, len(wanted), _CHUNK):
        for guid, is_buried in connection.execute(_STANDING, {"guids": wanted[start : start + _CHUNK]}):
            (buried if is_buried else apart).add(bytes(guid))
    return buried, apart


_COLUMNS: Final[Mapping[Level, Mapping[str, Attribute]]] = {
    level: {name: attribute for name, attribute in IMAGE_ATTRIBUTES.items() if attribute.level is level}
    for level in (Level.SERIES, Level.IMAGE)
}

# Statements, put together once

_LATER: Final = IMAGES.alias()
_NUMBERS: Final[sa.BindParameter[Sequence[int]]] = sa.bindparam("numbers", expanding=True)
_PATHS: Final[sa.BindParameter[Sequence[str]]] = sa.bindparam("paths", expanding=True)
_GUIDS: Final[sa.BindParameter[Any]] = sa.bindparam("guids", expanding=True)
_SERIES_NAMES: Final = tuple(column.name for column in SERIES.columns if column.name != "id")
_SERIES_OF_PATHS: Final = sa.select(
    SERIES.c.id, SERIES.c.path, SERIES.c.visible, SERIES.c.chain, SERIES.c["class"]
).where(SERIES.c.path.in_(_PATHS))
_MOVE_SERIES: Final = (
    SERIES.update()
    .where(SERIES.c.id == sa.bindparam("number"))
    .values({"chain": sa.bindparam("new_chain"), "class": sa.bindparam("new_class")})
)
_SET_VISIBLE: Final = (
    SERIES.update().where(SERIES.c.path.in_(_PATHS)).values(visible=sa.bindparam("is_visible")).returning(SERIES.c.id)
)
_DROP_REPLACED: Final = IMAGES.delete().where(
    IMAGES.c.series.in_(_NUMBERS),
    sa.exists().where(
        _LATER.c.series == IMAGES.c.series,
        _LATER.c.name == IMAGES.c.name,
        _LATER.c.inode > IMAGES.c.inode,
    ),
)
_SHOW_IMAGES: Final = (
    IMAGES.update().where(IMAGES.c.series.in_(_NUMBERS), sa.not_(IMAGES.c.visible)).values(visible=sa.true())
)
_HIDE_IMAGES: Final = IMAGES.update().where(IMAGES.c.guid.in_(_GUIDS)).values(visible=sa.false())
_STANDING: Final = sa.union_all(
    sa.select(TOMBSTONES.c.guid, sa.literal_column("1")).where(TOMBSTONES.c.guid.in_(_GUIDS)),
    sa.select(ACLS.c.id, sa.literal_column("0")).where(ACLS.c.id.in_(_GUIDS)),
)
