"""Who the client is: certificate chain, proof that it holds the key, and the purposes that certificates are for.

The client proves itself inside the registration exchange, over a channel on which TLS has authenticated the server. Its
signature covers both nonces and the server's certificate, so it is worth nothing on another connection or to another
server. The verifier works offline: one CA file, and serial numbers that are revoked.
"""

from __future__ import annotations

import datetime as dt  # noqa: TC003 (mypyc loads the types of fields)
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from mpquic.proto.control.validity import Validity

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

# Own words in front, so that no signature made for TLS or anything else can be passed off as ours.
CONTEXT = b"mpquic registration proof v1\0"
ECDSA_P256_SHA256 = "ecdsa-p256-sha256"
ED25519 = "ed25519"
# Leaf, one intermediate, root: fleets have no more, and depth is work that anybody may ask for.
MAX_INTERMEDIATES = 2

# What `cryptography` raises for certificates that anybody may have made.
_UNREADABLE = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class IdentityError(Exception):
    """A certificate or proof that is not accepted. The text is for the log; the peer is told less."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A client whose chain was verified. `serials` are those of the whole chain, `not_after` is when it first ends."""

    uri: str
    serials: tuple[int, ...]
    not_after: dt.datetime
    leaf: x509.Certificate


@dataclass(frozen=True, slots=True)
class Transcript:
    """What the client signs. Hashes are SHA-256 of DER certificates."""

    client_nonce: bytes
    server_nonce: bytes
    server_certificate_sha256: bytes
    client_certificate_sha256: bytes
    tunnel: str
    path: str
    boot_id: bytes
    epoch: int
    inner: tuple[str, ...]

    def encode(self) -> bytes:
        """Return the bytes to be signed: the context, then every field with its length (32 bits) in front."""
        fields = [
            self.client_nonce,
            self.server_nonce,
            self.server_certificate_sha256,
            self.client_certificate_sha256,
            self.tunnel.encode(),
            self.path.encode(),
            self.boot_id,
            self.epoch.to_bytes(8, "big"),
            *(prefix.encode() for prefix in self.inner),
        ]
        return CONTEXT + b"".join(len(value).to_bytes(4, "big") + value for value in fields)


