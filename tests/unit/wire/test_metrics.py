"""Metrics: told to Prometheus on loopback, to nobody else, and gone with the daemon."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest

from mdmfs.model.errors import ConfigurationError
from mdmfs.wire.keystores import WRONG_SHARES
from mdmfs.wire.metrics import serving_metrics
from tests.twins.servers import free_port


def test_a_count_is_told_while_the_daemon_serves_and_not_after() -> None:
    """What a module counts is in the answer, by its name and labels."""
    address = f"127.0.0.1:{free_port()}"
    WRONG_SHARES.labels("k of the metrics test").inc(3)
    with serving_metrics(address), urllib.request.urlopen(f"http://{address}/metrics") as answer:
        told = answer.read().decode()
    assert 'mdmfs_wrong_shares_total{keystore="k of the metrics test"} 3.0' in told.splitlines()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://{address}/metrics")


@pytest.mark.parametrize("address", ["0.0.0.0:9464", "192.0.2.1:9464", "example.org:9464", "[::]:9464", "9464"])
def test_an_address_that_others_reach_is_refused(address: str) -> None:
    """Nobody is asked who he is there, so nobody from outside may come."""
    with pytest.raises(ConfigurationError), serving_metrics(address):
        pass


def test_a_port_that_is_taken_is_told() -> None:
    """The daemon does not start without what it was told to serve."""
    address = f"127.0.0.1:{free_port()}"
    with (
        serving_metrics(address),
        pytest.raises(ConfigurationError, match="cannot be served"),
        serving_metrics(address),
    ):
        pass


def test_without_an_address_nothing_is_served() -> None:
    """The default."""
    with serving_metrics(""):
        pass
