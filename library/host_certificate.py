#!/usr/bin/python
"""Ansible module, for the controller: the certificate of a host, of which the host chooses nothing but its key."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_certificate
short_description: Issue the certificate of a host from what the plan says, with the public key of its request
description:
  - Runs on the controller, where the key of the CA is. Of the host's signing request it takes the public key alone.
    Subject, names, usage and constraints come from the options. A request that asks for anything else is refused, since
    a host that does so isn't set up by this suite, or isn't in its owner's hands.
  - The present certificate stays when it was issued by this CA for the same key, names and usage and is valid for long
    enough. Otherwise a new one is issued.
  - A copy of the certificate is kept in I(issued_dir) as C(<name>-<SERIAL>.crt). Links are replaced, never followed.
options:
  name: {description: Name of the certificate's files., type: str, required: true}
  csr: {description: Signing request of the host (PEM)., type: str, required: true}
  certificate: {description: Present certificate of the host (PEM); empty if there is none., type: str, default: ""}
  common_name: {description: Common name of the subject., type: str, required: true}
  subject_alt_names:
    description: Names that the certificate is for, such as C(DNS:vps1.example.net), C(IP:203.0.113.10), C(URI:urn:x:y).
    type: list
    elements: str
    required: true
  usage: {description: The one extended key usage., type: str, choices: [serverAuth, clientAuth], required: true}
  ca_certificate: {description: File with the certificate of the CA., type: path, required: true}
  ca_key: {description: File with the encrypted key of the CA., type: path, required: true}
  passphrase: {description: Passphrase of that key., type: str, required: true}
  days: {description: Days that a new certificate is valid., type: int, default: 825}
  renew_days: {description: A certificate with less days left is issued anew., type: int, default: 60}
  issued_dir: {description: Folder with copies of all certificates., type: path, required: true}
"""

EXAMPLES = r"""
- name: Issue the certificate of the host
  host_certificate:
    name: site1
    csr: "{{ request.csr }}"
    common_name: site1
    subject_alt_names: ["URI:urn:mpquic:site:site1"]
    usage: clientAuth
    ca_certificate: pki/prod/ca.crt
    ca_key: pki/prod/ca.key
    passphrase: "{{ passphrase }}"
    issued_dir: pki/prod/issued
  delegate_to: localhost
"""

RETURN = r"""
certificate: {description: The certificate that the host is to have (PEM)., returned: success, type: str}
reason: {description: Why it was issued anew; empty if the present one stays., returned: success, type: str}
serial: {description: Serial number in hexadecimal digits., returned: success, type: str}
not_after: {description: End of its validity (ISO 8601)., returned: success, type: str}
"""

import datetime as dt
import ipaddress
import os
import re
import tempfile
from pathlib import Path
from typing import NamedTuple

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError:
    HAS_CRYPTOGRAPHY = False
else:
    HAS_CRYPTOGRAPHY = True
    # What reading a request or certificate that somebody else has made can raise.
    UNREADABLE = (
        ValueError,
        TypeError,
        UnsupportedAlgorithm,
        x509.DuplicateExtension,
        x509.InvalidVersion,
        x509.UnsupportedGeneralNameType,
    )

EXTENSION_REQUEST = "1.2.840.113549.1.9.14"
"""The attribute of a signing request that holds its extensions (RFC 2985 section 5.4.2)."""
BACKDATED = dt.timedelta(days=1)
"""Hosts boot with clocks that are behind."""


class RefusedError(Exception):
    """A request that isn't signed; the text says why, without the name of the host."""


class Wanted(NamedTuple):
    """What the plan says about a certificate."""

    common_name: str
    subject_alt_names: tuple[str, ...]
    usage: str


class Authority(NamedTuple):
    """A CA that can sign."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


class Issued(NamedTuple):
    """A certificate, and why it is another one than the host has; empty if it is the same."""

    certificate: x509.Certificate
    reason: str


def general_name(text: str) -> x509.GeneralName:
    """Parse a name such as `DNS:vps1.example.net`; ValueError."""
    kind, _, value = text.partition(":")
    if kind == "DNS":
        return x509.DNSName(value)
    if kind == "IP":
        return x509.IPAddress(ipaddress.ip_address(value))
    if kind == "URI":
        return x509.UniformResourceIdentifier(value)
    raise ValueError(f"subject_alt_names: {text!r} begins with none of DNS:, IP:, URI:")


def extensions_of(wanted: Wanted) -> list[tuple[x509.ExtensionType, bool]]:
    """Return the extensions of a host's certificate but for its key identifiers, each with its critical flag."""
    usage = {"serverAuth": ExtendedKeyUsageOID.SERVER_AUTH, "clientAuth": ExtendedKeyUsageOID.CLIENT_AUTH}[wanted.usage]
    key_usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return [
        (x509.SubjectAlternativeName([general_name(name) for name in wanted.subject_alt_names]), False),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.KeyUsage(digital_signature=True, **key_usage), True),
        (x509.ExtendedKeyUsage([usage]), False),
    ]


