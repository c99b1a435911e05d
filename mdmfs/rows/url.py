"""Where a database is: an URL as libpq reads it, with no password in it, and over no network in the clear."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Mapping
from typing import Any, Final

from mdmfs.model.errors import ConfigurationError

_ELSEWHERE: Final = frozenset({"service", "servicefile"})
"""What would let a file name the host."""
_SAFE: Final = frozenset({"verify-ca", "verify-full"})
_SECONDS_FOR_ONE, _SECONDS_FOR_EACH = "5", "2"
"""To connect: of several hosts the first may be the one that was lost, and each new connection begins with it."""
_CONNECTION: Final = {
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "application_name": "mdmfs",
    "host": "",
    "hostaddr": "",
}
"""The last two keep PGHOST and PGHOSTADDR out: without a host there is only the socket of this machine."""


class DatabaseUrl:
    """Where a database is. No password is in it, and patients' names cross no network in the clear."""

    def __init__(self, text: str, *, needs_writes: bool = True) -> None:
        """Read ``postgresql://...``; raises ``ConfigurationError``, which does not tell the text.

        Where nothing is to be written, of several hosts a standby is taken first.
        """
        try:  # here, and not above: it takes a tenth of a second, which a daemon without a database can do without
            import psycopg  # noqa: PLC0415
            from psycopg import conninfo  # noqa: PLC0415
        except ModuleNotFoundError:
            message = "for PostgreSQL the extra is missing"
            what_to_do = "pip install 'mdmfs[postgresql]', or ./run install postgresql"
            raise ConfigurationError(message, what_to_do=what_to_do) from None
        try:
            parts = conninfo.conninfo_to_dict(text) if text.startswith("postgresql://") else {}
        except psycopg.Error:
            parts = {}
        if not parts:
            message = "store is no URL that PostgreSQL's libpq can read, such as postgresql://mdmfs@HOST/DATABASE"
            raise ConfigurationError(message) from None
        if parts.get("password") is not None:
            message = (
                "store holds a password: put it into a file of mode 0600 as libpq reads it (HOST:PORT:DATABASE:USER:"
                "PASSWORD), and name that, ?passfile=FILE"
            )
            raise ConfigurationError(message)
        if not parts.keys().isdisjoint(_ELSEWHERE):
            message = "store names a service: say in it which host, database and user that is"
            raise ConfigurationError(message)
        hosts = [host for name in ("hostaddr", "host") for host in str(parts.get(name, "")).split(",")]
        away = [host for host in hosts if not _is_here(host)]
        if away and parts.get("sslmode") not in _SAFE:
            message = (
                f"store: what is kept would cross the network in the clear to {away[0]}: add"
                " sslmode=verify-full&sslrootcert=FILE"
            )
            raise ConfigurationError(message)
        wanted = "read-write" if needs_writes else "prefer-standby"
        are_several = any("," in str(parts.get(name, "")) for name in ("hostaddr", "host"))
        timeout = _SECONDS_FOR_EACH if are_several else _SECONDS_FOR_ONE
        given = {**_CONNECTION, "connect_timeout": timeout, "target_session_attrs": wanted}
        self.parts: Final[Mapping[str, Any]] = {**given, **parts}
        self._shown = f"postgresql://{parts.get('hostaddr') or parts.get('host') or ''}/{parts.get('dbname', '')}"

    def __str__(self) -> str:
        """Show hosts and database."""
        return self._shown


def _is_here(host: str) -> bool:
    if not host or host.startswith(("/", "@")) or host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False
