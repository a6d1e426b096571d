"""What the controller signs for a host: its key, and the plan's word for everything else."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID as Purpose
from cryptography.x509.oid import NameOID
from host_certificate import (
    Authority,
    Issued,
    RefusedError,
    Wanted,
    certificate_for,
    extensions_of,
    keep_copy,
    read_authority,
    subject_of,
)

if TYPE_CHECKING:
    from pathlib import Path

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
SITE = Wanted("site1", ("URI:urn:mpquic:site:site1",), "clientAuth")
VPS = Wanted("vps1.example.net", ("DNS:vps1.example.net", "IP:203.0.113.10", "IP:2001:db8::10"), "serverAuth")


def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def new_authority(name: str = "mpquic CA", days: int = 7300) -> Authority:
    private = key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + days * DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
        .sign(private, hashes.SHA256())
    )
    return Authority(certificate, private)


AUTHORITY = new_authority()
HOST_KEY = key()


def request(
    wanted: Wanted = SITE,
    private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = HOST_KEY,
    *others: x509.ExtensionType,
    subject: x509.Name | None = None,
    without: tuple[type, ...] = (),
    password: bytes | None = None,
) -> str:
    """Return a CSR as the role asks for, with some extensions replaced, added or left out."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject or subject_of(wanted))
    replaced = {type(value) for value in others} | set(without)
    for value, critical in extensions_of(wanted):
        if type(value) not in replaced:
            builder = builder.add_extension(value, critical=critical)
    for value in others:
        builder = builder.add_extension(value, critical=False)
    if password is not None:
        builder = builder.add_attribute(x509.oid.AttributeOID.CHALLENGE_PASSWORD, password)
    return builder.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def issued(
    csr: str, present: str = "", wanted: Wanted = SITE, authority: Authority = AUTHORITY, now: dt.datetime = NOW
) -> Issued:
    return certificate_for(csr, present, wanted, authority, now, valid=825 * DAY, renew=60 * DAY)


@pytest.mark.parametrize("wanted", [SITE, VPS], ids=["a site", "a VPS"])
def test_a_certificate_says_what_the_plan_says_for_the_key_of_the_host(wanted: Wanted) -> None:
    certificate = issued(request(wanted), wanted=wanted).certificate
    certificate.verify_directly_issued_by(AUTHORITY.certificate)
    assert certificate.public_key() == HOST_KEY.public_key()
    assert certificate.subject.rfc4514_string() == f"CN={wanted.common_name}"
    found = {extension.oid: extension for extension in certificate.extensions}
    assert len(found) == 6
    for value, critical in extensions_of(wanted):
        assert found[value.oid].value == value
        assert found[value.oid].critical == critical
    extensions = certificate.extensions
    assert extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value == (
        x509.SubjectKeyIdentifier.from_public_key(HOST_KEY.public_key())
    )
    assert extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == (
        AUTHORITY.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    )
    assert certificate.not_valid_before_utc == NOW - DAY
    assert certificate.not_valid_after_utc == NOW + 825 * DAY


def test_a_request_that_names_a_key_and_nothing_else_is_signed() -> None:
    bare = request(SITE, HOST_KEY, without=tuple(type(value) for value, _ in extensions_of(SITE)))
    assert issued(bare).certificate.public_key() == HOST_KEY.public_key()


def test_the_order_of_names_in_a_request_does_not_matter() -> None:
    names = [
        x509.IPAddress(ipaddress.ip_address("2001:db8::10")),
        x509.DNSName("vps1.example.net"),
        x509.IPAddress(ipaddress.ip_address("203.0.113.10")),
    ]
    assert issued(request(VPS, HOST_KEY, x509.SubjectAlternativeName(names)), wanted=VPS).reason == "it has none"


@pytest.mark.parametrize(
    ("csr", "says"),
    [
        (request(SITE, HOST_KEY, x509.BasicConstraints(ca=True, path_length=None)), "basicConstraints CA:TRUE"),
        (
            request(
                SITE, HOST_KEY, x509.SubjectAlternativeName([x509.UniformResourceIdentifier("urn:mpquic:site:site2")])
            ),
            "urn:mpquic:site:site2",
        ),
        (
            request(
                SITE,
                HOST_KEY,
                x509.SubjectAlternativeName(
                    [x509.UniformResourceIdentifier("urn:mpquic:site:site1"), x509.DNSName("vps1.example.net")]
                ),
            ),
            "vps1.example.net",
        ),
        (request(SITE, HOST_KEY, x509.ExtendedKeyUsage([Purpose.SERVER_AUTH])), "extendedKeyUsage serverAuth"),
        (
            request(SITE, HOST_KEY, x509.ExtendedKeyUsage([Purpose.CLIENT_AUTH, Purpose.SERVER_AUTH])),
            "extendedKeyUsage clientAuth, serverAuth",
        ),
        (request(SITE, HOST_KEY, x509.ExtendedKeyUsage([Purpose.ANY_EXTENDED_KEY_USAGE])), "anyExtendedKeyUsage"),
        (
            request(SITE, HOST_KEY, x509.KeyUsage(True, False, False, False, False, True, True, False, False)),
            "key_cert_sign, crl_sign",
        ),
        (request(SITE, HOST_KEY, x509.NameConstraints([x509.DNSName("example.net")], None)), "the extension 2.5.29.30"),
        (request(SITE, HOST_KEY, x509.OCSPNoCheck()), "which no certificate here has"),
        (request(SITE, HOST_KEY, subject=subject_of(VPS)), "the subject 'CN=vps1.example.net'"),
        (request(SITE, HOST_KEY, password=b"x"), "attributes of another kind"),
        (request(SITE, rsa.generate_private_key(public_exponent=65537, key_size=2048)), "P-256"),
        (request(SITE, ec.generate_private_key(ec.SECP384R1())), "P-256"),
        ("no request at all", "can't be read"),
    ],
    ids=[
        "CA",
        "another site",
        "a server's name too",
        "serverAuth",
        "serverAuth too",
        "any usage",
        "signing certificates",
        "name constraints",
        "unknown extension",
        "another subject",
        "another attribute",
        "RSA",
        "P-384",
        "not a request",
    ],
)
def test_a_request_for_anything_else_is_refused(csr: str, says: str) -> None:
    with pytest.raises(RefusedError, match=says):
        issued(csr)


