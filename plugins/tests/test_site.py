"""site.yml itself, with roles that only fail or come through: who stops whom."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from .conftest import Playbook

ROOT = Path(__file__).parents[2]
PLAN = """
- name: Plan
  hosts: vps:sites
  gather_facts: false
  tags: [always]
  tasks:
    - mpquic_plan:
      run_once: true
      register: mpquic_plan
    - ansible.builtin.set_fact:
        mpquic_run:
          hosts: "{{ ansible_play_hosts_all }}"
"""
PREFLIGHT = """
- ansible.builtin.set_fact:
    mpquic_survey: {survey: {instances: {}, pki: {ca: null, certificate: null}}}
- ansible.builtin.fail: {msg: stopped by the preflight}
  when: stopped | default(false)
"""
ROLE = """
- ansible.builtin.fail: {msg: failed in the middle}
  when: fails | default(false)
- ansible.builtin.command: 'true'
  changed_when: false
"""
VERIFY = """
- ansible.builtin.debug: {msg: "{{ inventory_hostname }} came through"}
"""
OFF = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}


def _vps(number: int, **more: Any) -> dict[str, Any]:
    listeners = [{"name": "mpq5", "subnet": f"10.{200 + number}.5.0/24"}]
    return {"vps": {"address": f"203.0.113.{number}", "listeners": listeners}, **more}


def _site(number: int, vps: str, **more: Any) -> dict[str, Any]:
    site = {
        "name": f"site{number}",
        "site_id": number,
        "vps": vps,
        "management": [{"name": "mgmt1", "address": "dhcp"}],
        "wans": [{"name": "wan5"}],
    }
    return {"site": site, **more}


@pytest.fixture
def run(playbook: Playbook) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs it with two VPSes and three sites; what a host has more is given by its name."""
    playbook.put("site.yml", (ROOT / "site.yml").read_text())
    playbook.put("playbooks/plan.yml", PLAN)
    (playbook.folder / "filter_plugins").symlink_to(ROOT / "plugins/filter")
    playbook.put("roles/preflight/tasks/main.yml", PREFLIGHT)
    playbook.put("roles/pki/meta/argument_specs.yml", "argument_specs: {authority: {options: {}}}\n")
    playbook.put("roles/pki/tasks/authority.yml", "- ansible.builtin.set_fact: {authority: true}\n")
    for role in ("base", "firewall", "pki", "networkd", "daemon"):
        playbook.put(f"roles/{role}/tasks/main.yml", ROLE)
    playbook.put("roles/verify/tasks/main.yml", VERIFY)

    def of(*options: str, **more: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        vpses = {name: {**_vps(number), **more.get(name, {})} for number, name in enumerate(("vps1", "vps2"), 1)}
        owners = {"site1": "vps1", "site2": "vps2", "site3": "vps2"}
        sites = {
            name: {**_site(number, vps), **more.get(name, {})} for number, (name, vps) in enumerate(owners.items(), 1)
        }
        children = {"vps": {"hosts": vpses}, "sites": {"hosts": sites}}
        return playbook.run(
            {"all": {"vars": {"ansible_connection": "local", "ansible_become": False}, "children": children}}, *options
        )

    return of


def came_through(done: subprocess.CompletedProcess[str]) -> set[str]:
    """Hosts on which the last role has run."""
    return set(re.findall(r"msg: (\S+) came through", done.stdout)) | set(
        re.findall(r'"msg": "(\S+) came through"', done.stdout)
    )


def test_all_come_through_where_nothing_is_wrong(run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert came_through(done) == {"vps1", "vps2", "site1", "site2", "site3"}


@pytest.mark.parametrize("how", [{"fails": True}, {"stopped": True}, OFF])
def test_a_vps_that_does_not_come_through_stops_its_own_sites_and_no_others(
    run: Callable[..., subprocess.CompletedProcess[str]], how: dict[str, Any]
) -> None:
    done = run(vps1=how)
    assert done.returncode == (4 if how is OFF else 2), done.stdout
    assert came_through(done) == {"vps2", "site2", "site3"}, done.stdout
    assert "vps1, the VPS of this site, failed or wasn't reached" in done.stdout


@pytest.mark.parametrize("how", [{"fails": True}, {"stopped": True}, OFF])
def test_a_site_that_does_not_come_through_stops_no_other(
    run: Callable[..., subprocess.CompletedProcess[str]], how: dict[str, Any]
) -> None:
    done = run(site2=how)
    assert done.returncode == (4 if how is OFF else 2), done.stdout
    assert came_through(done) == {"vps1", "vps2", "site1", "site3"}


def test_a_run_for_one_site_does_not_ask_for_its_vps(run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = run("--limit", "site2", vps2=OFF)
    assert done.returncode == 0, done.stdout
    assert came_through(done) == {"site2"}
