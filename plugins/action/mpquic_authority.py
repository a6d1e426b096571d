"""Decides about the CA of the fleet, once, on the controller, and makes one only where that cuts off nobody."""

from __future__ import annotations

import datetime as dt
import os
import re
import secrets
import string
import tempfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID
    from mpquic_plan.preflight.authority import (
        Action,
        Ca,
        Controller,
        Folder,
        Host,
        KeyState,
        Validity,
        decide,
        expiring,
    )
except ImportError as error:
    IMPORT_ERROR: ImportError | None = error
else:
    IMPORT_ERROR = None

OPTIONS = {
    "directory": {"type": "path", "required": True},
    "hosts": {"type": "list", "elements": "str", "required": True},
    "names": {"type": "dict", "default": {}},
    "passphrase": {"type": "str", "default": "", "no_log": True},
    "passphrase_source": {"type": "str", "default": ""},
    "passphrase_file": {"type": "str", "default": ""},
    "generate_passphrase": {"type": "bool", "default": False},
    "new": {"type": "bool", "default": False},
    "days": {"type": "int", "default": 7300},
}
GENERATED_LENGTH = 40
MODES = {"ca.key": 0o600, "ca.crt": 0o644, "passphrase": 0o600}


class ActionModule(ActionBase):
    """`mpquic_authority`: files and registered results for the pure decision of `mpquic_plan.preflight.authority`."""

    TRANSFERS_FILES = False
    BYPASS_HOST_LOOP = True
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        if IMPORT_ERROR is not None:
            raise AnsibleError(
                f"a Python package can't be imported ({IMPORT_ERROR}); run ansible-playbook from the project's virtual "
                "environment (make lab makes it)"
            )
        _, options = self.validate_argument_spec(argument_spec=OPTIONS)
        variables = task_vars or {}
        directory = Path(options["directory"])
        dry = bool(self._task.check_mode)
        now = dt.datetime.now(dt.UTC).replace(microsecond=0)
        pems = {host: survey_of(variables["hostvars"], host) for host in options["hosts"]}
        hosts = [host_from(name, pki) for name, pki in pems.items()]
        try:
            controller = look(directory, options)
            decision = decide(controller, hosts, now, new=options["new"], dry=dry)
            if decision.action is Action.REFUSE:
                return {**result, "failed": True, "msg": decision.message}
            changed = decision.action is not Action.USE
            if not dry:
                if decision.action is Action.MAKE:
                    make(directory, options, now, keep_key=decision.keep_key)
                elif decision.action is Action.RESTORE:
                    write(directory / "ca.crt", (pems[decision.source] or {})["ca"].encode())
                changed = mend(directory) or changed
            pem = "" if dry and changed and decision.action is not Action.USE else (directory / "ca.crt").read_text()
        except OSError as error:
            raise AnsibleActionFail(
                f"{error.filename}: {error.strerror}; the user who runs ansible-playbook must be able to read and "
                "write the folder of the CA."
            ) from error
        present = set(variables.get("ansible_play_hosts", []))
        names = {host: name for host, name in options["names"].items() if host not in present}
        warnings = warnings_of(directory, pem, names, now)
        return {
            **result,
            "changed": changed,
            "action": decision.action.value,
            "signs": bool(pem) and bool(options["passphrase"] or not dry),
            "certificate": pem,
            "fingerprint": ca_from(x509.load_pem_x509_certificate(pem.encode())).fingerprint if pem else "",
            "expiring": warnings,
            "warnings": warnings,
        }


def survey_of(hostvars: Any, host: str) -> dict[str, Any] | None:
    """Return what a host said about its certificates; None if it wasn't reached."""
    try:
        survey = hostvars[host]["mpquic_survey"]["survey"]["pki"]
    except (KeyError, TypeError, AnsibleError):
        return None
    return dict(survey) if isinstance(survey, dict) else None


def host_from(name: str, pki: dict[str, Any] | None) -> Host:
    """Return what counts for the decision."""
    if pki is None:
        return Host(name, reached=False)
    pem = pki.get("ca")
    if not pem:
        return Host(name, reached=True)
    try:
        certificate = x509.load_pem_x509_certificate(str(pem).encode())
        certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return Host(name, reached=True, ca_unreadable=True)
    return Host(name, reached=True, ca=ca_from(certificate))


def ca_from(certificate: x509.Certificate) -> Ca:
    """Return the digests by which a CA is told."""
    return Ca(key_digest(certificate.public_key()), certificate.fingerprint(hashes.SHA256()).hex())


def key_digest(key: Any) -> str:
    """Return the SHA-256 of a public key."""
    encoded = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(encoded)
    return digest.finalize().hex()


def look(directory: Path, options: dict[str, Any]) -> Controller:
    """Return what the controller has. OSError."""
    certificate, problem = read_certificate(directory / "ca.crt")
    key, opened = read_key(directory / "ca.key", options["passphrase"])
    named = options["passphrase_file"]
    passphrase, source, trouble = options["passphrase"], options["passphrase_source"], None
    if named and not Path(named).is_file():
        trouble = f"mpquic_pki_passphrase_file names {named}, and there is no such file."
    elif named and not os.access(named, os.R_OK):
        trouble = f"mpquic_pki_passphrase_file names {named}, which the user who runs ansible-playbook can't read."
    elif named and not passphrase:
        trouble = f"mpquic_pki_passphrase_file names {named}, which is empty."
    length = len(passphrase)
    if trouble is not None:
        source = None
        key, opened = (KeyState.NO_PASSPHRASE, None) if key is not KeyState.MISSING else (key, None)
    elif not passphrase:
        generates = options["generate_passphrase"] and (key is KeyState.MISSING or options["new"])
        source, length = ("a generated one", GENERATED_LENGTH) if generates else (None, 0)
    return Controller(
        directory=str(directory),
        exists=directory.is_dir(),
        certificate=ca_from(certificate) if certificate is not None else None,
        certificate_problem=problem,
        validity=Validity(certificate.not_valid_before_utc, certificate.not_valid_after_utc) if certificate else None,
        key=key,
        opened=opened,
        passphrase_source=source,
        passphrase_problem=trouble,
        passphrase_length=length,
        others=tuple(other_folders(directory)),
        links=tuple(str(directory / name) for name in [*MODES, "issued"] if (directory / name).is_symlink()),
    )