def subject_of(wanted: Wanted) -> x509.Name:
    """Return the subject of a host's certificate."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, wanted.common_name)])


def same(value: object, other: object) -> bool:
    """Whether two extensions say the same; the order of names doesn't matter."""
    if isinstance(value, x509.SubjectAlternativeName) and isinstance(other, x509.SubjectAlternativeName):
        return sorted(map(repr, value)) == sorted(map(repr, other))
    return value == other


def described(value: x509.ExtensionType) -> str:
    """An extension for people."""
    if isinstance(value, x509.BasicConstraints):
        return f"basicConstraints CA:{str(value.ca).upper()}"
    if isinstance(value, x509.SubjectAlternativeName):
        return f"subjectAltName {', '.join(repr(getattr(name, 'value', name)) for name in value)}"
    if isinstance(value, x509.ExtendedKeyUsage):
        return f"extendedKeyUsage {', '.join(purpose_name(purpose) for purpose in value)}"
    if isinstance(value, x509.KeyUsage):
        flags = (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
        )
        return f"keyUsage {', '.join(flag for flag in flags if getattr(value, flag))}"
    return f"the extension {value.oid.dotted_string}"


def purpose_name(purpose: x509.ObjectIdentifier) -> str:
    """Name of an extended key usage, or its number."""
    known = {
        ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth",
        ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth",
        ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: "anyExtendedKeyUsage",
    }
    return known.get(purpose, purpose.dotted_string)


