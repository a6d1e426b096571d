from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from mpquic.proto.control.identity import (
    CONTEXT,
    ECDSA_P256_SHA256,
    ED25519,
    ChainVerifier,
    Credentials,
    IdentityError,
    Transcript,
    check_server_certificate,
    parse_revoked,
    sign,
    verify_proof,
)

from .pki import (
    ANY_USAGE,
    CA,
    CLIENT,
    CLIENT_AUTH,
    ED25519_CLIENT,
    FOREIGN_CA,
    NOW,
    SERVER,
    SERVER_AUTH,
    SITE1,
    issue,
    uri,
)

if TYPE_CHECKING:
    from . import pki

VERIFIER = ChainVerifier([CA.certificate])
TRANSCRIPT = Transcript(
    b"c" * 32, b"s" * 32, b"v" * 32, b"l" * 32, "mpq5", "wan5", b"b" * 16, 3, ("10.200.5.1/32", "fd00::1")
)
INTERMEDIATE = issue("Intermediate", CA, ca=True)


@pytest.mark.parametrize("client", [CLIENT, ED25519_CLIENT], ids=["ecdsa", "ed25519"])
def test_a_client_with_a_uri_alone_is_accepted_and_known_by_it(client: pki.Certified) -> None:
    identity = VERIFIER.verify([client.der], NOW)
    assert identity.uri == SITE1
    assert identity.serials == (client.certificate.serial_number, CA.certificate.serial_number)
    assert identity.not_after == client.certificate.not_valid_after_utc


def test_a_chain_ends_with_the_certificate_of_it_that_ends_first() -> None:
    issuer = issue("Intermediate", CA, ca=True, end=NOW + dt.timedelta(days=2))
    leaf = issue("site1", issuer, names=[uri(SITE1)], usages=[CLIENT_AUTH])
    identity = VERIFIER.verify([leaf.der, issuer.der], NOW)
    assert identity.not_after == NOW + dt.timedelta(days=2)
    assert ChainVerifier([CA.certificate], [issuer.certificate.serial_number]).is_revoked(identity.serials)


def test_an_intermediate_ca_is_accepted_when_it_comes_along() -> None:
    leaf = issue("site1", INTERMEDIATE, names=[uri(SITE1)], usages=[CLIENT_AUTH])
    assert VERIFIER.verify([leaf.der, INTERMEDIATE.der], NOW).uri == SITE1
    with pytest.raises(IdentityError, match="not verified"):
        VERIFIER.verify([leaf.der], NOW)


DAY = dt.timedelta(days=1)
FAKE_ISSUER = issue("site1", CA, names=[uri(SITE1)], usages=[CLIENT_AUTH])


@pytest.mark.parametrize(
    ("client", "reason"),
    [
        (issue("x", FOREIGN_CA, names=[uri(SITE1)], usages=[CLIENT_AUTH]), "not verified"),
        (issue("x", None, names=[uri(SITE1)], usages=[CLIENT_AUTH]), "not verified"),
        (issue("x", CA, names=[uri(SITE1)], usages=[CLIENT_AUTH], start=NOW - 9 * DAY, end=NOW - DAY), "not verified"),
        (issue("x", CA, names=[uri(SITE1)], usages=[CLIENT_AUTH], start=NOW + DAY), "not verified"),
        (SERVER, "not verified"),
        (issue("x", CA, names=[uri(SITE1)], usages=[SERVER_AUTH]), "not verified"),
        (issue("x", CA, names=[uri(SITE1)]), "no extended key usage"),
        (issue("x", CA, names=[uri(SITE1)], usages=[CLIENT_AUTH, SERVER_AUTH]), "for servers too"),
        (issue("x", CA, names=[uri(SITE1)], usages=[CLIENT_AUTH, ANY_USAGE]), "for servers too"),
        (issue("x", CA, usages=[CLIENT_AUTH]), "missing required extension"),
        (issue("x", CA, names=[uri(SITE1), uri("urn:mpquic:site:site2")], usages=[CLIENT_AUTH]), "exactly one URI"),
        (issue("x", CA, names=[uri(SITE1), x509.DNSName("vps1.example.net")], usages=[CLIENT_AUTH]), "exactly one URI"),
        (
            issue("x", CA, names=[x509.IPAddress(ipaddress.ip_address("203.0.113.10"))], usages=[CLIENT_AUTH]),
            "exactly one URI",
        ),
        (issue("x", CA, names=[uri(SITE1)], usages=[CLIENT_AUTH], ca=True), "not verified"),
        (issue("x", FAKE_ISSUER, names=[uri(SITE1)], usages=[CLIENT_AUTH]), "not verified"),
        (
            issue("x", CA, names=[uri(SITE1)], usages=[CLIENT_AUTH], key=ec.generate_private_key(ec.SECP384R1())),
            "P-256 or Ed25519",
        ),
        (
            issue("x", CA, names=[uri(SITE1)], usages=[CLIENT_AUTH], key=rsa.generate_private_key(65537, 2048)),
            "P-256 or Ed25519",
        ),
    ],
    ids=[
        "foreign-ca",
        "self-signed",
        "expired",
        "not-yet",
        "server",
        "server-usage",
        "no-usage",
        "both-usages",
        "any-usage",
        "no-name",
        "two-uris",
        "dns-too",
        "ip-only",
        "is-a-ca",
        "issued-by-a-client",
        "p384",
        "rsa",
    ],
)
def test_certificates_that_are_not_a_clients_are_refused(client: pki.Certified, reason: str) -> None:
    with pytest.raises(IdentityError, match=reason):
        VERIFIER.verify([client.der, FAKE_ISSUER.der], NOW)


