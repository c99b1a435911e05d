"""The journal of systemd itself: what a program of ours logs there is asked back from it, field by field."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

ALONE = """
mount -t tmpfs none /run
[ ! -d /var/log/journal ] || mount -t tmpfs none /var/log/journal
mkdir -p /run/systemd/journal.mdmfs
ln -s journal.mdmfs /run/systemd/journal
/lib/systemd/systemd-journald mdmfs >/run/told 2>&1 &
for _ in $(seq 100); do [ ! -S /run/systemd/journal/stdout ] || break; sleep 0.1; done
systemd-cat sh -c 'JOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2) exec "$@"' sh "$@"
journalctl --namespace=mdmfs --sync >&2
journalctl --namespace=mdmfs --output=json --no-pager SYSLOG_IDENTIFIER=mdmfs
kill $!
wait
"""
"""Runs what it is given with its output in a journal of its own, as a unit has it, and prints what that has kept."""

PROGRAM = """
import logging, structlog
from mdmfs.cli.logs import log_to_standard_error
log_to_standard_error("info")
structlog.get_logger().warning("recall failed", files=3, reason="one\\nPRIORITY=0")
logging.getLogger("mdmfs.wire").error("%s failed", "it")
structlog.get_logger().debug("not asked for")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="a journal of one's own needs a mount namespace, and that root")
def test_the_journal_keeps_records_as_fields() -> None:
    """Message, priority and our own names; a newline in a value ends no field."""
    typed = ["unshare", "--mount", "bash", "-c", ALONE, "bash", sys.executable, "-c", PROGRAM]
    done = subprocess.run(typed, check=True, capture_output=True, text=True, timeout=60)
    kept = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["MESSAGE"] for record in kept] == ["recall failed", "it failed"]
    assert [record["PRIORITY"] for record in kept] == ["4", "3"]
    assert {record["_TRANSPORT"] for record in kept} == {"journal"}
    assert (kept[0]["MDMFS_FILES"], kept[0]["MDMFS_REASON"]) == ("3", "one\nPRIORITY=0")
    assert kept[1]["MDMFS_LOGGER"] == "mdmfs.wire"