def public_key_of(pem: str, wanted: Wanted) -> ec.EllipticCurvePublicKey:
    """Return the key of a signing request that asks for nothing but what is wanted; RefusedError."""
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        key = request.public_key()
        if not request.is_signature_valid:
            raise RefusedError("its signature isn't by the key that it names, so the host may not have that key")
        extensions = list(request.extensions)
        attributes = list(request.attributes)
    except InvalidSignature as error:
        raise RefusedError("its signature isn't by the key that it names, so the host may not have that key") from error
    except UNREADABLE as error:
        raise RefusedError(f"it can't be read: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise RefusedError("its key isn't an elliptic curve key on P-256")
    if request.subject != subject_of(wanted):
        raise RefusedError(
            f"it asks for the subject {request.subject.rfc4514_string()!r}, not 'CN={wanted.common_name}'"
        )
    planned = {value.oid: value for value, _ in extensions_of(wanted)}
    for extension in extensions:
        plan = planned.get(extension.oid)
        if plan is None:
            raise RefusedError(f"it asks for {described(extension.value)}, which no certificate here has")
        if not same(extension.value, plan):
            raise RefusedError(f"it asks for {described(extension.value)}, not {described(plan)}")
    others = [
        attribute.oid.dotted_string for attribute in attributes if attribute.oid.dotted_string != EXTENSION_REQUEST
    ]
    if others:
        raise RefusedError(f"it has attributes of another kind: {', '.join(others)}")
    return key


def reason_to_replace(
    present: str,
    key: ec.EllipticCurvePublicKey,
    wanted: Wanted,
    authority: Authority,
    now: dt.datetime,
    renew: dt.timedelta,
) -> str:
    """Return why the host needs another certificate than `present` (PEM); empty if it doesn't."""
    if not present.strip():
        return "it has none"
    try:
        certificate = x509.load_pem_x509_certificate(present.encode())
        certificate.verify_directly_issued_by(authority.certificate)
        held = certificate.public_key()
        found = {extension.oid: extension for extension in certificate.extensions}
    except InvalidSignature:
        return "it was issued by another CA"
    except UNREADABLE:
        return "it can't be read, or was issued by another CA"
    if held != key:
        return "the host has another key"
    if certificate.subject != subject_of(wanted):
        return "it is made for another subject"
    expected = {value.oid: (value, critical) for value, critical in complete_extensions(wanted, key, authority)}
    if found.keys() != expected.keys() or any(
        not same(found[oid].value, value) or found[oid].critical != critical
        for oid, (value, critical) in expected.items()
    ):
        return "it is made for other names or another usage"
    if certificate.not_valid_before_utc > now:
        return f"it isn't valid before {certificate.not_valid_before_utc:%Y-%m-%d}"
    left = certificate.not_valid_after_utc - now
    # The certificate of the CA may end first: then another one is no better.
    at_most = authority.certificate.not_valid_after_utc - certificate.not_valid_after_utc
    if left < renew and at_most > BACKDATED:
        return f"it ends in {left.days} days" if left.days >= 0 else "it has ended"
    return ""


def complete_extensions(
    wanted: Wanted, key: ec.EllipticCurvePublicKey, authority: Authority
) -> list[tuple[x509.ExtensionType, bool]]:
    """Return all extensions of a host's certificate."""
    try:
        identifier = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        authority_identifier = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
    except x509.ExtensionNotFound:
        authority_identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    return [
        *extensions_of(wanted),
        (x509.SubjectKeyIdentifier.from_public_key(key), False),
        (authority_identifier, False),
    ]


def issue(
    key: ec.EllipticCurvePublicKey, wanted: Wanted, authority: Authority, now: dt.datetime, valid: dt.timedelta
) -> x509.Certificate:
    """Return a new certificate for `key`; it never outlives that of the CA."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject_of(wanted))
        .issuer_name(authority.certificate.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(min(now + valid, authority.certificate.not_valid_after_utc))
    )
    for value, critical in complete_extensions(wanted, key, authority):
        builder = builder.add_extension(value, critical=critical)
    return builder.sign(authority.key, hashes.SHA256())


def certificate_for(
    csr: str,
    present: str,
    wanted: Wanted,
    authority: Authority,
    now: dt.datetime,
    *,
    valid: dt.timedelta,
    renew: dt.timedelta,
) -> Issued:
    """Return the certificate that a host is to have; RefusedError, whatever it has now, if its request is refused."""
    key = public_key_of(csr, wanted)
    reason = reason_to_replace(present, key, wanted, authority, now, renew)
    if reason:
        return Issued(issue(key, wanted, authority, now, valid), reason)
    return Issued(x509.load_pem_x509_certificate(present.encode()), "")


def read_authority(certificate: Path, key: Path, passphrase: str) -> Authority:
    """Read the CA; ValueError, TypeError, OSError."""
    private = serialization.load_pem_private_key(key.read_bytes(), passphrase.encode())
    of_ca = x509.load_pem_x509_certificate(certificate.read_bytes())
    if not isinstance(private, ec.EllipticCurvePrivateKey) or private.public_key() != of_ca.public_key():
        raise ValueError(f"{key} isn't the key of {certificate}")
    return Authority(of_ca, private)


def keep_copy(folder: Path, name: str, certificate: x509.Certificate) -> bool:
    """Write a certificate into the folder of those that were issued; return whether it wasn't there. OSError."""
    if folder.is_symlink():
        raise NotADirectoryError(f"{folder} is a symbolic link, which isn't followed: put the folder itself there")
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    path = folder / f"{name}-{certificate.serial_number:X}.crt"
    content = certificate.public_bytes(serialization.Encoding.PEM)
    if not path.is_symlink() and path.is_file() and path.read_bytes() == content:
        return False
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=folder)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            os.fchmod(stream.fileno(), 0o644)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return True


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "csr": {"type": "str", "required": True},
            "certificate": {"type": "str", "default": ""},
            "common_name": {"type": "str", "required": True},
            "subject_alt_names": {"type": "list", "elements": "str", "required": True},
            "usage": {"type": "str", "choices": ["serverAuth", "clientAuth"], "required": True},
            "ca_certificate": {"type": "path", "required": True},
            "ca_key": {"type": "path", "required": True},
            "passphrase": {"type": "str", "required": True, "no_log": True},
            "days": {"type": "int", "default": 825},
            "renew_days": {"type": "int", "default": 60},
            "issued_dir": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    if not HAS_CRYPTOGRAPHY:
        module.fail_json(msg=missing_required_lib("cryptography"))
    values = module.params
    name = values["name"]
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        module.fail_json(msg=f"name: {name!r} can't be the name of a file here")
    wanted = Wanted(values["common_name"], tuple(values["subject_alt_names"]), values["usage"])
    try:
        authority = read_authority(Path(values["ca_certificate"]), Path(values["ca_key"]), values["passphrase"])
        issued = certificate_for(
            values["csr"],
            values["certificate"],
            wanted,
            authority,
            dt.datetime.now(dt.UTC).replace(microsecond=0),
            valid=dt.timedelta(days=values["days"]),
            renew=dt.timedelta(days=values["renew_days"]),
        )
        copied = False
        if not module.check_mode:
            copied = keep_copy(Path(values["issued_dir"]), name, issued.certificate)
    except RefusedError as error:
        module.fail_json(
            msg=f"The signing request of '{name}' is refused: {error}. Nothing was signed. The role asks for what the "
            "plan says and no more, so something else on that host has made or changed the request: find out what "
            "(packages of its Python first) before you trust the host, or set it up anew."
        )
    except (OSError, ValueError, TypeError) as error:
        module.fail_json(msg=f"The certificate of '{name}' can't be issued: {error}")
    certificate = issued.certificate
    module.exit_json(
        changed=bool(issued.reason) or copied,
        certificate=certificate.public_bytes(serialization.Encoding.PEM).decode(),
        reason=issued.reason,
        serial=f"{certificate.serial_number:X}",
        not_after=certificate.not_valid_after_utc.isoformat(),
    )


if __name__ == "__main__":
    main()
