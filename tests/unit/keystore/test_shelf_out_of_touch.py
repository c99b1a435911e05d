"""A shelf in a database that has not been heard of: another daemon may work on it, and have heard of a revocation."""

from __future__ import annotations

from pathlib import Path

import pytest

from mdmfs.keystore.row_shelf import RowShelf, shelf_layout
from mdmfs.keystore.shelf import KeyRecord
from mdmfs.model.errors import PeerUnreachableError
from mdmfs.model.names import Guid
from mdmfs.rows.embedded import Embedded

GUID = Guid(bytes(16))
OLD, NEW = (KeyRecord(owner="/CN=h", share=share, aliases=()) for share in (b"old", b"new"))


class Database(Embedded):
    """Rows in a database that can fall silent."""

    is_silent = False

    def refuse_stale(self) -> None:
        """See ``Engine.refuse_stale``."""
        if self.is_silent:
            message = "nothing was heard of the database"
            raise PeerUnreachableError(message)


async def test_it_gives_no_share_and_takes_no_order(tmp_path: Path) -> None:
    """Neither at once nor in a thread; what it held is there again when it is heard of."""
    database = Database.open(tmp_path / "shelf", shelf_layout())
    shelf = RowShelf(database)
    await shelf.write(lambda draft: draft.put_key(GUID, OLD))
    database.is_silent = True
    for is_brief in (False, True):
        with pytest.raises(PeerUnreachableError):
            await shelf.read(lambda page: page.key(GUID), is_brief=is_brief)
    with pytest.raises(PeerUnreachableError):
        await shelf.write(lambda draft: draft.put_key(GUID, NEW))
    database.is_silent = False
    assert await shelf.read(lambda page: page.key(GUID)) == OLD
    await database.aclose()
