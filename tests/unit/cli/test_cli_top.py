"""``mdmfs top``: what a daemon's metrics say, and what they grow by."""

from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from mdmfs.cli.main import cli
from mdmfs.cli.output import run
from mdmfs.cli.top import find_metrics, read_figures, table
from mdmfs.model.errors import ConfigurationError
from tests.twins.servers import free_port

LOOK = """\
# TYPE mdmfs_opens_total counter
mdmfs_opens_total{{way="asked"}} {opens}
# TYPE mdmfs_failed_calls_total counter
mdmfs_failed_calls_total{{errno="EHOSTUNREACH",operation="open a file of a hospital that is away"}} 7
# TYPE mdmfs_opens_created gauge
mdmfs_opens_created{{way="asked"}} 1.7e9
# TYPE mdmfs_waiting_calls gauge
mdmfs_waiting_calls{{call="read"}} 3
# TYPE mdmfs_cache_bytes gauge
mdmfs_cache_bytes 2097152
# TYPE mdmfs_never_total counter
mdmfs_never_total 0
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total 1.5
# TYPE python_info gauge
python_info 1
"""


@pytest.fixture
def daemon() -> Iterator[str]:
    """Serve metrics of which one grows by ten with each look; gives the address."""
    looks = iter(range(0, 1000, 10))

    class Metrics(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(LOOK.format(opens=next(looks)).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Metrics)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_each_look_tells_what_is_and_what_it_grew_by(daemon: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One object for each look; a gauge has no rate, and what is not ours is left out."""
    assert run(cli, ["top", daemon, "--every", "0.1", "--count", "2", "--json"]) == 0
    first, second = (json.loads(line)["figures"] for line in capsys.readouterr().out.splitlines())
    assert [one["name"] for one in first] == [
        "opens",
        "failed_calls",
        "waiting_calls",
        "cache_bytes",
        "never",
        "cpu_seconds",
    ]
    assert (first[0]["labels"], first[0]["value"], second[0]["value"]) == ("way=asked", 10, 20)
    assert first[0]["per_second"] > 0
    assert "per_second" not in first[2]


def test_without_a_terminal_each_look_is_printed(daemon: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One below the other, in a file or a pipe, and each figure in one line: somebody looks for it with grep."""
    assert run(cli, ["top", daemon, "--every", "0.1", "--count", "2"]) == 0
    told = capsys.readouterr().out
    assert told.count("per second") == 2
    assert told.endswith("\n")
    assert "\x1b" not in told
    labels = "errno=EHOSTUNREACH operation=open a file of a hospital that is away"
    assert sum("failed calls" in line and labels in line for line in told.splitlines()) == 2


def test_a_proxy_is_not_asked_for_what_is_on_loopback(daemon: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker nodes have one for everything else."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    assert run(cli, ["top", daemon, "--every", "0.1", "--count", "1"]) == 0


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\n\r\nwhat{ is this\n", b"HTTP/1.1 200 OK\r\n\r\n\xff"]
)
def test_what_speaks_something_else_is_no_fault_of_ours(answer: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    """Another service on that port, or another page."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=_answer_once, args=(listener, answer))
        thread.start()
        assert run(cli, ["top", f"127.0.0.1:{port}", "--count", "1"]) == 1
        thread.join()
    assert f"no metrics at 127.0.0.1:{port}" in capsys.readouterr().err


def _answer_once(listener: socket.socket, answer: bytes) -> None:
    connected, _ = listener.accept()
    with connected:
        connected.recv(4096)
        connected.sendall(answer)


def test_people_see_a_table_without_what_never_counted() -> None:
    """Bytes are in MiB, a count is beside what it grew by in a second."""
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(table("mount", read_figures(LOOK.format(opens=10)), read_figures(LOOK.format(opens=30)), 2.0))
    lines = [line.split() for line in console.export_text().splitlines()]
    assert ["opens", "way=asked", "30", "10"] in lines
    assert ["cache", "bytes", "2.0", "MiB"] in lines
    assert not any("never" in line for line in lines)


def test_a_configuration_says_where_to_look_or_that_it_serves_none(tmp_path: Path) -> None:
    """Any daemon's, by whatever its table is called."""
    file = tmp_path / "keystore.toml"
    file.write_text('[keystore]\nname = "one"\nmetrics = "127.0.0.1:9464"\n')
    assert str(find_metrics(str(file))) == "127.0.0.1:9464"
    file.write_text('[keystore]\nname = "one"\n')
    with pytest.raises(ConfigurationError, match="says nothing of metrics"):
        find_metrics(str(file))
    with pytest.raises(ConfigurationError, match="no path on a mount, no configuration and no HOST:PORT"):
        find_metrics("nowhere")


def test_a_daemon_that_does_not_run_is_named_by_its_address(capsys: pytest.CaptureFixture[str]) -> None:
    """One line, exit code 1."""
    port = free_port()
    assert run(cli, ["top", f"127.0.0.1:{port}", "--count", "1"]) == 1
    assert f"no metrics at 127.0.0.1:{port}" in capsys.readouterr().err
