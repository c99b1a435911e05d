"""Certificate revocation lists of one CA: which serial numbers it has taken back, and until when that is known."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence
from typing import Final, Self

from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from mdmfs.model.errors import CredentialRefusedError
from mdmfs.model.identity import Dn
from mdmfs.pki.certificate import Certificate
from mdmfs.pki.dn import dn_of

_HARMLESS: Final = {
    x509.CRLNumber.oid,
    x509.AuthorityKeyIdentifier.oid,
    x509.IssuerAlternativeName.oid,
    x509.AuthorityInformationAccess.oid,
    x509.FreshestCRL.oid,
}


class Scope(enum.Flag):
    """Which certificates a list speaks of."""

    NOTHING = 0
    END_ENTITIES = enum.auto()
    AUTHORITIES = enum.auto()


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class RevocationList:
    """One CRL, read but not yet believed: its signature is checked with the key of the CA in question."""

    crl: x509.CertificateRevocationList
    issuer: Dn
    begins: float
    """Seconds since the epoch."""
    ends: float
    """Seconds since the epoch; 0 for a list without an end, which is never current."""
    scope: Scope

    @classmethod
    def parse(cls, octets: bytes) -> Self:
        """Read PEM or DER with all its extensions; raises ``ValueError`` or ``TypeError``."""
        load = x509.load_pem_x509_crl if b"-----BEGIN" in octets else x509.load_der_x509_crl
        crl = load(octets)
        issuer = dn_of(asn1_x509.Name.load(crl.issuer.public_bytes()))
        end = crl.next_update_utc
        return cls(
            crl, issuer, crl.last_update_utc.timestamp(), 0.0 if end is None else end.timestamp(), _scope_of(crl)
        )

    def is_signed_by(self, authority: Certificate) -> bool:
        """Ask whether the list is that CA's own; an algorithm that is not known makes it nobody's."""
        try:
            return self.crl.is_signature_valid(authority.key)  # type: ignore[arg-type] # a key that signs nothing raises
        except (TypeError, ValueError, UnsupportedAlgorithm):
            return False

    def is_current(self, now: float) -> bool:
        """Ask whether the list counts at this time."""
        return self.begins <= now < self.ends

    def is_about(self, certificate: Certificate) -> bool:
        """Ask whether the list speaks of certificates of this kind."""
        return (Scope.AUTHORITIES if certificate.is_ca else Scope.END_ENTITIES) in self.scope

    def lists(self, serial: int) -> bool:
        """Ask whether a serial number is listed, for whatever reason, on hold included."""
        return self.crl.get_revoked_certificate_by_serial_number(serial) is not None


def refuse_revoked(
    lists: Sequence[RevocationList], authority: Certificate, certificate: Certificate, now: float
) -> float:
    """Refuse a certificate that its CA has taken back, and say until when the answer holds.

    ``lists`` are all that the CA directory has under the CA's name. Raises ``CredentialRefusedError`` when none of them
    can be believed: signed with the CA's key, current, and about this kind of certificate.
    """
    current = [
        one for one in lists if one.is_current(now) and one.is_about(certificate) and one.is_signed_by(authority)
    ]
    if not current:
        message = (
            f"the revocation list (CRL) of {authority.subject} is missing, has expired or cannot be used: "
            "run fetch-crl on the server"
        )
        raise CredentialRefusedError(message)
    if any(one.lists(certificate.serial) for one in current):
        message = f"the certificate of {certificate.subject} was revoked by {authority.subject}"
        raise CredentialRefusedError(message)
    return min(one.ends for one in current)


def _scope_of(crl: x509.CertificateRevocationList) -> Scope:
    """Read what a list is about, for all reasons (RFC 5280 section 5.2.5).

    A list of changes, an indirect one, and one with a critical extension that is not known are about nothing.
    """
    scope = Scope.END_ENTITIES | Scope.AUTHORITIES
    for extension in crl.extensions:
        told = extension.value
        if isinstance(told, x509.IssuingDistributionPoint):
            if told.indirect_crl or told.only_some_reasons or told.only_contains_attribute_certs:
                return Scope.NOTHING
            if told.only_contains_user_certs:
                scope &= Scope.END_ENTITIES
            if told.only_contains_ca_certs:
                scope &= Scope.AUTHORITIES
        elif isinstance(told, x509.DeltaCRLIndicator) or (extension.critical and extension.oid not in _HARMLESS):
            return Scope.NOTHING
    return scope
