"""Metrics: told to Prometheus on loopback, to nobody else, and gone with the daemon."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest

from mdmfs.daemon.supervision import STALLED_SECONDS, Pulse
from mdmfs.model.errors import ConfigurationError
from mdmfs.wire.keystores.keystores import WRONG_SHARES
from mdmfs.wire.metrics import serving_metrics
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
