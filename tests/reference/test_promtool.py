"""Prometheus' own checker reads what we give to Prometheus: alert rules, queries of the dashboard, and metrics."""

from __future__ import annotations

import importlib
import json
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from mdmfs.daemon.supervision import Pulse
from mdmfs.wire.metrics import serving_metrics

ROOT: Final = Path(__file__).parents[2]
PROMTOOL: Final = ROOT / ".cache" / "promtool" / "promtool"
ZONES: Final = ("hospital", "keystore", "metadata", "worker")

pytestmark = pytest.mark.skipif(not PROMTOOL.exists(), reason="promtool is unpacked by ./run test")


def promtool(*typed: str | Path, text: str = "") -> str:
    """Run it; gives what it says, and fails where it finds a fault."""
    done = subprocess.run([PROMTOOL, *typed], check=False, capture_output=True, text=True, input=text)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def expressions(part: Any) -> Iterator[str]:  # noqa: ANN401 of any JSON
    """Give every query of a dashboard."""
    if isinstance(part, dict):
        yield from (value for key, value in part.items() if key == "expr")
        yield from (found for value in part.values() for found in expressions(value))
    elif isinstance(part, list):
        yield from (found for value in part for found in expressions(value))


def test_the_alert_rules_are_rules() -> None:
    """As a site would load them."""
    assert "SUCCESS" in promtool("check", "rules", ROOT / "docs" / "alerts.yml")


def test_the_queries_of_the_dashboard_are_queries(tmp_path: Path) -> None:
    """Each is read as the expression of a rule."""
    found = list(expressions(json.loads((ROOT / "docs" / "dashboard.json").read_text())))
    assert found
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(found)]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(found)} rules found" in promtool("check", "rules", tmp_path / "rules.yml")


def test_the_metrics_of_every_zone_are_named_and_told_as_prometheus_wants() -> None:
    """The text that a daemon serves, with all that any zone declares in it; promtool judges form, names and help."""
    for path in (ROOT / "mdmfs").rglob("*.py"):
        if "prometheus_client" in path.read_text(encoding="utf-8"):
            importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    with (
        serving_metrics(f"127.0.0.1:{port}", Pulse()),
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer,
    ):
        text = answer.read().decode()
    ours = "".join(line for line in text.splitlines(keepends=True) if "mdmfs_" in line)
    assert ours.count("# TYPE") > len(ZONES)
    assert promtool("check", "metrics", text=ours) == ""
