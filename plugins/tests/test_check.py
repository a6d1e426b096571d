"""playbooks/check.yml with modules that say what a test has made up: judgement, table, file, exit status."""

from __future__ import annotations

import datetime as dt
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import mpquic_plan
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from .conftest import Playbook

    Run = Callable[..., subprocess.CompletedProcess[str]]

ROOT = Path(__file__).parents[2]
PLAN = """
- name: Plan
  hosts: vps:sites
  gather_facts: false
  tags: [always]
  tasks:
    - mpquic_plan: {known_variables: [mpquic_check_json, mpquic_check_settle, mpquic_pki_dir]}
      run_once: true
      register: mpquic_plan
"""
# In place of modules: the answer is a variable of the host.
ANSWER = """
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp=None, task_vars=None):
        answers = task_vars["answers"][self._task.action]
        return dict(answers.pop(0) if isinstance(answers, list) and len(answers) > 1 else answers)
"""
SURVEY = """
import json, time
from ansible.module_utils.basic import AnsibleModule

module = AnsibleModule(argument_spec={"certificate": {"type": "str"}}, supports_check_mode=True)
survey = json.loads(open("%s").read())[module.params["certificate"]]
module.exit_json(changed=False, survey={**survey, "time": time.time()})
"""
FILES = """
- owned_files:
    sets:
      - name: some
        directory: "{{ folder }}/{{ inventory_hostname }}"
        patterns: ["a*.conf"]
        files: {a.conf: text}
        validate: /bin/false %s
      - name: more
        directory: "{{ folder }}/{{ inventory_hostname }}/"
        patterns: ["b.conf", "old.conf"]
        files: {b.conf: text}
        validate: /bin/false %s
"""
WHEELHOUSE = "- ansible.builtin.set_fact: {_daemon_wheelhouse: {release: 0.2.0-0123456789ab-3.11-x86_64}}\n"
MANAGER = {"installed": False, "active": False, "enabled": "", "files": [], "generator_masked": False}
OFF = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
VARIABLES: dict[str, dict[str, Any]] = {
    "vps1": {"vps": {"address": "203.0.113.10", "listeners": [{"name": "mpq5", "subnet": "10.200.5.0/24"}]}},
    "site1": {
        "site": {
            "name": "site1",
            "site_id": 1,
            "vps": "vps1",
            "management": [{"name": "mgmt1", "address": "10.10.11.100/24"}],
            "wans": [{"name": "wan5"}],
            "lans": [{"name": "lan5", "tunnel": "mpq5"}],
            "tunnels": [{"name": "mpq5", "wan": "wan5"}],
        }
    },
}


@pytest.fixture(scope="module")
def sound() -> Any:
    """The facts of sound hosts that the tests of the judgement have."""
    spec = importlib.util.spec_from_file_location("sound_hosts", ROOT / "plan/tests/check/conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def signed(name: str, serial: int, issuer: str, key: ec.EllipticCurvePrivateKey, *, authority: bool = False) -> str:
    """A certificate of the key of a CA (of its own key, which nobody looks at here), in PEM."""
    now = dt.datetime.now(dt.UTC)

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    builder = x509.CertificateBuilder(named(issuer), named(name), key.public_key(), serial)
    builder = builder.not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=400))
    builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()


