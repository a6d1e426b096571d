"""What a client holds against the certificate of a server."""

import datetime as dt

from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicErrorCode
from cryptography import x509

from mpquic.proto.control import certificate_problem
from mpquic.proto.control.identity import IdentityError, check_server_certificate
from mpquic.quic import aioquic_internals as internals

CERTIFICATE_ALERTS = range(QuicErrorCode.CRYPTO_ERROR + 42, QuicErrorCode.CRYPTO_ERROR + 49)
"""Error codes of an end that has refused its peer's certificate (RFC 8446 section 6, RFC 9001 section 4.8)."""


def refusal(certificate: x509.Certificate | None) -> str:
    """Why a certificate doesn't make its owner a server; empty when it does. aioquic ignores the extended key usage."""
    if certificate is None:
        return "the server showed no certificate"
    try:
        check_server_certificate(certificate)
    except IdentityError as error:
        return str(error)
    return ""


def problem(connection: QuicConnection, now: dt.datetime) -> str | None:
    """Say what is wrong with the certificate for which this end has refused the server: TLS says little of it."""
    certificate = internals.peer_certificate(connection)
    configuration = connection.configuration
    if certificate is None or configuration.cadata is None:
        return None
    chain = internals.peer_chain(connection)
    return certificate_problem.of_server(certificate, chain, configuration.cadata, configuration.server_name or "", now)
