"""A store is packed without a row lost, and the rows that a bench lays are those that registration would have left."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from mdmfs.hospital.lmdb_store import LmdbStore
from mdmfs.hospital.store import Transaction, store_layout
from mdmfs.model.errors import StoreError
from mdmfs.model.names import Guid
from mdmfs.rows.environment import pack
from tests.bench._catalogue import PER_SUBJECT, SERIES, fill, lay, lfn_of, rows_of

FILES = PER_SUBJECT * SERIES


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Register ten series."""
    path = tmp_path_factory.mktemp("registered") / "store"

    async def register() -> None:
        store = LmdbStore.open(path)
        await fill(store, range(PER_SUBJECT))
        await store.aclose()

    trio.run(register)
    return path


def tables_of(path: Path) -> dict[bytes, tuple[int, int]]:
    """Count rows and octets of each table."""
    return {name: (rows, octets) for name, rows, octets, _ in rows_of(path) if rows}


def test_a_packed_store_has_every_row_in_fewer_pages_and_goes_on(registered: Path, tmp_path: Path) -> None:
    """The next registration works in it as in any other."""
    pack(registered, tmp_path / "packed", store_layout())
    assert tables_of(tmp_path / "packed") == tables_of(registered)
    before, after = (path / "data.mdb" for path in (registered, tmp_path / "packed"))
    assert after.stat().st_size < 0.8 * before.stat().st_size
    assert after.stat().st_mode & 0o077 == 0

    async def go_on() -> int:
        store = LmdbStore.open(tmp_path / "packed")
        await fill(store, range(PER_SUBJECT, PER_SUBJECT + 1))
        count = store.read(lambda tx: tx.catalogue.totals().files)
        await store.aclose()
        return count

    assert trio.run(go_on) == FILES + SERIES


def test_a_store_that_is_not_one_is_not_packed(tmp_path: Path) -> None:
    """With our error."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "data.mdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError):
        pack(tmp_path / "store", tmp_path / "packed", store_layout())


def test_laid_rows_are_as_many_and_as_long_as_registered_ones_and_read_alike(registered: Path, tmp_path: Path) -> None:
    """Each file is found by name and by GUID, and what it stands for is known."""

    async def begin() -> None:
        await LmdbStore.open(tmp_path / "store").aclose()

    trio.run(begin)
    lay(tmp_path / "store", range(PER_SUBJECT))
    ours, laid = tables_of(registered), tables_of(tmp_path / "store")
    assert laid.keys() == ours.keys()
    for name, (rows, octets) in ours.items():
        assert laid[name] == (rows, pytest.approx(octets, rel=0.01)), name
    with LmdbStore.looking(tmp_path / "store") as store:
        for number in range(PER_SUBJECT):
            assert store.read(lambda tx, number=number: readable(tx, number)) == SERIES
        assert store.read(lambda tx: tx.catalogue.totals("neuro").files) == FILES


def readable(tx: Transaction, number: int) -> int:
    """Count the files of a series that are what their names say."""
    directory = tx.catalogue.look_up(lfn_of(number))
    assert directory is not None
    nodes = tx.catalogue.list_page(directory.inode).nodes
    for node in nodes:
        file, instance = tx.catalogue.file(Guid(node.guid)), tx.uidmap.resolve(Guid(node.guid))
        assert file is not None
        assert instance is not None
        assert (file.inode, file.places[0].name, file.rendition.size) == (node.inode, node.name, node.size)
        assert tx.uidmap.guids_of("neuro", instance.instance_uid) == [file.guid]
    return len(nodes)