@pytest.fixture
def run(playbook: Playbook, sound: Any) -> Run:
    """Runs it with a site and its VPS; `changes` get the facts of each host before."""
    for name in ("check.yml",):
        playbook.put(f"playbooks/{name}", (ROOT / "playbooks" / name).read_text())
    playbook.put("playbooks/plan.yml", PLAN)
    (playbook.folder / "playbooks/filter_plugins").symlink_to(ROOT / "plugins/filter")
    for name in ("host_check", "site_health", "tunnel_ping", "forwarding_probe", "sshd_ports"):
        playbook.put(f"playbooks/action_plugins/{name}.py", ANSWER)
    playbook.put("library/host_survey.py", SURVEY % (playbook.folder / "surveys.json"))
    (playbook.folder / "library/owned_files.py").symlink_to(ROOT / "library/owned_files.py")
    (playbook.folder / "roles").mkdir()
    (playbook.folder / "roles/verify").symlink_to(ROOT / "roles/verify")
    for role in ("firewall", "networkd", "daemon"):
        playbook.put(f"roles/{role}/tasks/files.yml", "- ansible.builtin.debug: {msg: nothing}\n")
    playbook.put("roles/base/tasks/files.yml", FILES)
    playbook.put("roles/base/tasks/router_advertisements.yml", "- ansible.builtin.debug: {msg: nothing}\n")
    playbook.put("roles/daemon/tasks/wheelhouse.yml", WHEELHOUSE)
    key = ec.generate_private_key(ec.SECP256R1())
    ca = signed("mpquic CA", 1, "mpquic CA", key, authority=True)
    playbook.put("pki/mine/ca.crt", ca)
    plans = json.loads(json.dumps(mpquic_plan.build(VARIABLES), default=str))

    def of(
        *options: str,
        changes: Callable[[dict[str, Any]], None] | None = None,
        pki: str = "pki/mine",
        **more: dict[str, Any],
    ) -> subprocess.CompletedProcess[str]:
        hosts, surveys = {}, {}
        for name, plan in plans.items():
            host = sound.sound(name, plan)
            rows = host.health[1]["tunnels"]
            answers = {
                "host_check": {"look": host.first},
                "site_health": {"problems": [], "tunnels": rows},
                "tunnel_ping": {"replies": host.replies},
                "forwarding_probe": host.forwarding,
                "sshd_ports": {"ports": [22]},
            }
            certificate = signed(plan["pki"]["common_name"], 0xAB1, "mpquic CA", key)
            surveys[name] = {
                "links": {},
                "connection": None,
                "default_routes": [],
                "managers": dict.fromkeys(("ifupdown", "netplan", "cloud-init", "NetworkManager", "dhcpcd"), MANAGER),
                "cloud_network": False,
                "units": {},
                "network_files": [],
                "taken_over": None,
                "resolv_conf": "/etc/resolv.conf",
                "instances": host.survey["instances"],
                "pki": {"ca": ca, "certificate": certificate},
            }
            hosts[name] = {**VARIABLES[name], "answers": answers, **more.get(name, {})}
            for file in ("a.conf", "b.conf"):
                playbook.put(f"{name}/{file}", "text")
        if changes:
            changes({"answers": {name: host["answers"] for name, host in hosts.items()}, "surveys": surveys})
        playbook.put("surveys.json", json.dumps(surveys))
        everywhere = {
            "ansible_connection": "local",
            "ansible_become": False,
            "mpquic_pki_dir": pki,
            "folder": str(playbook.folder),
        }
        children = {"vps": {"hosts": {"vps1": hosts["vps1"]}}, "sites": {"hosts": {"site1": hosts["site1"]}}}
        return playbook.run(
            {"all": {"vars": everywhere, "children": children}},
            "-e",
            "mpquic_check_settle=0",
            "-e",
            f"mpquic_check_json={playbook.folder / 'check.json'}",
            *options,
            name="playbooks/check.yml",
        )

    return of


def written(playbook: Playbook) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((playbook.folder / "check.json").read_text())
    jsonschema.validate(document, json.loads((ROOT / "schemas/check.schema.json").read_text()))
    return document


def found(document: dict[str, Any], result: str) -> list[tuple[str, str, str]]:
    return [(each["host"], each["check"], each["text"]) for each in document["findings"] if each["result"] == result]


def test_a_sound_fleet_is_good_and_nothing_is_changed(run: Run, playbook: Playbook) -> None:
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert written(playbook)["hosts"] == {"site1": "ok", "vps1": "ok"}
    table = done.stdout.partition("CHECK **")[2].splitlines()[1:]
    assert table == ["HOST   RESULT  FINDINGS", "site1  ok      none", "vps1   ok      none"]
    assert "SITES AND VPSES" not in done.stdout


@pytest.mark.parametrize(
    ("pki", "looked_at"), [("{{ playbook_dir }}/pki/mine", True), ("pki/mine", True), ("pki/another", False)]
)
def test_the_folder_of_the_ca_is_that_of_a_run_of_site_yml(
    run: Run, playbook: Playbook, pki: str, looked_at: bool
) -> None:
    assert run("--limit", "vps1", pki=pki).returncode == 0
    skipped = [text for _, check, text in found(written(playbook), "skipped") if check == "certificates"]
    assert (skipped == []) is looked_at