def read_certificate(path: Path) -> tuple[x509.Certificate | None, str | None]:
    """Return a CA's certificate, or why one that is there can't be read."""
    if not path.exists():
        return None, None
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None, "holds no PEM certificate"
    return certificate, None


def read_key(path: Path, passphrase: str) -> tuple[KeyState, str | None]:
    """Return what there is of the CA's key, and the digest of its public key if it could be opened."""
    if not path.exists():
        return KeyState.MISSING, None
    content = path.read_bytes()
    if b"ENCRYPTED" not in content:
        return KeyState.UNUSABLE, None
    if not passphrase:
        return KeyState.NO_PASSPHRASE, None
    try:
        key = serialization.load_pem_private_key(content, passphrase.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return KeyState.LOCKED, None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        return KeyState.UNUSABLE, None
    return KeyState.OPEN, key_digest(key.public_key())


def other_folders(directory: Path) -> list[Folder]:
    """Return the folders with a CA that lie beside that of the inventory, and in it (those that were replaced)."""
    found = []
    for path in sorted({*directory.parent.glob("*/ca.crt"), *directory.glob("*/ca.crt")}):
        if path.parent == directory or not os.access(path, os.R_OK):
            continue
        certificate, _ = read_certificate(path)
        if certificate is not None:
            found.append(Folder(str(path.parent), ca_from(certificate), (path.parent / "ca.key").is_file()))
    return found


def make(directory: Path, options: dict[str, Any], now: dt.datetime, *, keep_key: bool) -> None:
    """Make a CA; what lies there of another one is kept in a folder of its own. OSError."""
    make_folder(directory)
    if not keep_key:
        former = [path for path in (directory / "ca.key", directory / "ca.crt") if path.exists()]
        if former:
            make_folder(directory / f"former-{now:%Y%m%dT%H%M%SZ}")
        for path in former:
            path.rename(directory / f"former-{now:%Y%m%dT%H%M%SZ}" / path.name)
    passphrase = options["passphrase"]
    if not passphrase:
        letters = string.ascii_letters + string.digits
        passphrase = "".join(secrets.choice(letters) for _ in range(GENERATED_LENGTH))
        write(directory / "passphrase", f"{passphrase}\n".encode())
    if keep_key:
        key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), passphrase.encode())
    else:
        key = ec.generate_private_key(ec.SECP256R1())
        encryption = serialization.BestAvailableEncryption(passphrase.encode())
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        write(directory / "ca.key", pem)
    write(directory / "ca.crt", self_signed(key, now, options["days"]).public_bytes(serialization.Encoding.PEM))


def self_signed(key: Any, now: dt.datetime, days: int) -> x509.Certificate:
    """Return the certificate of a CA that signs those of hosts and no other CA's."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mpquic CA")])
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Hosts boot with clocks that are behind.
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def make_folder(path: Path) -> None:
    """Make a folder for its owner alone, and its parents, whatever the umask is."""
    missing = [folder for folder in (*reversed(path.parents), path) if not folder.exists()]
    for folder in missing:
        folder.mkdir(mode=0o700)
        folder.chmod(0o700)


def write(path: Path, content: bytes) -> None:
    """Write a file in one step, with the mode of its name."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            os.fchmod(stream.fileno(), MODES[path.name])
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def mend(directory: Path) -> bool:
    """Bring the modes of the folder and its files to what they have to be; return whether any was another."""
    make_folder(directory / "issued")
    wanted = {directory: 0o700, directory / "issued": 0o700, **{directory / name: mode for name, mode in MODES.items()}}
    wrong = [path for path, mode in wanted.items() if path.exists() and path.stat().st_mode & 0o7777 != mode]
    for path in wrong:
        path.chmod(wanted[path])
    return bool(wrong)


def warnings_of(directory: Path, ca: str, names: dict[str, str], now: dt.datetime) -> list[str]:
    """Warn of the CA, and of the newest certificate of each host that this run doesn't renew."""
    found = []
    if ca:
        end = x509.load_pem_x509_certificate(ca.encode()).not_valid_after_utc
        found.append(expiring(f"the CA, {directory}/ca.crt,", end, now, "replace it (docs/first-site.md, 'A new CA')"))
    ends = newest_ends(directory / "issued")
    for host, name in sorted(names.items()):
        if name in ends:
            remedy = "it is not in this run; run site.yml for it while it can be reached"
            found.append(expiring(f"{host}", ends[name], now, remedy))
    return [warning for warning in found if warning is not None]


def newest_ends(issued: Path) -> dict[str, dt.datetime]:
    """Return when the newest certificate of each name ends, from the copies of all that were issued."""
    newest: dict[str, x509.Certificate] = {}
    for path in sorted(issued.glob("*.crt")) if issued.is_dir() else ():
        match = re.fullmatch(r"(.+)-[0-9A-F]+\.crt", path.name)
        certificate, _ = read_certificate(path)
        if match is None or certificate is None:
            continue
        known = newest.get(match[1])
        if known is None or known.not_valid_before_utc < certificate.not_valid_before_utc:
            newest[match[1]] = certificate
    return {name: certificate.not_valid_after_utc for name, certificate in newest.items()}
