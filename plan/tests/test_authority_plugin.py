"""The action plugin for the CA in a real ansible-playbook, with surveys of hosts made up here."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ROOT = Path(__file__).parents[2]
ANSIBLE = Path(sys.executable).with_name("ansible-playbook")
PASSPHRASE = "a long passphrase"
PLAY = """
- hosts: all
  gather_facts: false
  any_errors_fatal: true
  tasks:
    - ansible.builtin.set_fact:
        mpquic_survey: {survey: {pki: "{{ surveys[inventory_hostname] }}"}}
      when: inventory_hostname in surveys
    - mpquic_authority:
        directory: "{{ directory }}"
        hosts: [vps1, site1-client]
        names: {vps1: vps1, site1-client: site1}
        passphrase: "{{ passphrase }}"
        passphrase_source: the variable
        passphrase_file: "{{ passphrase_file | default('') }}"
        generate_passphrase: "{{ generate | default(false) }}"
        new: "{{ new | default(false) }}"
      run_once: true
      register: authority
    - ansible.builtin.copy:
        dest: "{{ out }}"
        content: "{{ authority | to_json }}"
        mode: "0600"
      delegate_to: localhost
      run_once: true
      check_mode: false
      vars:
        ansible_connection: local
        ansible_python_interpreter: "{{ ansible_playbook_python }}"
"""
ROLE_PLAY = """
- hosts: all
  gather_facts: false
  vars:
    mpquic_pki_dir: pki/prod
    mpquic_plan: {hosts: {vps1: {pki: {name: vps1}}, site1-client: {pki: {name: site1}}}}
  tasks:
    - ansible.builtin.set_fact:
        mpquic_survey: {survey: {pki: {ca: null, certificate: null}}}
    - ansible.builtin.include_role:
        name: pki
        tasks_from: authority
"""
NOTHING = {"ca": None, "certificate": None}

pytestmark = pytest.mark.skipif(not ANSIBLE.exists(), reason="ansible isn't in this virtual environment")


class Controller:
    """A folder with a play, a CA's folder that may be there, and the runs of the play."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pki = folder / "pki" / "prod"
        (folder / "play.yml").write_text(PLAY)
        (folder / "ansible.cfg").write_text(f"[defaults]\naction_plugins = {ROOT / 'plugins/action'}\n")

    def run(self, surveys: dict[str, Any], *more: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        values = {"directory": str(self.pki), "passphrase": PASSPHRASE, "surveys": surveys} | variables
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_LOCAL_TEMP": str(self.folder / "tmp"),
        }
        out = self.folder / "result.json"
        out.unlink(missing_ok=True)
        values["out"] = str(out)
        (self.folder / "values.json").write_text(json.dumps(values))
        command = [str(ANSIBLE), "-i", "vps1,site1-client,", "play.yml", "-e", "@values.json", *more]
        return subprocess.run(
            command,
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            umask=0o077,
        )

    def run_role(self, *more: str, **environment: str) -> None:
        """Run the role's part for the controller; it must make a CA in pki/prod beside the play."""
        (self.folder / "role.yml").write_text(ROLE_PLAY)
        command = [str(ANSIBLE), "-i", "vps1,site1-client,", str(self.folder / "role.yml"), *more]
        values = {
            **os.environ,
            "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),
            "ANSIBLE_ROLES_PATH": str(ROOT / "roles"),
            "ANSIBLE_LIBRARY": str(ROOT / "library"),
            "ANSIBLE_LOCAL_TEMP": str(self.folder / "tmp"),
            "HOME": str(self.folder),
            **environment,
        }
        # Elsewhere, since paths of variables count from the folder of the play.
        done = subprocess.run(command, cwd="/", env=values, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def done(self, surveys: dict[str, Any], *more: str, **variables: Any) -> dict[str, Any]:
        run = self.run(surveys, *more, **variables)
        assert run.returncode == 0, run.stdout + run.stderr
        found: dict[str, Any] = json.loads((self.folder / "result.json").read_text())
        return found

    def refused(self, surveys: dict[str, Any], *more: str, **variables: Any) -> str:
        """Return what the run says; it must have left everything as it was."""
        before = contents(self.folder / "pki")
        run = self.run(surveys, *more, **variables)
        assert run.returncode == 2, run.stdout + run.stderr
        assert contents(self.folder / "pki") == before
        said = " ".join((run.stdout + run.stderr).split()).replace("\\n", " ")
        assert PASSPHRASE not in said
        return said


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"") for path in folder.rglob("*")
    }


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    return Controller(tmp_path)


