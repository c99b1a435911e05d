"""Names on two mounts against a dict that says what there must be; more of it in ``./run bench names``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.twins.named_model import compare


@pytest.mark.parametrize("seed", range(3))
async def test_two_mounts_show_what_a_dict_says(tmp_path: Path, seed: int) -> None:
    """The one that changed it at once, the other soon, and lost answers change nothing."""
    assert await compare(tmp_path, seed, 40) > 10
