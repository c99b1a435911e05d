"""The CAs of a CA directory or bundle as they were at one moment, and what they allow to be believed.

OpenSSL verifies signatures, times and constraints in the handshake. What it does not judge, or only bluntly, is judged
here on the chain it verified: the signing policy of each CA on each name below it, and each CA's revocation list.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NoReturn, Self, TypeVar

from asn1crypto import pem

from mdmfs.model.errors import ConfigurationError, CredentialRefusedError, MdmfsError
from mdmfs.model.identity import Dn
from mdmfs.pki.certificate import BASIC_CONSTRAINTS, KEY_USAGE, UNREADABLE, Certificate
from mdmfs.pki.revocation import RevocationList, refuse_revoked
from mdmfs.pki.signing_policy import SigningPolicy
from mdmfs.pki.trust import Crls, TrustAnchors, unreadable_anchors

T = TypeVar("T")

log = logging.getLogger(__name__)

MAX_FILE_BYTES: Final = 64 * 2**20
MAX_PATH: Final = 8
NEVER: Final = float("inf")
_CRITICAL: Final = {BASIC_CONSTRAINTS, KEY_USAGE, "2.5.29.37", "2.5.29.17", "2.5.29.32"}
"""Extensions that may be critical above an attribute certificate: with extended usage, other names and policies."""


class Authorities:
    """CAs with their signing policies and revocation lists; nothing in it changes."""

    def __init__(self, path: Path, crls: Crls) -> None:
        """Begin with no CA: ``read`` fills it."""
        self._path = path
        self._crls = crls
        self._has_policies = path.is_dir()
        self._roots: set[bytes] = set()
        self._by_subject: dict[Dn, list[Certificate]] = {}
        self._policies: dict[Dn, list[SigningPolicy | None]] = {}
        self._lists: dict[Dn, list[RevocationList]] = {}

    @classmethod
    def read(cls, anchors: TrustAnchors) -> Self:
        """Read a bundle, or a directory with its policies and lists; raises ``ConfigurationError``.

        A CA whose certificate, policy or list cannot be read is logged and believed in nothing; the others count.
        """
        self = cls(anchors.path, anchors.crls)
        try:
            if self._has_policies:
                self._read_directory(sorted(anchors.hash_named()))
            else:
                for certificate in _certificates(_octets(anchors.path)):
                    self._add(certificate)
        except (OSError, CredentialRefusedError, *UNREADABLE) as error:
            raise unreadable_anchors(anchors.path, error) from error
        return self

    def refuse_none(self) -> None:
        """Raise ``ConfigurationError`` where there is no root: a mistake to begin with, and later what was meant."""
        if not self._roots:
            message = f"no root CA is among the certificates under {self._path}: nobody could be believed"
            raise ConfigurationError(message)

    def vet(self, chain: Sequence[Certificate], now: float) -> float:
        """Judge what OpenSSL does not of a verified chain without its proxies: end entity first, root last.

        Every CA must allow the name below it by its signing policy (in a directory; a bundle has none), and must not
        have revoked the certificate. Gives the time until which this holds. Raises ``CredentialRefusedError``.
        """
        if chain[-1].der not in self._roots:
            message = f"the CA {chain[-1].subject} is not, or no longer, among those trusted here"
            raise CredentialRefusedError(message)
        holds_until = NEVER
        for below, authority in itertools.pairwise(chain):
            self._refuse_outside(authority, below)
            holds_until = min(holds_until, self._refuse_revoked(authority, below, now))
        return holds_until

    def path_of(self, given: Sequence[Certificate], now: float) -> list[Certificate]:
        """Verify a certificate outside a handshake: ``given`` are it and the CAs that came with it, in order.

        Gives the path to a root of ours. What ``vet`` checks is not checked. Raises ``CredentialRefusedError``.
        """
        path = self._complete(list(given), now)
        for above, certificate in enumerate(path):
            if not certificate.begins <= now < certificate.ends:
                _refuse(f"the certificate of {certificate.subject} is not valid now")
            if certificate.critical - _CRITICAL:
                _refuse(f"the certificate of {certificate.subject} has a critical extension that is not known here")
            if above:
                _refuse_bad_authority(certificate, [one for one in path[1:above] if not one.is_self_issued])
        return path

    def _complete(self, path: list[Certificate], now: float) -> list[Certificate]:
        for below, authority in itertools.pairwise(path):
            if not authority.issued(below):
                _refuse(f"the certificate of {below.subject} was not signed by the one that came with it")
        while path[-1].der not in self._roots:
            found = self._issuer_of(path[-1], now)
            if found is None or len(path) >= MAX_PATH:
                _refuse(f"the certificate of {path[0].subject} leads to no CA that is trusted here")
            path.append(found)
        return path

    def _issuer_of(self, certificate: Certificate, now: float) -> Certificate | None:
        """Find who signed it, a root first: a CA may have several certificates, old ones and ones by other CAs."""
        named = self._by_subject.get(certificate.issuer, [])
        valid = [one for one in named if one.begins <= now < one.ends]
        return next((one for one in sorted(valid, key=self._is_no_root) if one.issued(certificate)), None)

    def _is_no_root(self, certificate: Certificate) -> bool:
        return certificate.der not in self._roots

    def _refuse_outside(self, authority: Certificate, below: Certificate) -> None:
        if not self._has_policies:
            return
        policies = self._policies.get(authority.subject, [])
        if not policies or None in policies:
            _refuse(f"the CA {authority.subject} has no signing policy that can be read")
        if not all(policy.allows(authority.subject, below.subject) for policy in policies if policy):
            _refuse(f"the signing policy of {authority.subject} does not allow it to sign for {below.subject}")

    def _refuse_revoked(self, authority: Certificate, below: Certificate, now: float) -> float:
        lists = self._lists.get(authority.subject)
        if lists is None and self._crls is Crls.IF_PRESENT:
            return NEVER
        return refuse_revoked(lists or [], authority, below, now)

    def _read_directory(self, files: Sequence[Path]) -> None:
        names: dict[str, set[Dn]] = {}
        for file in files:
            if file.suffix[1:].isdigit():
                for certificate in _read(file, lambda octets: list(_certificates(octets))) or ():
                    self._add(certificate)
                    names.setdefault(file.stem, set()).add(certificate.subject)
        for file in files:
            if file.suffix == ".signing_policy":
                policy = _read(file, lambda octets: SigningPolicy.parse(octets.decode()))
                for name in names.get(file.stem, ()):
                    self._policies.setdefault(name, []).append(policy)
            elif not file.suffix[1:].isdigit():
                self._add_list(_read(file, RevocationList.parse), names.get(file.stem, set()))

    def _add(self, certificate: Certificate) -> None:
        same = self._by_subject.setdefault(certificate.subject, [])
        if all(one.der != certificate.der for one in same):
            same.append(certificate)
        if certificate.is_self_issued:
            self._roots.add(certificate.der)

    def _add_list(self, crl: RevocationList | None, names: set[Dn]) -> None:
        """File a list under its issuer; one that is unreadable or another's stands for an expired one of its hash."""
        is_own = crl is not None and crl.issuer in names
        for name in names:
            if crl is not None and crl.issuer == name:
                self._lists.setdefault(name, []).append(crl)
            elif not is_own:
                self._lists.setdefault(name, [])


def _refuse_bad_authority(authority: Certificate, below: Sequence[Certificate]) -> None:
    if not authority.is_ca or authority.is_proxy or not authority.may("key_cert_sign"):
        _refuse(f"{authority.subject} is no CA")
    if authority.path_length is not None and len(below) > authority.path_length:
        _refuse(f"the path below {authority.subject} is longer than it allows")


def _read(file: Path, parse: Callable[[bytes], T]) -> T | None:
    try:
        return parse(_octets(file))
    except (OSError, MdmfsError, *UNREADABLE) as error:
        log.warning("the file %s of the CA directory cannot be used: %s", file, error)
        return None


def _octets(file: Path) -> bytes:
    if file.stat().st_size > MAX_FILE_BYTES:
        message = f"the file is larger than {MAX_FILE_BYTES} bytes"
        raise ValueError(message)
    return file.read_bytes()


def _certificates(octets: bytes) -> Iterator[Certificate]:
    for kind, _, der in pem.unarmor(octets, multiple=True):
        if kind in {"CERTIFICATE", "X509 CERTIFICATE"}:
            yield Certificate(der)


def _refuse(message: str) -> NoReturn:
    raise CredentialRefusedError(message)
