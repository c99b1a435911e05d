"""Looks that are made again and again: tasks that look equally often look at the same moments, and wake the loop once.

To wake up takes longer than to look.
"""

from __future__ import annotations

import trio


async def next_look(seconds: float) -> None:
    """Sleep until trio's clock shows a whole multiple of so many seconds."""
    now = trio.current_time()
    await trio.sleep_until(now - now % seconds + seconds)