@pytest.fixture
def made(controller: Controller) -> Controller:
    assert controller.done({"vps1": NOTHING, "site1-client": NOTHING})["action"] == "make"
    return controller


def having(controller: Controller) -> dict[str, Any]:
    """Return what a host says that was set up by this controller."""
    return {"ca": (controller.pki / "ca.crt").read_text(), "certificate": None}


def certificate(common_name: str, days: int, since: int = 1) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    signed = (
        builder.not_valid_before(now - dt.timedelta(days=since))
        .not_valid_after(now + dt.timedelta(days=days, hours=1))
        .sign(key, hashes.SHA256())
    )
    return signed.public_bytes(serialization.Encoding.PEM)


def test_a_first_run_makes_a_ca_whose_modes_no_umask_changes(made: Controller) -> None:
    assert {path.name: path.stat().st_mode & 0o777 for path in made.pki.iterdir()} == {
        "ca.crt": 0o644,
        "ca.key": 0o600,
        "issued": 0o700,
    }
    assert made.pki.stat().st_mode & 0o777 == 0o700
    key = serialization.load_pem_private_key((made.pki / "ca.key").read_bytes(), PASSPHRASE.encode())
    ca = x509.load_pem_x509_certificate((made.pki / "ca.crt").read_bytes())
    assert ca.public_key() == key.public_key()
    ca.verify_directly_issued_by(ca)
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)


def test_a_second_run_uses_it_changes_nothing_and_mends_modes(made: Controller) -> None:
    surveys = {"vps1": having(made), "site1-client": NOTHING}
    again = made.done(surveys)
    assert (again["action"], again["changed"], again["signs"]) == ("use", False, True)
    (made.pki / "ca.key").chmod(0o644)
    made.pki.chmod(0o755)
    assert made.done(surveys)["changed"]
    assert (made.pki / "ca.key").stat().st_mode & 0o777 == 0o600
    assert made.pki.stat().st_mode & 0o777 == 0o700


def test_a_generated_passphrase_is_kept_beside_the_key(controller: Controller) -> None:
    surveys = {"vps1": NOTHING, "site1-client": NOTHING}
    made = controller.done(surveys, passphrase="", generate=True)
    assert made["action"] == "make"
    kept = controller.pki / "passphrase"
    assert kept.stat().st_mode & 0o777 == 0o600
    serialization.load_pem_private_key((controller.pki / "ca.key").read_bytes(), kept.read_text().strip().encode())


@pytest.mark.parametrize(
    ("given", "environment", "passphrase"),
    [
        (
            ["mpquic_pki_passphrase=by the variable", "mpquic_pki_passphrase_file=~/mine"],
            "of the environment",
            "by the variable",
        ),
        (["mpquic_pki_passphrase_file=~/mine"], "of the environment", "out of the file"),
        (["mpquic_pki_passphrase_file=mine"], "of the environment", "out of the file"),
        ([], "of the environment", "of the environment"),
        ([], "", "beside the key"),
    ],
    ids=["variable", "file at home", "file beside the play", "environment", "folder"],
)
def test_the_first_passphrase_that_is_set_counts(
    controller: Controller, given: list[str], environment: str, passphrase: str
) -> None:
    (controller.folder / "mine").write_text("out of the file\n")
    controller.pki.mkdir(parents=True)
    (controller.pki / "passphrase").write_text("beside the key\n")
    options = [word for variable in given for word in ("-e", json.dumps(dict([variable.split("=")])))]
    controller.run_role(*options, MPQUIC_PKI_PASSPHRASE=environment)
    key = (controller.pki / "ca.key").read_bytes()
    assert serialization.load_pem_private_key(key, passphrase.encode())


def test_a_host_without_a_survey_was_not_reached(controller: Controller) -> None:
    said = controller.refused({"vps1": NOTHING})
    assert "site1-client was not reached in this run" in said
    assert controller.done({"vps1": NOTHING}, new=True)["action"] == "make"


def test_a_short_passphrase_makes_no_ca(controller: Controller) -> None:
    said = controller.refused({"vps1": NOTHING, "site1-client": NOTHING}, passphrase="elevenchars")
    assert "has 11 characters and needs at least 12" in said


