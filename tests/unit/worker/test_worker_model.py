"""The file system agrees with a dict of bytes, in whatever order things happen; `./run bench model` goes on longer."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.twins.file_model import FileModel


def test_the_file_system_agrees_with_a_dict_of_bytes() -> None:
    """Three hundred steps, the same ones in every run."""
    settled = settings(
        max_examples=12,
        stateful_step_count=40,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(FileModel, settings=settled)
    assert FileModel.steps >= 200
