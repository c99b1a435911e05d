"""Noise in what proves or names somebody: a hundredth of ``bench fuzz_pki``, of slow parsers a tenth of that."""

from __future__ import annotations

import pytest

from tests.twins.pki_fuzz import FUZZERS

SLOW = {"proxies", "attribute certificates", "signing policies"}


@pytest.mark.parametrize("name", FUZZERS)
def test_noise_is_read_or_refused_by_name(name: str) -> None:
    """Nothing else comes out, and some of each does: inputs that are all refused at once would try nothing."""
    count = 1000 if name in SLOW else 10_000
    accepted = FUZZERS[name](count, 20061122)
    assert accepted < count
    if name != "attribute certificates":
        assert accepted
