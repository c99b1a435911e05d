"""Metrics: told to Prometheus on loopback, to nobody else, and gone with the daemon."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest

from mdmfs.daemon.supervision import STALLED_SECONDS, Pulse
from mdmfs.model.errors import ConfigurationError
from mdmfs.wire.keystores.keystores import WRONG_SHARES
from mdmfs.wire.metrics import MAX_ASKING, serving_metrics
from tests.twins.servers import free_port


def test_a_count_is_told_while_the_daemon_serves_and_not_after() -> None:
    """What a module counts is in the answer, by its name and labels."""
    address = f"127.0.0.1:{free_port()}"
    WRONG_SHARES.labels("k of the metrics test").inc(3)
    with serving_metrics(address, Pulse()), urllib.request.urlopen(f"http://{address}/metrics") as answer:
        told = answer.read().decode()
    assert 'mdmfs_wrong_shares_total{keystore="k of the metrics test"} 3.0' in told.splitlines()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://{address}/metrics")


@pytest.mark.parametrize("address", ["0.0.0.0:9464", "192.0.2.1:9464", "example.org:9464", "[::]:9464", "9464"])
def test_an_address_that_others_reach_is_refused(address: str) -> None:
    """Nobody is asked who he is there, so nobody from outside may come."""
    with pytest.raises(ConfigurationError), serving_metrics(address, Pulse()):
        pass


def test_a_port_that_is_taken_is_told() -> None:
    """The daemon does not start without what it was told to serve."""
    address = f"127.0.0.1:{free_port()}"
    with (
        serving_metrics(address, Pulse()),
        pytest.raises(ConfigurationError, match="cannot be served"),
        serving_metrics(address, Pulse()),
    ):
        pass


def test_without_an_address_nothing_is_served() -> None:
    """The default."""
    with serving_metrics("", Pulse()):
        pass


def answer_of(address: str, path: str) -> int:
    """Ask for a page, and give its status."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}") as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_daemon_is_alive_while_its_loop_turns_and_ready_while_it_serves() -> None:
    """Not ready before it has started, nor when it ends; neither when the loop hangs."""
    now = 0.0
    pulse = Pulse(lambda: now)
    address = f"127.0.0.1:{free_port()}"
    with serving_metrics(address, pulse):
        assert [answer_of(address, path) for path in ("/healthz", "/readyz", "/", "/metrics/")] == [200, 503, 404, 404]
        pulse.start()
        assert answer_of(address, "/readyz") == 200
        now = STALLED_SECONDS
        assert [answer_of(address, path) for path in ("/healthz", "/readyz")] == [503, 503]
        pulse.beat()
        assert [answer_of(address, path) for path in ("/healthz", "/readyz")] == [200, 200]
        pulse.stop()
        assert [answer_of(address, path) for path in ("/healthz", "/readyz")] == [200, 503]


def test_metrics_are_told_on_ipv6_too() -> None:
    """Loopback has two addresses."""
    address = f"[::1]:{free_port()}"
    with serving_metrics(address, Pulse()):
        assert answer_of(address, "/healthz") == 200


def asking() -> int:
    """Count the threads that answer somebody."""
    return sum("process_request_thread" in thread.name for thread in threading.enumerate())


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait, and not for ever."""
    for _ in range(5000):
        if condition():
            return
        time.sleep(0.001)
    pytest.fail("it did not come about")


def test_who_goes_in_the_middle_of_a_question_is_not_told_of(capfd: pytest.CaptureFixture[str]) -> None:
    """Twenty lines on standard error for each search for open ports would fill the journal."""
    port = free_port()
    with serving_metrics(f"127.0.0.1:{port}", Pulse()):
        for said in (b"GET /metrics HTTP/1.1\r\n", b"GET /metr"):
            with socket.create_connection(("127.0.0.1", port)) as connected:
                connected.sendall(said)
                wait_until(lambda: asking() == 1)
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            wait_until(lambda: not asking())
        assert answer_of(f"127.0.0.1:{port}", "/healthz") == 200
    assert capfd.readouterr().err == ""


def test_however_many_connect_and_ask_nothing_so_many_threads_wait_for_them() -> None:
    """Those who come later are let go at once, and answered when the others have gone."""
    port = free_port()
    with serving_metrics(f"127.0.0.1:{port}", Pulse()):
        with contextlib.ExitStack() as stack:
            for _ in range(MAX_ASKING):
                stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            wait_until(lambda: asking() == MAX_ASKING)
            for _ in range(20):
                with socket.create_connection(("127.0.0.1", port), timeout=5) as late:
                    assert late.recv(1) == b""
            assert asking() == MAX_ASKING
        wait_until(lambda: not asking())
        assert answer_of(f"127.0.0.1:{port}", "/healthz") == 200


def test_a_thread_that_cannot_be_begun_takes_no_place_for_ever() -> None:
    """As where the daemon may have no more of them for a moment."""
    port = free_port()
    with serving_metrics(f"127.0.0.1:{port}", Pulse()):
        before = threading.stack_size(2**46)
        try:
            for _ in range(MAX_ASKING):
                with socket.create_connection(("127.0.0.1", port), timeout=5) as refused:
                    assert refused.recv(1) == b""
        finally:
            threading.stack_size(before)
        assert answer_of(f"127.0.0.1:{port}", "/healthz") == 200