@pytest.mark.parametrize("chain", [[], [b""], [b"no certificate"], [CLIENT.der[:-1]], [CLIENT.der] * 9])
def test_chains_that_are_no_chains_are_refused(chain: list[bytes]) -> None:
    with pytest.raises(IdentityError):
        VERIFIER.verify(chain, NOW)


SIGNED = CLIENT.certificate.tbs_certificate_bytes


@given(st.integers(0, len(SIGNED) - 1), st.integers(1, 255))
def test_a_changed_octet_anywhere_in_the_signed_part_is_refused(at: int, change: int) -> None:
    damaged = bytearray(CLIENT.der)
    damaged[CLIENT.der.index(SIGNED) + at] ^= change
    with pytest.raises(IdentityError):
        VERIFIER.verify([bytes(damaged)], NOW)


def test_a_revoked_serial_is_refused_in_the_leaf_and_in_the_chain() -> None:
    serial = CLIENT.certificate.serial_number
    text = f"# withdrawn\n{serial:X}  # site1\n\n0a:0b\n"
    verifier = ChainVerifier.from_pem(CA.pem, text)
    assert verifier.is_revoked([1, 0x0A0B])
    assert not verifier.is_revoked([1, 0x0A0C])
    with pytest.raises(IdentityError, match="revoked"):
        verifier.verify([CLIENT.der], NOW)
    leaf = issue("site1", INTERMEDIATE, names=[uri(SITE1)], usages=[CLIENT_AUTH])
    with pytest.raises(IdentityError, match="revoked"):
        ChainVerifier([CA.certificate], [INTERMEDIATE.certificate.serial_number]).verify(
            [leaf.der, INTERMEDIATE.der], NOW
        )


def test_a_bad_revocation_list_names_the_line() -> None:
    with pytest.raises(IdentityError, match="line 2: 'xyz'"):
        parse_revoked("0a\nxyz\n")


def test_bad_ca_files_are_named() -> None:
    with pytest.raises(IdentityError, match="CA file"):
        ChainVerifier.from_pem(b"nothing")
    with pytest.raises(IdentityError, match="no CA"):
        ChainVerifier([])


@pytest.mark.parametrize(("client", "algorithm"), [(CLIENT, ECDSA_P256_SHA256), (ED25519_CLIENT, ED25519)])
def test_a_proof_holds_for_its_key_and_transcript_only(client: pki.Certified, algorithm: str) -> None:
    used, signature = sign(client.credentials().key, TRANSCRIPT)
    assert used == algorithm
    verify_proof(client.certificate, used, signature, TRANSCRIPT)
    other = ED25519_CLIENT if client is CLIENT else CLIENT
    for leaf, name, value in [
        (client, used, signature[:-1] + bytes([signature[-1] ^ 1])),
        (client, used, b""),
        (client, ED25519 if used == ECDSA_P256_SHA256 else ECDSA_P256_SHA256, signature),
        (client, "none", signature),
        (other, used, signature),
    ]:
        with pytest.raises(IdentityError):
            verify_proof(leaf.certificate, name, value, TRANSCRIPT)


@pytest.mark.parametrize(
    "change",
    [
        {"client_nonce": b"x" * 32},
        {"server_nonce": b"x" * 32},
        {"server_certificate_sha256": b"x" * 32},
        {"client_certificate_sha256": b"x" * 32},
        {"tunnel": "mpq6"},
        {"path": "wan6"},
        {"boot_id": b"x" * 16},
        {"epoch": 4},
        {"inner": ("10.200.5.1/32",)},
        {"inner": ("10.200.5.1/32fd00::1",)},
        {"tunnel": "mpq5wan5", "path": ""},
    ],
    ids=str,
)
def test_every_field_of_the_transcript_is_signed(change: dict[str, object]) -> None:
    algorithm, signature = sign(CLIENT.credentials().key, TRANSCRIPT)
    with pytest.raises(IdentityError, match="does not fit"):
        verify_proof(CLIENT.certificate, algorithm, signature, replace(TRANSCRIPT, **change))  # type: ignore[arg-type]


def test_what_is_signed_begins_with_words_of_our_own() -> None:
    assert TRANSCRIPT.encode().startswith(CONTEXT)


def test_credentials_are_read_from_pem_and_must_belong_together() -> None:
    assert Credentials.from_pem(CLIENT.pem, CLIENT.key_pem).chain == (CLIENT.der,)
    assert Credentials.from_pem(ED25519_CLIENT.pem, ED25519_CLIENT.key_pem).leaf_sha256
    rsa_client = issue("x", CA, key=rsa.generate_private_key(65537, 2048))
    for certificate, key, reason in [
        (CLIENT.pem, SERVER.key_pem, "does not belong"),
        (b"", CLIENT.key_pem, "cannot read"),
        (CLIENT.pem, b"", "cannot read"),
        (rsa_client.pem, rsa_client.key_pem, "P-256 or Ed25519"),
    ]:
        with pytest.raises(IdentityError, match=reason):
            Credentials.from_pem(certificate, key)


def test_a_server_certificate_must_be_for_servers() -> None:
    check_server_certificate(SERVER.certificate)
    for other in (CLIENT, issue("x", CA, names=[x509.DNSName("vps1.example.net")])):
        with pytest.raises(IdentityError):
            check_server_certificate(other.certificate)


@given(st.binary(max_size=200), st.integers(0, 700))
def test_arbitrary_bytes_in_place_of_a_certificate_are_refused(junk: bytes, at: int) -> None:
    for der in (junk, CLIENT.der[:at] + junk):
        if der != CLIENT.der:
            with pytest.raises(IdentityError):
                VERIFIER.verify([der], NOW)
