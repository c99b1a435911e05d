"""Metrics of a daemon for Prometheus, on a loopback port; off unless the configuration names one.

Each module declares its own, named ``mdmfs_...``, on the library's registry. Any user of the machine may read them, so
a label is never a GUID, a DN or anything of a patient: names of keystores, outcomes and kinds are.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterator

from prometheus_client import start_http_server

from mdmfs.model.errors import ConfigurationError
from mdmfs.wire.stream import Address


@contextlib.contextmanager
def serving_metrics(address: str) -> Iterator[None]:
    """Answer ``GET /metrics`` at ``HOST:PORT``, a loopback address, from a thread while the block runs.

    Does nothing where ``address`` is empty. Raises ``ConfigurationError``.
    """
    if not address:
        yield
        return
    server, thread = _start(address)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _start(text: str):  # type: ignore[no-untyped-def]  # noqa: ANN202 as the library gives it
    address = Address.parse(text)
    try:
        is_loopback = ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        message = (
            f"metrics are served on a loopback address such as 127.0.0.1:9464, not on {text}: they ask nobody's name"
        )
        raise ConfigurationError(message)
    try:
        return start_http_server(address.port, addr=address.host)
    except OSError as error:
        message = f"metrics cannot be served on {text}: {error.strerror}"
        raise ConfigurationError(message) from error
