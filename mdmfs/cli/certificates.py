"""Certificates of destruction: asked of the keystores by way of the hospital's daemon, checked, and put for people."""

from __future__ import annotations

import base64
import ssl
from typing import Any

from asn1crypto import x509

from mdmfs.cli.hospital import ask, asking
from mdmfs.hospital.configuration import HospitalConfiguration
from mdmfs.model.errors import IntegrityError, MdmfsError
from mdmfs.model.identity import Dn
from mdmfs.pki.dn import dn_of
from mdmfs.pki.signature import refuse_other_signature
from mdmfs.wire.messages.key_tasks import KEYS_CERTIFY_PATH, AskCertificates, Certificate, Certificates

CERTIFYING_SECONDS = 60.0


async def gather_certificates(configuration: HospitalConfiguration) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Give what keystores certify of what the latest task destroyed, and of those that do not, why."""
    expected = {peer.name: Dn.parse(peer.dn) for peer in configuration.keystores}
    found: list[dict[str, Any]] = []
    silent: dict[str, str] = {}
    after = 0
    async with asking(configuration) as client:
        while True:
            page = await ask(client, KEYS_CERTIFY_PATH, AskCertificates(after), Certificates, CERTIFYING_SECONDS)
            if not page.count:
                return found, silent
            after += page.count
            silent |= page.silent
            for name, certificate in page.certificates.items():
                try:
                    found.append(_told(name, certificate, expected[name]))
                except MdmfsError as error:
                    silent[name] = str(error)


def _told(name: str, certificate: Certificate, expected: Dn) -> dict[str, Any]:
    """Put a certificate so that ``openssl dgst`` can check it; raises ``IntegrityError`` for one that is not whose."""
    refuse_other_signature(
        certificate.chain[0] if certificate.chain else b"", certificate.document, certificate.signature
    )
    if dn_of(x509.Certificate.load(certificate.chain[0]).subject) != expected:
        message = "its certificate is signed by somebody else"
        raise IntegrityError(message)
    return {
        "keystore": name,
        "document": certificate.document.decode(),
        "signature": base64.b64encode(certificate.signature).decode(),
        "chain": [ssl.DER_cert_to_PEM_cert(der) for der in certificate.chain],
    }
