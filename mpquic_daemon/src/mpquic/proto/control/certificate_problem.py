"""What is wrong with a certificate, for the person who must mend it: which file or host, which date, what to do.

Nothing is decided here. Path validation or the peer has refused the certificate:
its reasons are terse, or kept from us.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID

from mpquic.proto.control.identity import Credentials, IdentityError
from mpquic.proto.control.printable import printable
from mpquic.proto.control.validity import Validity, shown

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Collection, Sequence

MAX_NAME = 100
"""Characters of a name from a certificate that are told."""
RENEW = "run site.yml for this host"
_UNREADABLE = (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)


def of_own(
    certificates: bytes,
    key: bytes,
    ca: bytes,
    revoked: Collection[int],
    now: dt.datetime,
    *,
    names: tuple[str, str, str],
) -> str | None:
    """Say what is wrong with a client's own certificate, given its PEM files; None if nothing is.

    `revoked` are the serial numbers of its own list, `names` what certificate, key and CA file are called.
    """
    certificate_name, key_name, ca_name = names
    try:
        chain = x509.load_pem_x509_certificates(certificates)
        authorities = x509.load_pem_x509_certificates(ca)
    except ValueError:
        return f"{certificate_name} or {ca_name} holds no usable certificate: {RENEW}"
    leaf = chain[0]
    whose = f"this machine's certificate {certificate_name}"
    problem = Validity.of(leaf).problem(whose, now)
    if problem is not None:
        return problem
    try:
        Credentials.from_pem(certificates, key)
    except IdentityError as error:
        return f"{certificate_name} and {key_name} can't be used together, {error}: {RENEW}"
    for authority in authorities:
        problem = Validity.of(authority).problem(f"the certificate of the CA {ca_name}", now)
        if problem is not None:
            return problem
    if not _is_issued(chain, authorities):
        return f"{whose} is of another CA ({_issuer(leaf)}) than {ca_name}: {RENEW}"
    if leaf.serial_number in revoked:
        return (
            f"{whose}, serial {leaf.serial_number:x}, is on this machine's own list of revoked certificates: delete it "
            f"and {key_name}, then {RENEW}"
        )
    if not _is_for(leaf, ExtendedKeyUsageOID.CLIENT_AUTH) or _is_for(leaf, ExtendedKeyUsageOID.SERVER_AUTH):
        return f"{whose} isn't for clients (extended key usage): {RENEW}"
    return None


def nothing_own(certificates: bytes, name: str) -> str:
    """Say that nothing is wrong with a client's own certificate as far as it knows, and where the reason is told."""
    validity = Validity.of(x509.load_pem_x509_certificate(certificates))
    return (
        f"{name}, serial {validity.serial:x}, valid until {shown(validity.not_after)}, looks right from here: the "
        "journal of the VPS says why (revoked, another CA, its clock)"
    )


def of_server(
    certificate: x509.Certificate, chain: Sequence[x509.Certificate], ca: bytes, name: str, now: dt.datetime
) -> str | None:
    """Say what is wrong with the certificate of a server that should be `name`; None if nothing is."""
    whose = "the server's certificate"
    problem = Validity.of(certificate).problem(whose, now)
    if problem is not None:
        return problem
    authorities = x509.load_pem_x509_certificates(ca)
    for authority in authorities:
        problem = Validity.of(authority).problem("the certificate of the CA", now)
        if problem is not None:
            return problem
    if not _is_issued([certificate, *chain], authorities):
        return (
            f"{whose} is of another CA ({_issuer(certificate)}) than this machine's: the address leads to another "
            "server, or one end has an old CA (run site.yml for both)"
        )
    found = _names(certificate)
    if name.lower() not in found:
        shown_names = ", ".join(found) or "no host"
        return f"{whose} is for {_short(shown_names)}, and {name} was expected: run site.yml for both"
    if not _is_for(certificate, ExtendedKeyUsageOID.SERVER_AUTH):
        return f"{whose} isn't for servers (extended key usage): run site.yml for the VPS"
    return None


def _is_issued(chain: Sequence[x509.Certificate], authorities: Sequence[x509.Certificate]) -> bool:
    """Whether any certificate of a chain was signed by one of the authorities."""
    return any(_has_signed(authority, certificate) for certificate in chain for authority in authorities)


def _has_signed(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _is_for(certificate: x509.Certificate, purpose: x509.ObjectIdentifier) -> bool:
    try:
        return purpose in set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except (x509.ExtensionNotFound, *_UNREADABLE):
        return False


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, *_UNREADABLE):
        return []
    names = [each.lower() for each in found.get_values_for_type(x509.DNSName)]
    addresses = found.get_values_for_type(x509.IPAddress)
    return names + [str(each) for each in addresses if isinstance(each, ipaddress.IPv4Address | ipaddress.IPv6Address)]


def _issuer(certificate: x509.Certificate) -> str:
    try:
        return _short(certificate.issuer.rfc4514_string()) or "without a name"
    except ValueError:
        return "an unreadable name"


def _short(text: str) -> str:
    clean = printable(text)
    return clean if len(clean) <= MAX_NAME else f"{clean[: MAX_NAME - 3]}..."