def test_a_file_of_the_passphrase_that_is_not_there_is_named(controller: Controller) -> None:
    said = controller.refused({"vps1": NOTHING, "site1-client": NOTHING}, passphrase_file="/nowhere/passphrase")
    assert "names /nowhere/passphrase, and there is no such file." in said


def test_after_a_lost_folder_a_run_stops_and_names_hosts_and_remedies(made: Controller) -> None:
    surveys = {"vps1": having(made), "site1-client": having(made)}
    made.pki.rename(made.folder / "backup")
    said = made.refused(surveys)
    assert "There is no folder" in said
    assert "vps1 and site1-client have CA" in said


def test_after_a_renamed_inventory_the_former_folder_is_named(made: Controller) -> None:
    surveys = {"vps1": having(made), "site1-client": having(made)}
    made.pki.rename(made.pki.with_name("former-name"))
    said = made.refused(surveys)
    assert "pki/former-name has CA" in said
    assert not made.pki.exists()


@pytest.mark.parametrize("lost", ["ca.key", "ca.crt"])
def test_a_lost_key_stops_and_a_lost_certificate_is_restored(made: Controller, lost: str) -> None:
    surveys = {"vps1": having(made), "site1-client": NOTHING}
    before = (made.pki / "ca.crt").read_text()
    (made.pki / lost).unlink()
    if lost == "ca.key":
        assert "without its key, ca.key" in made.refused(surveys)
    else:
        assert made.done(surveys)["action"] == "restore"
        assert (made.pki / "ca.crt").read_text() == before


def test_another_passphrase_stops(made: Controller) -> None:
    said = made.refused({"vps1": having(made), "site1-client": having(made)}, passphrase="some other passphrase")
    assert "The passphrase doesn't open the CA's key" in said


def test_a_host_with_another_ca_stops(made: Controller) -> None:
    theirs = {"ca": certificate("mpquic CA", 100).decode(), "certificate": None}
    said = made.refused({"vps1": having(made), "site1-client": theirs})
    assert "but site1-client has CA" in said
    rubbish = {"ca": "-----BEGIN CERTIFICATE-----\n", "certificate": None}
    assert "can't be read" in made.refused({"vps1": having(made), "site1-client": rubbish})


def test_what_a_new_ca_replaces_is_kept(made: Controller) -> None:
    surveys = {"vps1": having(made), "site1-client": having(made)}
    (made.pki / "ca.key").unlink()
    old = (made.pki / "ca.crt").read_text()
    assert made.done(surveys, new=True)["action"] == "make"
    (former,) = made.pki.glob("former-*/ca.crt")
    assert former.read_text() == old
    assert (made.pki / "ca.crt").read_text() != old
    again = made.done({"vps1": having(made), "site1-client": surveys["vps1"]}, new=True)
    assert (again["action"], again["changed"]) == ("use", False)


def test_links_are_not_followed(made: Controller) -> None:
    key = made.pki / "ca.key"
    key.rename(made.folder / "ca.key")
    key.symlink_to(made.folder / "ca.key")
    assert "ca.key is a symbolic link" in made.refused({"vps1": having(made), "site1-client": having(made)})


def test_a_dry_run_writes_nothing(controller: Controller) -> None:
    made = controller.done({"vps1": NOTHING, "site1-client": NOTHING}, "--check")
    assert (made["action"], made["changed"], made["signs"]) == ("make", True, False)
    assert not controller.pki.exists()


def test_certificates_of_hosts_outside_of_the_run_are_warned_of_and_only_the_newest(made: Controller) -> None:
    surveys = {"vps1": having(made)}
    (made.pki / "issued" / "site1-0A.crt").write_bytes(certificate("site1", 5, since=600))
    (made.pki / "issued" / "vps1-0B.crt").write_bytes(certificate("vps1", 5))
    run = made.run(surveys, "--limit", "vps1")
    said = " ".join((run.stdout + run.stderr).split())
    assert run.returncode == 0, said
    assert "The certificate of site1-client ends on" in said
    assert "in 5 days" in said
    assert "of vps1" not in said
    (made.pki / "issued" / "site1-0C.crt").write_bytes(certificate("site1", 300))
    assert made.done(surveys, "--limit", "vps1")["expiring"] == []


def test_the_passphrase_is_shown_nowhere(made: Controller) -> None:
    run = made.run({"vps1": having(made), "site1-client": having(made)}, "-vvvv")
    lines = [line for line in (run.stdout + run.stderr).splitlines() if PASSPHRASE in line]
    assert lines == []
