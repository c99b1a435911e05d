"""Noise in certificates, attribute certificates and the files of trust: a thousandth of what a bench runs."""

from __future__ import annotations

import pytest

from tests.twins.pki_fuzz import FUZZERS


@pytest.mark.parametrize("name", FUZZERS)
def test_noise_is_read_or_refused_by_name(name: str) -> None:
    """Nothing else comes out, and some of each does: inputs that are all refused at once would try nothing."""
    accepted = FUZZERS[name](1000, 20061122)
    assert accepted < 1000
    if name != "attribute certificates":
        assert accepted
