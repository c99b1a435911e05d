"""Names on two mounts against a dict that says what there must be; more of it in ``./run bench names``."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog

from tests.twins.named_model import compare
from tests.twins.stores import STORES


@pytest.mark.parametrize("name", STORES)
async def test_two_mounts_show_what_a_dict_says(tmp_path: Path, name: str) -> None:
    """The one that changed it at once, the other soon, and lost answers change nothing; in memory and in LMDB."""
    store = STORES[name](tmp_path)
    with structlog.testing.capture_logs():
        assert await compare(tmp_path, 1, 50, store) > 10
    await store.aclose()