def test_a_request_is_refused_even_where_the_present_certificate_would_do() -> None:
    present = pem(issued(request()).certificate)
    with pytest.raises(RefusedError, match="CA:TRUE"):
        issued(request(SITE, HOST_KEY, x509.BasicConstraints(ca=True, path_length=None)), present)


def test_a_request_without_proof_of_the_key_is_refused() -> None:
    """The key of somebody else's request, with a signature by another one."""
    theirs = x509.load_pem_x509_csr(request().encode())
    ours = x509.load_pem_x509_csr(request(SITE, key()).encode())
    der = theirs.public_bytes(serialization.Encoding.DER)
    # Signatures vary in length by a byte or two; one of equal length keeps the outer lengths right.
    while len(ours.signature) != len(theirs.signature):
        ours = x509.load_pem_x509_csr(request(SITE, key()).encode())
    forged = base64.encodebytes(der.replace(theirs.signature, ours.signature)).decode()
    with pytest.raises(RefusedError, match="signature"):
        issued(f"-----BEGIN CERTIFICATE REQUEST-----\n{forged}-----END CERTIFICATE REQUEST-----\n")


def test_a_certificate_that_serves_stays() -> None:
    first = issued(request()).certificate
    again = issued(request(), pem(first), now=NOW + 700 * DAY)
    assert again == Issued(first, "")


@pytest.mark.parametrize(
    ("present", "says"),
    [
        (pem(issued(request(), now=NOW - 770 * DAY).certificate), "it ends in 55 days"),
        (pem(issued(request(), now=NOW - 900 * DAY).certificate), "it has ended"),
        (pem(issued(request(), now=NOW + 900 * DAY).certificate), "isn't valid before 2028"),
        (pem(issued(request(), authority=new_authority()).certificate), "another CA"),
        (pem(issued(request(), authority=new_authority("another CA")).certificate), "another CA"),
        (pem(issued(request(SITE, key())).certificate), "another key"),
        (pem(issued(request(VPS), wanted=VPS).certificate), "another subject"),
        (
            pem(issued(request(w := SITE._replace(usage="serverAuth")), wanted=w).certificate),
            "another usage",
        ),
        (
            pem(issued(request(w := SITE._replace(subject_alt_names=("URI:urn:a:b",))), wanted=w).certificate),
            "other names",
        ),
        ("rubbish", "can't be read"),
    ],
)
def test_a_certificate_that_does_not_serve_is_replaced(present: str, says: str) -> None:
    answer = issued(request(), present)
    assert says in answer.reason
    assert issued(request(), pem(answer.certificate)).reason == ""


def test_no_certificate_outlives_its_authority_or_is_renewed_each_day_for_that() -> None:
    brief = new_authority(days=50)
    first = issued(request(), authority=brief).certificate
    assert first.not_valid_after_utc == brief.certificate.not_valid_after_utc
    assert issued(request(), pem(first), authority=brief, now=NOW + DAY).reason == ""


def test_a_copy_replaces_a_link_and_follows_none(tmp_path: Path) -> None:
    certificate = issued(request()).certificate
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "issued"
    folder.mkdir(mode=0o755)
    copy = folder / f"site1-{certificate.serial_number:X}.crt"
    copy.symlink_to(victim)
    assert keep_copy(folder, "site1", certificate)
    assert victim.read_text() == "precious"
    assert not copy.is_symlink()
    assert copy.read_text() == pem(certificate)
    assert [path.name for path in folder.iterdir()] == [copy.name]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert copy.stat().st_mode & 0o777 == 0o644
    assert not keep_copy(folder, "site1", certificate)


def test_copies_are_not_written_through_a_linked_folder(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "issued").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        keep_copy(tmp_path / "issued", "site1", issued(request()).certificate)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_key_that_is_not_the_authoritys_signs_nothing(tmp_path: Path) -> None:
    encryption = serialization.BestAvailableEncryption(b"a passphrase")
    foreign = key().private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    (tmp_path / "ca.key").write_bytes(foreign)
    (tmp_path / "ca.crt").write_text(pem(AUTHORITY.certificate))
    with pytest.raises(ValueError, match="isn't the key of"):
        read_authority(tmp_path / "ca.crt", tmp_path / "ca.key", "a passphrase")
