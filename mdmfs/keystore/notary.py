"""The notary: what a keystore certifies of destroyed keys, signed with its own key."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Final

from mdmfs.keystore.backup import SECONDS_A_DAY
from mdmfs.model.names import Guid
from mdmfs.pki.signature import chain_of, sign
from mdmfs.pki.tls import Credential
from mdmfs.wire.messages.key_tasks import Certificate

CERTIFICATE_FORMAT: Final = 1
_SAYS: Final = (
    "This keystore has destroyed its shares of the keys of the files listed as destroyed, and takes none again. "
    "Backups made before may hold them until they expire; a restored keystore destroys them before it gives any share. "
    "Copies that somebody has read are not recalled."
)


class Notary:
    """Signs certificates of destruction in a keystore's name."""

    def __init__(self, name: str, credential: Credential, backup_days: int) -> None:
        """``backup_days`` is for how long a backup of the shelf is kept."""
        self._name = name
        self._credential = credential
        self._backup_days = backup_days

    def certify(self, hospital: str, destroyed: Mapping[Guid, float | None], now: float) -> Certificate:
        """Certify when each GUID's share was destroyed; None: it was not. Raises ``ConfigurationError``."""
        when = {str(guid): _utc(at) for guid, at in destroyed.items() if at is not None}
        latest = max((at for at in destroyed.values() if at is not None), default=now)
        document = {
            "mdmfs certificate of destruction": CERTIFICATE_FORMAT,
            "keystore": self._name,
            "keystore dn": str(self._credential.subject()),
            "hospital dn": hospital,
            "made": _utc(now),
            "destroyed": when,
            "not destroyed": [str(guid) for guid, at in destroyed.items() if at is None],
            "backups expire": _utc(latest + self._backup_days * SECONDS_A_DAY),
            "says": _SAYS,
        }
        octets = json.dumps(document, indent=1).encode()
        return Certificate(octets, sign(self._credential, octets), chain_of(self._credential))


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
