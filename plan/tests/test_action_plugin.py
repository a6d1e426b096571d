"""The plugins that read and check the variables, in a real ansible-playbook, on inventories made up here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ANSIBLE = Path(sys.executable).with_name("ansible-playbook")
PLAY = """
- hosts: vps:sites
  gather_facts: false
  any_errors_fatal: true
  tasks:
    - mpquic_plan:
        known_variables: [mpquic_pki_dir]
      run_once: true
      register: planned
    - ansible.builtin.copy:
        dest: "{{ out }}-{{ inventory_hostname }}"
        content: "{{ planned.hosts | to_json }}"
        mode: "0600"
      connection: local
      vars:
        ansible_python_interpreter: "{{ ansible_playbook_python }}"
"""
INVENTORY: dict[str, Any] = {
    "all": {
        "vars": {"mpquic_pki_dir": "/nowhere", "uplink": "enp7s7"},
        "children": {
            "sites": {
                "hosts": {
                    "site1-client": {
                        "site": {
                            "name": "site1",
                            "site_id": "{{ 2 - 1 }}",
                            "management": [{"name": "mgmt1", "address": "dhcp"}],
                            "wans": [{"name": "wan5", "device": "{{ uplink }}"}],
                        }
                    }
                }
            },
            "vps": {"hosts": {"vps1": {"vps": {"address": "203.0.113.10"}}}},
        },
    }
}

pytestmark = pytest.mark.skipif(not ANSIBLE.exists(), reason="ansible isn't in this virtual environment")


def _run(folder: Path, inventory: dict[str, Any], *more: str) -> subprocess.CompletedProcess[str]:
    (folder / "play.yml").write_text(PLAY)
    (folder / "ansible.cfg").write_text(
        f"[defaults]\naction_plugins = {ROOT / 'plugins/action'}\nvars_plugins = {ROOT / 'plugins/vars'}\n"
        "duplicate_dict_key = error\n"
    )
    (folder / "inventory.json").write_text(json.dumps(inventory))
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(folder / "ansible.cfg"),
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
    }
    command = [str(ANSIBLE), "-i", "inventory.json", "play.yml", "-e", f"out={folder}/plan", *more]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_the_plan_is_made_of_templated_variables_of_all_hosts(tmp_path: Path) -> None:
    done = _run(tmp_path, INVENTORY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "plan-vps1").read_text() == (tmp_path / "plan-site1-client").read_text()
    plan = json.loads((tmp_path / "plan-vps1").read_text())
    assert sorted(plan) == ["site1-client", "vps1"]
    assert plan["site1-client"]["tuns"][0]["addresses"][0] == "10.200.5.1/32"
    assert [wan["device"] for wan in plan["site1-client"]["wans"]] == ["enp7s7"]


@pytest.mark.parametrize("host", ["site1-client", "vps1"])
def test_a_run_for_one_host_has_the_plan_of_all(tmp_path: Path, host: str) -> None:
    done = _run(tmp_path, INVENTORY, "--limit", host)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in tmp_path.glob("plan-*")] == [f"plan-{host}"]
    assert sorted(json.loads((tmp_path / f"plan-{host}").read_text())) == ["site1-client", "vps1"]


def test_a_run_for_one_host_finds_the_mistakes_of_others(tmp_path: Path) -> None:
    inventory = json.loads(json.dumps(INVENTORY))
    inventory["all"]["children"]["vps"]["hosts"]["vps1"]["vps"]["colour"] = "red"
    done = _run(tmp_path, inventory, "--limit", "site1-client")
    assert done.returncode != 0
    assert "vps1: vps.colour: unknown key" in done.stdout


def test_all_problems_are_listed_and_nothing_is_written(tmp_path: Path) -> None:
    inventory = json.loads(json.dumps(INVENTORY))
    groups = inventory["all"]["children"]
    groups["sites"]["hosts"]["site1-client"]["site"]["wans"][0]["devise"] = "eth0"
    groups["sites"]["hosts"]["site1-client"]["site_idd"] = 1
    groups["sites"]["hosts"]["site2-client"] = {}
    groups["vps"]["hosts"]["vps1"]["vps"]["address"] = "{{ no_such_variable }}"
    inventory["all"]["vars"]["mpquic_pki_dri"] = "/nowhere"
    done = _run(tmp_path, inventory)
    assert done.returncode != 0
    assert not list(tmp_path.glob("plan-*"))
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
    assert any("5 problems in the variables; no host was touched:" in line for line in lines), done.stdout
    for expected in (
        "site1-client: site.wans[0].devise: unknown key; did you mean 'device'?",
        "site1-client: site_idd: unknown variable; did you mean 'site.site_id'?",
        "site2-client: site: is missing; every host of the group 'sites' must have it",
        "site1-client: mpquic_pki_dri: unknown variable; did you mean 'mpquic_pki_dir'? (so on 3 hosts)",
    ):
        assert any(expected in line for line in lines), done.stdout
    assert any("vps1: vps: can't be templated" in line and "no_such_variable" in line for line in lines), done.stdout


def test_each_problem_is_told_once(tmp_path: Path) -> None:
    inventory = json.loads(json.dumps(INVENTORY))
    inventory["all"]["children"]["vps"]["hosts"]["vps1"]["vps"]["colour"] = "red"
    done = _run(tmp_path, inventory)
    assert (done.stdout + done.stderr).count("vps.colour") == 1, done.stdout + done.stderr


@pytest.mark.parametrize(("root", "group"), [("site", "sites"), ("vps", "vps")])
def test_a_host_outside_of_its_group_is_not_skipped(tmp_path: Path, root: str, group: str) -> None:
    inventory = json.loads(json.dumps(INVENTORY))
    [(host, variables)] = inventory["all"]["children"][group]["hosts"].items()
    inventory["all"]["children"][group]["hosts"] = {}
    inventory["all"]["children"]["other"] = {"hosts": {host: variables}}
    done = _run(tmp_path, inventory)
    assert done.returncode != 0
    expected = f"{host}: {root}: is set, but the host isn't in the group '{group}', so that no play would touch it;"
    assert expected in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("site:\n  name: site1\n\tsite_id: 1\n", "Tabs are usually invalid in YAML."),
        ("site:\n  name: site1\n  name: site2\n", "Found duplicate mapping key 'name'."),
    ],
)
def test_a_file_that_can_not_be_read_is_named_once_with_the_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/sites.yml").write_text(text)
    (tmp_path / "group_vars/nobody.yml").write_text("a: [\n")
    done = _run(tmp_path, INVENTORY, "--limit", "vps1")
    assert done.returncode != 0
    output = done.stdout + done.stderr
    assert output.count("group_vars/sites.yml: line 3, column") == 1, output
    assert output.count(message) == 1, output
    assert output.count("group_vars/nobody.yml: line ") == 1, output
    assert "2 files of variables can't be read" in output


def test_a_wrong_inventory_is_no_success() -> None:
    """Ansible itself only warns, and ends with 0 when no host is left."""
    assert "any_unparsed_is_failed = true" in (ROOT / "ansible.cfg").read_text()


def test_routers_that_sites_name_and_those_of_the_inventory_are_the_same(tmp_path: Path) -> None:
    inventory = json.loads(json.dumps(INVENTORY))
    groups = inventory["all"]["children"]
    groups["sites"]["hosts"]["site1-client"]["site"]["openwrt"] = {"host": "site1-router"}
    groups["openwrt"] = {"hosts": {"other-router": {}}}
    done = _run(tmp_path, inventory)
    assert done.returncode != 0
    for expected in (
        "site1-client: site.openwrt.host: the inventory has no host site1-router in the group 'openwrt';",
        "other-router: openwrt: is in the group 'openwrt', and no site names it;",
    ):
        assert expected in done.stdout, done.stdout + done.stderr

    groups["openwrt"] = {"hosts": {"site1-router": {}}}
    done = _run(tmp_path, inventory)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(json.loads((tmp_path / "plan-vps1").read_text())) == ["site1-client", "vps1"]
