"""A million random keys, split and combined from every pair of shares: how many come back."""

from __future__ import annotations

import itertools
import secrets
import time

from mdmfs.sharing.shamir import combine
from tests.bench._frame import Bench, Measured
from tests.twins.keystores import random_guid, shares_of

KEYS = 1_000_000


def measure() -> Measured:
    """Split 2 of 3; the ratio is that of keys that every pair of their shares gives back."""
    guid, begun, kept = random_guid(), time.process_time(), 0
    for _ in range(KEYS):
        secret = secrets.token_bytes(32)
        shares = shares_of(guid, secret)
        kept += all(combine(pair) == secret for pair in itertools.combinations(shares, 2))
    spent = f"{time.process_time() - begun:.0f} s of CPU"
    return Measured(("keys", "came back", "lost", ""), [(str(KEYS), str(kept), str(KEYS - kept), spent)], kept / KEYS)


BENCH = Bench(measure, bar=1.0)
