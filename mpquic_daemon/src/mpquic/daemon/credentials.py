"""The files of an instance's identity, read and checked before they are used."""

from __future__ import annotations

import ssl
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509

from mpquic import files
from mpquic.proto.control import certificate_problem
from mpquic.proto.control.identity import ChainVerifier, Credentials, IdentityError, parse_revoked
from mpquic.proto.control.validity import Validity

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator

    from mpquic.config import ClientTls, ServerTls


class CredentialsError(Exception):
    """A file can't be read or used; the text names the key of the configuration and the file."""


@dataclass(frozen=True, slots=True)
class Dates:
    """The dates of an instance's certificate, and of the certificate in its CA file that ends first."""

    own: Validity
    ca: Validity


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """What a client proves itself with, and the servers' certificates that it no longer accepts."""

    credentials: Credentials
    revoked: frozenset[int]
    ca_data: bytes
    """The certificates of the authority, PEM: read once, so that no attempt fails for want of the file."""
    dates: Dates


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """What a server checks clients with."""

    verifier: ChainVerifier
    dates: Dates


def load_client(tls: ClientTls) -> ClientIdentity:
    """Read the files of a client; CredentialsError."""
    ca_data = _read_ca(tls.ca_file)
    certificates, key = _read("tls.cert_file", tls.cert_file), _read("tls.key_file", tls.key_file)
    try:
        credentials = Credentials.from_pem(certificates, key)
    except IdentityError as error:
        raise CredentialsError(f"tls.cert_file {tls.cert_file}, tls.key_file {tls.key_file}: {error}") from error
    return ClientIdentity(
        credentials, _read_revoked(tls.revoked_file), ca_data, _dates(tls.cert_file, certificates, ca_data)
    )


def load_server(tls: ServerTls) -> ServerIdentity:
    """Read the files of a server; CredentialsError. The certificate and key themselves are read by the listener."""
    ca_data = _read_ca(tls.ca_file)
    certificates = _read("tls.cert_file", tls.cert_file)
    _read("tls.key_file", tls.key_file)
    with usable(tls):
        # OpenSSL's own check: that the key is the certificate's.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.cert_file, tls.key_file, password="")
    verifier = ChainVerifier(x509.load_pem_x509_certificates(ca_data), _read_revoked(tls.revoked_file))
    return ServerIdentity(verifier, _dates(tls.cert_file, certificates, ca_data))


def own_problem(tls: ClientTls, now: dt.datetime) -> str:
    """Say what a client's files tell about why a server doesn't accept its certificate, as they are now."""
    try:
        ca = _read_ca(tls.ca_file)
        certificates, key = _read("tls.cert_file", tls.cert_file), _read("tls.key_file", tls.key_file)
        revoked = _read_revoked(tls.revoked_file)
        names = tls.cert_file, tls.key_file, tls.ca_file
        problem = certificate_problem.of_own(certificates, key, ca, revoked, now, names=names)
        return problem or certificate_problem.nothing_own(certificates, tls.cert_file)
    except CredentialsError as error:
        return str(error)


@contextmanager
def usable(tls: ServerTls) -> Iterator[None]:
    """Turn what TLS says about certificate and key into CredentialsError: files may change after they were checked."""
    try:
        yield
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = f"they can't be used together: {error}"
        raise CredentialsError(f"tls.cert_file {tls.cert_file}, tls.key_file {tls.key_file}: {reason}") from error


def _dates(path: str, certificates: bytes, ca_data: bytes) -> Dates:
    try:
        own = Validity.of(x509.load_pem_x509_certificate(certificates))
    except ValueError as error:
        raise CredentialsError(f"tls.cert_file {path}: holds no usable PEM certificate") from error
    authorities = [Validity.of(certificate) for certificate in x509.load_pem_x509_certificates(ca_data)]
    return Dates(own, min(authorities, key=lambda validity: validity.not_after))


def _read_ca(path: str) -> bytes:
    data = _read("tls.ca_file", path)
    try:
        x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise CredentialsError(f"tls.ca_file {path}: holds no usable PEM certificate") from error
    return data


def _read_revoked(path: str | None) -> frozenset[int]:
    if path is None:
        return frozenset()
    text = _read("tls.revoked_file", path)
    try:
        return parse_revoked(text.decode())
    except (IdentityError, UnicodeDecodeError) as error:
        raise CredentialsError(f"tls.revoked_file {path}: {error}") from error


def _read(key: str, path: str) -> bytes:
    try:
        return files.read(path)
    except OSError as error:
        raise CredentialsError(f"{key} {path}: {error.strerror}; it must be readable by the daemon's user") from error
