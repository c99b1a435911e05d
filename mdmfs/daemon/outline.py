"""What a log may tell of an error that nobody foresaw: its kind and where it arose, never its message."""

from __future__ import annotations

import traceback


def outline(error: BaseException) -> str:
    """Tell where an unexpected error arose, without its message: nobody knows what values that quotes."""
    steps = [f"{step.filename}:{step.lineno} {step.name}" for step in traceback.extract_tb(error.__traceback__)]
    cause = error.__cause__ or error.__context__
    return f"{type(error).__name__} at {' > '.join(steps)}" + (f"; from {outline(cause)}" if cause else "")
