"""Logs: one line a record on standard error, ``key=value`` or JSON; as fields where that leads to systemd's journal."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from typing import Final, TextIO, cast

import structlog

from mdmfs.cli.journald import Journal, JournalHandler

_SHARED: Final = (
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
)


class _StandardError(io.TextIOBase):
    """Whatever is standard error when something is logged: loggers keep what they were given, and it may be closed."""

    def write(self, text: str, /) -> int:
        """Write to it; what takes none just now (a full disk, a reader that has gone) loses it, and no daemon fails."""
        with contextlib.suppress(OSError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush it."""
        with contextlib.suppress(OSError):
            sys.stderr.flush()


def log_to_standard_error(level: str, *, is_json: bool = False) -> None:
    """Send structlog and the standard library's loggers the same way; tracebacks show code, never the values in it."""
    threshold = getattr(logging, level.upper())
    journal = Journal.behind(os.environ, sys.stderr)
    if journal is not None:
        _log_to(journal, threshold)
        return
    render: structlog.types.Processor
    if is_json:
        render = structlog.processors.JSONRenderer()
    else:
        render = structlog.processors.LogfmtRenderer(key_order=("timestamp", "level", "event"), drop_missing=True)
    structlog.configure(
        processors=[*_SHARED, render],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _StandardError())),
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *_SHARED],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
    )
    output = logging.StreamHandler(_StandardError())
    output.setFormatter(formatter)
    logging.basicConfig(handlers=[output], level=threshold, force=True)


def _log_to(journal: Journal, threshold: int) -> None:
    """Send both kinds of loggers to the journal, which has its own time."""
    structlog.configure(
        processors=[structlog.stdlib.add_log_level, structlog.processors.format_exc_info],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=journal,
    )
    logging.basicConfig(handlers=[JournalHandler(journal)], level=threshold, force=True)
