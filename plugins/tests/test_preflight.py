"""The survey of a host and its judgement, in an ansible-playbook; what the host answers is made up."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from .conftest import Playbook

    Run = Callable[..., subprocess.CompletedProcess[str]]

PLAY = """
- hosts: vps
  gather_facts: false
  tasks:
    - mpquic_survey: {slice: "{{ slice }}"}
      register: mpquic_survey
    - ansible.builtin.copy: {dest: "{{ out }}", content: "{{ mpquic_survey | to_json }}", mode: "0600"}
      delegate_to: localhost
      connection: local
    - mpquic_preflight:
        slice: "{{ slice }}"
        found: "{{ mpquic_survey }}"
        accept: "{{ accept | default([]) }}"
"""
MODULE = """
import json, time
from ansible.module_utils.basic import AnsibleModule

module = AnsibleModule(argument_spec={"certificate": {"type": "str"}})
survey = json.loads(open("%s").read())
survey["time"] = time.time() + survey["ahead"]
module.exit_json(changed=False, survey=survey)
"""
# By what way it's reached is all in which this connection differs from one to the machine itself.
CONNECTION = """
from ansible.plugins.connection.local import Connection as Local

DOCUMENTATION = "name: node\\nshort_description: A container\\ndescription: [A container.]\\n"


class Connection(Local):
    transport = "node"
"""
SLICE: dict[str, Any] = {
    "role": "vps",
    "public": {"device": "auto"},
    "tuns": [],
    "instances": [],
    "firewall": {"udp_ports": [45001], "ssh": {"ports": "auto"}, "openings": []},
    "pki": {"name": "vps1"},
}
SURVEY: dict[str, Any] = {
    "ahead": 0.0,
    "system": {"ID": "debian", "VERSION_ID": "12", "PRETTY_NAME": "Debian", "init": "systemd", "apt": True},
    "connection": {"client": "198.51.100.7", "address": "203.0.113.10", "port": 22, "device": "eth0"},
    "links": {},
    "default_routes": [],
    "sockets": [],
    "filters": [],
    "nft": True,
    "legacy_filters": [],
    "units": {},
    "network_files": [],
    "managers": {},
    "cloud_network": False,
    "taken_over": None,
    "ours": False,
    "missing_modules": [],
    "disk": {},
    "memory": 1 << 31,
    "tun": True,
}


@pytest.fixture
def run(playbook: Playbook) -> Run:
    playbook.put("site.yml", PLAY)
    playbook.put("library/host_survey.py", MODULE % (playbook.folder / "survey.json"))
    playbook.put("connection/node.py", CONNECTION)

    def of(survey: dict[str, Any], *more: str, connection: str = "local") -> subprocess.CompletedProcess[str]:
        playbook.put("survey.json", json.dumps({**SURVEY, **survey}))
        variables = {"slice": SLICE, "ansible_connection": connection}
        inventory = {"all": {"children": {"vps": {"hosts": {"vps1": variables}}}}}
        return playbook.run(inventory, "-e", f"out={playbook.folder / 'found.json'}", *more)

    return of


def found(playbook: Playbook) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((playbook.folder / "found.json").read_text())
    return result


def test_a_sound_host_goes_on(run: Run, playbook: Playbook) -> None:
    done = run({})
    assert done.returncode == 0, done.stdout + done.stderr
    assert found(playbook)["clock_ahead"] == 0.0
    assert found(playbook)["survey"]["connection"] == SURVEY["connection"]
    assert found(playbook)["take_over"] == {"files": [], "managers": []}


def test_all_problems_of_a_host_are_told_at_the_end_once_each(run: Run) -> None:
    done = run({"tun": False, "memory": 1 << 20})
    assert done.returncode == 2
    assert "2 problems on vps1, told at the end; nothing was changed there" in done.stdout
    assert done.stdout.count("/dev/net/tun isn't there") == 1
    assert "\nvps1: the host has 1 MiB of memory" in done.stdout.partition("SITES AND VPSES")[2]


def judged(act: Callable[..., dict[str, Any]], survey: dict[str, Any], accept: list[str]) -> dict[str, Any]:
    found = {"survey": {**SURVEY, **survey}, "clock_ahead": 0.0}
    arguments = {"slice": SLICE, "found": found, "accept": accept}
    return act("mpquic_preflight", arguments, {"inventory_hostname": "vps1"})


def test_an_accepted_problem_is_a_warning(act: Callable[..., dict[str, Any]]) -> None:
    result = judged(act, {"memory": 1 << 20}, ["memory", " clock", ""])
    assert not result.get("failed")
    (warning,) = result["warnings"]
    assert warning.startswith("vps1: the host has 1 MiB of memory")
    assert [each["severity"] for each in result["findings"]] == ["notice"]


def test_a_host_is_compared_with_those_that_the_run_has_surveyed(act: Callable[..., dict[str, Any]]) -> None:
    found = {"survey": {**SURVEY, "machine_id": "a" * 32}, "clock_ahead": 0.0}
    variables = {
        "inventory_hostname": "vps1",
        "ansible_play_hosts": ["vps1", "site1", "site2", "site3"],
        "hostvars": {
            "site1": {"mpquic_survey": {"survey": {"machine_id": "a" * 32}}},
            "site2": {"mpquic_survey": {"msg": "unreachable"}},
            "site3": {},
        },
    }
    result = act("mpquic_preflight", {"slice": SLICE, "found": found, "accept": []}, variables)
    (warning,) = result["warnings"]
    assert "/etc/machine-id is that of site1, too" in warning


@pytest.mark.parametrize("code", ["locked-out", "everything"])
def test_what_can_not_be_accepted_is_refused_with_what_can(act: Callable[..., dict[str, Any]], code: str) -> None:
    result = judged(act, {}, ["clock", code])
    assert result["failed"] is True
    assert result["msg"].startswith(f"mpquic_accept: {code} can't be accepted; these can: clock, closed-services,")


def test_the_way_of_ssh_and_the_clock_are_those_of_the_host(run: Run, playbook: Playbook) -> None:
    begun = time.monotonic()
    assert run({"ahead": -3600.0}, connection="node").returncode == 0
    assert abs(found(playbook)["clock_ahead"] + 3600.0) < time.monotonic() - begun
    assert found(playbook)["survey"]["connection"] is None, "it isn't the controller's user that came by ssh"


def test_a_survey_that_fails_stops_the_host(run: Run, playbook: Playbook) -> None:
    playbook.put("library/host_survey.py", MODULE % (playbook.folder / "nowhere"))
    assert run({}).returncode == 2
