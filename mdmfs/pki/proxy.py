"""The principal behind a chain of certificates: the RFC 3820 rules that OpenSSL leaves to the application.

OpenSSL has verified signatures, validity, path length and trust before a chain comes here; it does not judge a proxy's
policy. What it does check is checked here again where that costs nothing: a chain is read as if nobody had.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final, NoReturn

from asn1crypto import core

from mdmfs.model.errors import CredentialRefusedError
from mdmfs.model.identity import Principal
from mdmfs.pki.certificate import PROXY_CERT_INFO, UNREADABLE, Certificate

INHERIT_ALL: Final = "1.3.6.1.5.5.7.21.1"
LIMITED: Final = "1.3.6.1.4.1.3536.1.1.1.9"
_DRAFT_PROXY_CERT_INFO: Final = "1.3.6.1.4.1.3536.1.222"
_ALTERNATIVE_NAMES: Final = {"2.5.29.17", "2.5.29.18"}
MAX_CHAIN: Final = 32


class ProxyPolicy(core.Sequence):  # type: ignore[misc] # asn1crypto has no types
    """RFC 3820 section 3.8."""

    _fields = [  # noqa: RUF012 asn1crypto's way to declare
        ("policy_language", core.ObjectIdentifier),
        ("policy", core.OctetString, {"optional": True}),
    ]


class ProxyCertInfo(core.Sequence):  # type: ignore[misc] # asn1crypto has no types
    """RFC 3820 section 3.8."""

    _fields = [  # noqa: RUF012 asn1crypto's way to declare
        ("path_length", core.Integer, {"optional": True}),
        ("proxy_policy", ProxyPolicy),
    ]


@dataclasses.dataclass(frozen=True, slots=True)
class ProvenChain:
    """A chain whose proxies, if there are any, simply act for its end entity."""

    certificates: tuple[Certificate, ...]
    """Leaf first, root last."""
    place: int
    """Of the end entity: so many proxies come before it."""

    @property
    def end_entity(self) -> Certificate:
        """The first certificate that is no proxy: the principal's."""
        return self.certificates[self.place]

    @property
    def ends(self) -> float:
        """When the first certificate of the chain ends, in seconds since the epoch."""
        return min(one.ends for one in self.certificates)


def principal_of(chain: Sequence[bytes]) -> Principal:
    """Give the principal of a verified chain, as ``prove`` finds it, without any FQAN.

    FQANs need a ``vomsdir`` and the CAs: ``mdmfs.pki.judge`` adds them.
    """
    proven = prove(chain)
    return Principal(proven.end_entity.subject, (), proven.ends)


def prove(chain: Sequence[bytes]) -> ProvenChain:
    """Find the end entity of a verified chain (DER, leaf first, with the CAs up to the root).

    The principal is the end entity: the first certificate that is no proxy. Raises ``CredentialRefusedError`` for
    proxies that do not simply act as their owner (independent, unknown and restricted policies), that are not of
    RFC 3820 (GT2, draft), or that are longer than an issuer allowed, and for a CA's own certificate.
    """
    try:
        return _prove(chain)
    except UNREADABLE as error:
        message = "a certificate of the chain cannot be read, or a name in it is not plain text"
        raise CredentialRefusedError(message) from error


def _prove(chain: Sequence[bytes]) -> ProvenChain:
    if not 2 <= len(chain) <= MAX_CHAIN:  # noqa: PLR2004 an end entity and a CA
        _refuse(f"a chain has 2 to {MAX_CHAIN} certificates up to the root, not {len(chain)}")
    certificates = tuple(Certificate(der) for der in chain)
    if any(_DRAFT_PROXY_CERT_INFO in one.extensions for one in certificates):
        _refuse("a proxy of the draft before RFC 3820 is not accepted: make an RFC 3820 proxy")
    end_entity = next((place for place, one in enumerate(certificates) if not one.is_proxy), len(chain))
    if end_entity + 1 >= len(chain):
        _refuse("the chain has no end entity below a CA")
    for place in range(end_entity):
        _refuse_bad_proxy(certificates[place], certificates[place + 1], below=place)
    _refuse_bad_end_entity(certificates[end_entity], certificates[end_entity + 1 :])
    return ProvenChain(certificates, end_entity)


def _refuse_bad_proxy(proxy: Certificate, issuer: Certificate, below: int) -> None:
    """Check one proxy, ``below`` being how many proxies of the chain hang on it (RFC 3820 sections 3.1 to 3.8)."""
    extension = proxy.extensions[PROXY_CERT_INFO]
    told = ProxyCertInfo.load(extension["extn_value"].contents, strict=True)
    limit, policy = told["path_length"].native, told["proxy_policy"]
    if not extension["critical"].native:
        _refuse("the ProxyCertInfo of a proxy is not critical (RFC 3820 section 3.8)")
    if policy["policy_language"].dotted not in {INHERIT_ALL, LIMITED}:
        _refuse("a proxy has a policy other than to inherit all rights, or to be limited")
    if policy["policy"].native is not None:
        _refuse("a proxy restricts what it may do in words that are not known here")
    if limit is not None and below > limit:
        _refuse("the chain of proxies is longer than one of them allows")
    if proxy.is_ca or _ALTERNATIVE_NAMES & proxy.extensions.keys():
        _refuse("a proxy claims to be a CA, or to have another name (RFC 3820 sections 3.2, 3.5 and 3.7)")
    if proxy.issuer != issuer.subject or issuer.is_ca or not issuer.may("digital_signature"):
        _refuse("a proxy was not issued by the certificate above it, or that one may not issue proxies")
    *above, last = proxy.subject.rdns
    if tuple(above) != issuer.subject.rdns or [kind for kind, _ in last] != ["CN"]:
        _refuse("the subject of a proxy is not its issuer's with one CN more (RFC 3820 section 3.4)")


def _refuse_bad_end_entity(end_entity: Certificate, authorities: Sequence[Certificate]) -> None:
    if end_entity.is_ca:
        _refuse("a CA's own certificate is no credential here")
    above = end_entity
    for authority in authorities:
        is_root = authority.issuer == authority.subject
        if above.issuer != authority.subject or authority.is_proxy or not (authority.is_ca or is_root):
            _refuse("a certificate of the chain was not issued by a CA: a GT2 proxy, perhaps; make an RFC 3820 proxy")
        above = authority


def _refuse(message: str) -> NoReturn:
    raise CredentialRefusedError(message)
