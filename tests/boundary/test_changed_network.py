"""A client whose address changes, as after a suspend or behind another uplink: nobody tells it, and it goes on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace is root's to make")


@pytest.mark.parametrize(
    "case",
    [
        pytest.param("ask_again", id="a question over a connection that was left is asked over a new one"),
        pytest.param("wait_for_an_answer", id="so is one whose answer is awaited, of which nothing is on its way"),
        pytest.param("lose_a_probe", id="who was away for a moment is heard on"),
    ],
)
def test_what_is_gone_without_a_word_is_noticed(case: str) -> None:
    """Without a watch the kernel would try for a quarter of an hour, or wait for ever."""
    typed = ["unshare", "--net", "--", sys.executable, "-m", "tests.twins.changed_network", case]
    told = subprocess.run(typed, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