def test_a_problem_of_one_host_fails_for_this_one_and_is_told_at_the_end(run: Run, playbook: Playbook) -> None:
    def break_(facts: dict[str, Any]) -> None:
        facts["answers"]["site1"]["forwarding_probe"]["problems"] = ["a packet is lost"]

    done = run(changes=break_)
    assert done.returncode == 2
    assert "1 problem on site1, told at the end" in done.stdout
    assert done.stdout.count("a packet is lost") == 1
    document = written(playbook)
    assert document["result"] == "problem"
    assert found(document, "problem") == [("site1", "packets", "a packet is lost")]


def test_an_unreachable_host_is_one_finding_and_the_others_are_looked_at(run: Run, playbook: Playbook) -> None:
    done = run(site1=OFF)
    assert done.returncode == 4
    document = written(playbook)
    assert document["hosts"] == {"site1": "unreachable", "vps1": "ok"}
    assert [(host, check) for host, check, _ in found(document, "problem")] == [("site1", "reachable")]


def test_where_no_host_can_be_reached_the_table_and_the_file_are_there_all_the_same(
    run: Run, playbook: Playbook
) -> None:
    assert run(site1=OFF, vps1=OFF).returncode == 4
    assert written(playbook)["hosts"] == {"site1": "unreachable", "vps1": "unreachable"}


def test_a_module_that_fails_is_a_finding_of_its_host(run: Run, playbook: Playbook) -> None:
    def break_(facts: dict[str, Any]) -> None:
        facts["answers"]["vps1"]["host_check"] = {"failed": True, "msg": "no\nPython"}

    done = run(changes=break_)
    assert done.returncode == 2
    document = written(playbook)
    assert found(document, "problem") == [("vps1", "complete", "it couldn't be looked at: no Python")]
    assert (
        "site1",
        "tunnels",
        "vps1, the VPS of this site, wasn't looked at: what runs there wasn't compared",
    ) in found(document, "skipped")


def test_files_that_differ_are_named_and_left_alone(run: Run, playbook: Playbook) -> None:
    def break_(_: dict[str, Any]) -> None:
        (playbook.folder / "site1/a.conf").unlink()
        playbook.put("site1/b.conf", "edited")
        playbook.put("site1/old.conf", "text")

    assert run(changes=break_).returncode == 2
    folder = playbook.folder / "site1"
    assert found(written(playbook), "problem") == [
        ("site1", "files", f"{folder}/a.conf is missing"),
        ("site1", "files", f"{folder}/b.conf was edited, or has another owner or mode"),
        ("site1", "files", f"{folder}/old.conf is of ours, and isn't planned"),
    ]
    assert not (folder / "a.conf").exists()
    assert (folder / "b.conf").read_text() == "edited"
    assert (folder / "old.conf").exists()


def test_a_ca_of_another_fleet_and_its_certificate(run: Run, playbook: Playbook) -> None:
    other = ec.generate_private_key(ec.SECP256R1())

    def break_(facts: dict[str, Any]) -> None:
        facts["surveys"]["site1"]["pki"]["ca"] = signed("other CA", 1, "other CA", other, authority=True)
        facts["surveys"]["vps1"]["pki"]["certificate"] = signed("vps1", 0xAB1, "mpquic CA", other)

    assert run(changes=break_).returncode == 2
    (first, second) = found(written(playbook), "problem")
    assert first[:2] == ("site1", "certificates")
    assert str(playbook.folder / "pki/mine/ca.crt") in first[2]
    assert second == ("vps1", "certificates", "/etc/mpquic/pki/vps1.crt wasn't signed by the controller's CA")


def test_one_site_alone_is_checked_without_its_vps(run: Run, playbook: Playbook) -> None:
    done = run("--limit", "site1", vps1=OFF)
    assert done.returncode == 0, done.stdout
    assert written(playbook)["hosts"] == {"site1": "ok"}


def test_a_file_that_can_not_be_written_is_told(run: Run, playbook: Playbook) -> None:
    done = run("-e", f"mpquic_check_json={playbook.folder}/nowhere/check.json")
    assert "nowhere/check.json can't be written: No such file or directory" in done.stdout + done.stderr
