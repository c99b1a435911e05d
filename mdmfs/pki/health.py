"""How long certificates, CAs and revocation lists still count: what to renew before it is too late."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from asn1crypto import pem

from mdmfs.model.errors import ConfigurationError, MdmfsError
from mdmfs.model.finding import Finding, Severity
from mdmfs.pki.certificate import UNREADABLE, Certificate
from mdmfs.pki.revocation import RevocationList
from mdmfs.pki.tls import Credential
from mdmfs.pki.trust import Crls, TrustAnchors, unreadable_anchors

CERTIFICATE: Final = "certificate"
AUTHORITIES: Final = "authorities"
DAY: Final = 86_400.0
RENEW_CERTIFICATE: Final = 21 * DAY
"""So long before its end a certificate is told of."""
RENEW_PROXY: Final = 3600.0
"""And a proxy, which lasts half a day as it is made."""
RENEW_LIST: Final = DAY
"""And a revocation list: fetch-crl runs every few hours, and lists last a week or more."""


def examine_credential(subject: str, credential: Credential, now: float) -> list[Finding]:
    """Look at each certificate of a chain that we show; raises ``ConfigurationError`` where none can be read."""
    try:
        chain = list(certificates_of(credential.certificate_file))
    except OSError as error:
        message = f"{credential.certificate_file} cannot be read: {error.strerror}"
        raise ConfigurationError(message, what_to_do=credential.otherwise) from error
    except (MdmfsError, *UNREADABLE) as error:
        message = f"{credential.certificate_file} cannot be read as certificates in PEM"
        raise ConfigurationError(message) from error
    if not chain:
        message = f"{credential.certificate_file} holds no certificate"
        raise ConfigurationError(message)
    return [_judge_certificate(CERTIFICATE, subject, certificate, now) for certificate in chain]


def examine_authorities(subject: str, anchors: TrustAnchors, now: float) -> list[Finding]:
    """Look at the CAs that are trusted, and at their lists; those that are well are counted in one finding.

    Raises ``ConfigurationError`` where nothing can be read.
    """
    is_directory = anchors.path.is_dir()
    try:
        files = sorted(anchors.hash_named()) if is_directory else [anchors.path]
        found = [finding for file in files for finding in _examine_file(subject, anchors, file, now)]
    except OSError as error:
        raise unreadable_anchors(anchors.path, error) from error
    bad = [finding for finding in found if finding.severity is not Severity.OK]
    well = len(found) - len(bad)
    return bad + [Finding(AUTHORITIES, subject, Severity.OK, f"{well} certificates and lists are well")] * bool(well)


def certificates_of(file: Path) -> Iterator[Certificate]:
    """Read the certificates of a PEM file, in order; keys between them are passed over. Raises as ``Certificate``."""
    yield from certificates_in(file.read_bytes())


def certificates_in(octets: bytes) -> Iterator[Certificate]:
    """Read the certificates of a text in PEM, as ``certificates_of``."""
    for kind, _, der in pem.unarmor(octets, multiple=True):
        if kind in {"CERTIFICATE", "X509 CERTIFICATE"}:
            yield Certificate(der)


def _examine_file(subject: str, anchors: TrustAnchors, file: Path, now: float) -> Iterator[Finding]:
    suffix = file.suffix[1:]
    try:
        if suffix == "signing_policy":
            return
        if suffix.startswith("r") and suffix[1:].isdigit():
            yield _judge_list(subject, file, RevocationList.parse(file.read_bytes()), now)
            return
        for certificate in certificates_of(file):
            yield _judge_certificate(AUTHORITIES, subject, certificate, now)
    except (MdmfsError, *UNREADABLE):
        yield Finding(AUTHORITIES, subject, Severity.FAULT, f"{file} cannot be read: nobody below that CA is let in")
        return
    if suffix.isdigit() and anchors.crls is Crls.REQUIRE and not file.with_suffix(f".r{suffix}").exists():
        yield Finding(
            AUTHORITIES, subject, Severity.FAULT, f"{file} has no CRL and one is required: run fetch-crl here"
        )


def _judge_certificate(check: str, subject: str, certificate: Certificate, now: float) -> Finding:
    whose, anew, soon = f"the certificate of {certificate.subject}", "renew it", RENEW_CERTIFICATE
    if certificate.is_proxy:
        whose, anew, soon = f"the proxy {certificate.subject}", "make a new one", RENEW_PROXY
    if now < certificate.begins:
        return Finding(check, subject, Severity.FAULT, f"{whose} counts only from {_day(certificate.begins)} on")
    if now >= certificate.ends:
        return Finding(check, subject, Severity.FAULT, f"{whose} has expired on {_day(certificate.ends)}: {anew}")
    if certificate.ends - now < soon:
        return Finding(check, subject, Severity.WARNING, f"{whose} ends on {_day(certificate.ends)}: {anew} soon")
    return Finding(check, subject, Severity.OK, f"{whose} counts until {_day(certificate.ends)}")


def _judge_list(subject: str, file: Path, crl: RevocationList, now: float) -> Finding:
    if not crl.is_current(now):
        text = f"the CRL {file} of {crl.issuer} is not current: nobody below that CA is let in; run fetch-crl"
        return Finding(AUTHORITIES, subject, Severity.FAULT, text)
    if crl.ends - now < RENEW_LIST:
        text = f"the CRL {file} of {crl.issuer} ends on {_day(crl.ends)}: see that fetch-crl runs"
        return Finding(AUTHORITIES, subject, Severity.WARNING, text)
    return Finding(AUTHORITIES, subject, Severity.OK, f"the CRL of {crl.issuer} is current")


def _day(when: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(when))
