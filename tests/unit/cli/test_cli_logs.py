"""Logs go to whatever is standard error when they are written."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from pathlib import Path

import pytest
import structlog

from mdmfs.cli.logs import log_to_standard_error


def test_a_logger_outlives_the_stream_that_it_was_made_with() -> None:
    """A stream that somebody put there for a while is closed; who logs later is heard where standard error is then."""
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = list(root.handlers), root.level
    log, library = structlog.get_logger(), logging.getLogger("a library")
    try:
        with io.StringIO() as first, contextlib.redirect_stderr(first):
            log_to_standard_error("info", is_json=True)
            log.info("one")
            library.warning("two")
            assert [json.loads(line)["event"] for line in first.getvalue().splitlines()] == ["one", "two"]
        second = io.StringIO()
        with contextlib.redirect_stderr(second):
            log.info("three")
            library.warning("four")
        assert [json.loads(line)["event"] for line in second.getvalue().splitlines()] == ["three", "four"]
    finally:
        structlog.configure(**before)
        root.handlers, root.level = handlers, level


def test_a_log_that_takes_nothing_loses_lines_and_ends_nothing() -> None:
    """Its disk is full. Whoever logs may be answering the kernel: what he raises would unmount everybody."""
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        with Path("/dev/full").open("w", buffering=1) as full, contextlib.redirect_stderr(full):
            log_to_standard_error("info")
            structlog.get_logger().warning("one")
            logging.getLogger("a library").warning("two")
            with pytest.raises(OSError, match="No space"):
                full.close()
    finally:
        structlog.configure(**before)
        root.handlers, root.level = handlers, level
