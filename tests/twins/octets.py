"""Bytes that look random and are the same in every run."""

from __future__ import annotations

import hashlib


def octets(count: int, seed: str = "") -> bytes:
    """Give ``count`` bytes that depend on the seed only (SHAKE-128)."""
    return hashlib.shake_128(seed.encode()).digest(count)