def certificate_sha256(der: bytes) -> bytes:
    """Return the SHA-256 of a DER certificate."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(der)
    return digest.finalize()


@dataclass(frozen=True, slots=True)
class Credentials:
    """A client's certificate chain (DER, leaf first, without the root) and the key of the leaf."""

    chain: tuple[bytes, ...]
    key: PrivateKey

    @classmethod
    def from_pem(cls, certificates: bytes, key: bytes) -> Credentials:
        """Read PEM files.

        Raises:
            IdentityError: unreadable, a key of another kind than P-256 or Ed25519, or one that is not the leaf's.
        """
        try:
            chain = x509.load_pem_x509_certificates(certificates)
            private = serialization.load_pem_private_key(key, None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise IdentityError(f"cannot read certificate or key: {error}") from error
        if not isinstance(private, (ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey)):
            raise IdentityError("the key must be ECDSA P-256 or Ed25519")
        algorithm_of(private.public_key())
        if private.public_key() != chain[0].public_key():
            raise IdentityError("the key does not belong to the first certificate")
        return cls(tuple(cert.public_bytes(serialization.Encoding.DER) for cert in chain), private)

    @property
    def leaf_sha256(self) -> bytes:
        """SHA-256 of the leaf certificate."""
        return certificate_sha256(self.chain[0])


def algorithm_of(public_key: object) -> str:
    """Return the name of the signature algorithm that goes with a key.

    Raises:
        IdentityError: it is neither P-256 nor Ed25519.
    """
    if isinstance(public_key, ed25519.Ed25519PublicKey):
        return ED25519
    if isinstance(public_key, ec.EllipticCurvePublicKey) and isinstance(public_key.curve, ec.SECP256R1):
        return ECDSA_P256_SHA256
    raise IdentityError("the key must be ECDSA P-256 or Ed25519")


def sign(key: PrivateKey, transcript: Transcript) -> tuple[str, bytes]:
    """Return (algorithm, signature) over the transcript."""
    algorithm = algorithm_of(key.public_key())
    message = transcript.encode()
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return algorithm, key.sign(message)
    return algorithm, key.sign(message, ec.ECDSA(hashes.SHA256()))


def verify_proof(leaf: x509.Certificate, algorithm: str, signature: bytes, transcript: Transcript) -> None:
    """Check that the holder of the leaf's key signed this transcript.

    Raises:
        IdentityError: it did not, or the algorithm is not that of the key.
    """
    public = leaf.public_key()
    if algorithm != algorithm_of(public):
        raise IdentityError(f"signature algorithm {algorithm!r} does not fit the key")
    try:
        if isinstance(public, ed25519.Ed25519PublicKey):
            public.verify(signature, transcript.encode())
        elif isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(signature, transcript.encode(), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise IdentityError("the signature does not fit the certificate and this connection") from error


class ChainVerifier:
    """Verifies client chains against one private CA (RFC 5280 path validation by `cryptography`).

    The CA's key must be ECDSA or RSA: the path validation accepts Ed25519 for leaves only.
    """

    def __init__(self, ca: Sequence[x509.Certificate], revoked: Collection[int] = ()) -> None:
        if not ca:
            raise IdentityError("no CA certificate")
        self._store = verification.Store(list(ca))
        self._authorities = [Validity.of(certificate) for certificate in ca]
        self._revoked = frozenset(revoked)

    @classmethod
    def from_pem(cls, ca: bytes, revoked: str = "") -> ChainVerifier:
        """Read the CA file (PEM) and the text of the revocation list (see `parse_revoked`).

        Raises:
            IdentityError: one of them is unreadable.
        """
        try:
            certificates = x509.load_pem_x509_certificates(ca)
        except ValueError as error:
            raise IdentityError(f"cannot read the CA file: {error}") from error
        return cls(certificates, parse_revoked(revoked))

    def is_revoked(self, serials: Collection[int]) -> bool:
        """True when one of these serial numbers is on the revocation list."""
        return not self._revoked.isdisjoint(serials)

    def verify(self, chain: Sequence[bytes], time: dt.datetime) -> Identity:
        """Verify a chain (DER, leaf first) at `time` (aware, UTC) and return the client's identity.

        Raises:
            IdentityError: it is unreadable, expired, foreign, revoked, for another purpose, or names no single URI.
        """
        if not 1 <= len(chain) <= 1 + MAX_INTERMEDIATES:
            raise IdentityError("no certificate" if not chain else "the chain is too long")
        try:
            certificates = [x509.load_der_x509_certificate(der) for der in chain]
            leaf = certificates[0]
            verifier = (
                verification.PolicyBuilder()
                .store(self._store)
                .time(time)
                .max_chain_depth(MAX_INTERMEDIATES)
                .build_client_verifier()
            )
            verified = verifier.verify(leaf, certificates[1:])
            uri = _client_uri(leaf)
        except verification.VerificationError as error:
            raise IdentityError(f"chain not verified: {self._date_problem(certificates, time) or error}") from error
        except _UNREADABLE as error:
            raise IdentityError(f"unreadable certificate: {error}") from error
        for certificate in verified.chain:
            if certificate.serial_number in self._revoked:
                raise IdentityError(f"certificate {certificate.serial_number:x} is revoked")
        algorithm_of(leaf.public_key())
        serials = tuple(certificate.serial_number for certificate in verified.chain)
        not_after = min(certificate.not_valid_after_utc for certificate in verified.chain)
        return Identity(uri, serials, not_after, leaf)

    def owner(self, chain: Sequence[bytes]) -> str | None:
        """Return whose certificate it is by the word of our CA, dates and revocation left aside; None if nobody's."""
        if not 1 <= len(chain) <= 1 + MAX_INTERMEDIATES:
            return None
        try:
            certificates = [x509.load_der_x509_certificate(der) for der in chain]
            validities = [Validity.of(certificate) for certificate in certificates] + self._authorities
            # Any time at which all of them count.
            time = max(validity.not_before for validity in validities)
            verifier = (
                verification.PolicyBuilder()
                .store(self._store)
                .time(time)
                .max_chain_depth(MAX_INTERMEDIATES)
                .build_client_verifier()
            )
            verifier.verify(certificates[0], certificates[1:])
            return _client_uri(certificates[0])
        except (verification.VerificationError, IdentityError, *_UNREADABLE):
            return None

    def _date_problem(self, certificates: Sequence[x509.Certificate], time: dt.datetime) -> str | None:
        """Say whether dates are what is wrong: of all causes the one that a clock makes, and that ends by itself."""
        dates = [("the client's certificate", Validity.of(certificate)) for certificate in certificates]
        dates += [("the certificate of the CA", validity) for validity in self._authorities]
        problems = (validity.problem(whose, time) for whose, validity in dates)
        return next((problem for problem in problems if problem is not None), None)


def parse_revoked(text: str) -> frozenset[int]:
    """Parse a revocation list: one serial number in hexadecimal a line (colons allowed), # begins a comment.

    Raises:
        IdentityError: a line is no serial number.
    """
    serials = set()
    for number, line in enumerate(text.splitlines(), 1):
        word = line.partition("#")[0].strip().replace(":", "")
        if not word:
            continue
        try:
            serials.add(int(word, 16))
        except ValueError:
            raise IdentityError(f"revocation list, line {number}: {word!r} is no hexadecimal serial number") from None
    return frozenset(serials)


def check_server_certificate(certificate: x509.Certificate) -> None:
    """Check that a certificate, whose chain and name TLS has verified, was issued for servers.

    Raises:
        IdentityError: its extended key usage lacks serverAuth, so a client's certificate poses as a server.
    """
    if ExtendedKeyUsageOID.SERVER_AUTH not in _purposes(certificate):
        raise IdentityError("the peer's certificate is not for servers (extended key usage lacks serverAuth)")


def _purposes(certificate: x509.Certificate) -> set[x509.ObjectIdentifier]:
    try:
        return set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        raise IdentityError("the certificate has no extended key usage") from None
    except _UNREADABLE as error:
        raise IdentityError(f"unreadable certificate: {error}") from error


def claimed_uri(der: bytes) -> str | None:
    """Return the URI in a certificate that proves nothing, as its owner wrote it; None where there is none."""
    try:
        return _client_uri(x509.load_der_x509_certificate(der))
    except (IdentityError, *_UNREADABLE):
        return None


def _client_uri(leaf: x509.Certificate) -> str:
    """Return the one URI of a certificate that is for clients and for nothing that a server is known by."""
    purposes = _purposes(leaf)
    if ExtendedKeyUsageOID.CLIENT_AUTH not in purposes:
        raise IdentityError("the certificate is not for clients (extended key usage lacks clientAuth)")
    if purposes & {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}:
        raise IdentityError("the certificate is for servers too; a client's must be for clients only")
    try:
        names = list(leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        raise IdentityError("the certificate has no subject alternative name") from None
    if len(names) != 1 or not isinstance(names[0], x509.UniformResourceIdentifier):
        raise IdentityError("the subject alternative name must be exactly one URI")
    return names[0].value
