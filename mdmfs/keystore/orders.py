"""Whose orders a keystore takes: of each hospital those alone that are signed by the key of its first one."""

from __future__ import annotations

from collections.abc import Collection

import structlog

from mdmfs.keystore.shelf import Shelf
from mdmfs.model.errors import AccessDeniedError
from mdmfs.model.identity import Dn
from mdmfs.wire.orders import signer_of
from mdmfs.wire.service import Octets, Request

log = structlog.get_logger("mdmfs.keystore")


class Orders:
    """Checks orders before they are carried out."""

    def __init__(self, shelf: Shelf, hospitals: Collection[Dn], own: Dn) -> None:
        """``own`` is the keystore's DN: an order for another is none here."""
        self._shelf = shelf
        self._hospitals = frozenset(hospitals)
        self._own = own

    async def refuse_others(self, request: Request, body: Octets) -> None:
        """Raise ``AccessDeniedError`` unless a listed hospital signed this as it signed its first order.

        A hospital that never signed one may go on so; whoever is not listed is refused later, and pins nothing.
        """
        if request.principal.dn not in self._hospitals:
            return
        owner = str(request.principal.dn)
        signer = signer_of(request.headers, request.path, self._own, body)
        pinned = await self._shelf.read(lambda page: page.signer(owner), is_brief=True)
        if signer == pinned:
            return
        if pinned:
            log.error("an order is not signed as this hospital's are", dn=owner, path=request.path)
            message = (
                "the order is not signed by the key of this hospital's first one; if the hospital has lost that key, "
                "the keystore's people let it have another: mdmfs shelf forget-signer"
            )
            raise AccessDeniedError(message)
        await self._shelf.write(lambda draft: draft.put_signer(owner, signer))
        log.info("a hospital's signing key is known from now on", dn=owner, signer=signer.hex())
