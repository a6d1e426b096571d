"""The table at the end of a run: each host, how it went, what changed, its tunnels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from types import ModuleType

    from .conftest import Playbook


@pytest.fixture
def report(plugin: Callable[[str], ModuleType]) -> ModuleType:
    return plugin("callback/mpquic_report")


@pytest.mark.parametrize(
    ("state", "result"),
    [
        ({}, "not begun"),
        ({"begun": True}, "not finished"),
        ({"begun": True, "done": True}, "ok"),
        ({"begun": True, "done": True, "changed": {"base": 1}}, "changed"),
        ({"failed": "x"}, "stopped"),
        ({"failed": "x", "begun": True}, "failed"),
        ({"failed": "x", "begun": True, "unreachable": "y"}, "unreachable"),
    ],
)
def test_a_host_has_one_result(report: ModuleType, state: dict[str, Any], result: str) -> None:
    assert report.Row(**state).result() == result


def test_tunnels_are_grouped_by_their_state_and_those_that_carry_come_first(report: ModuleType) -> None:
    tunnels = [
        {"name": "mpq2", "state": "down"},
        {"name": "mpq3", "state": "up"},
        {"name": "mpq1", "state": "up"},
        {"name": "mpq4", "state": "inactive"},
    ]
    assert report.tunnels(report.Row(tunnels=tunnels)) == "up: mpq1, mpq3; down: mpq2; inactive: mpq4"
    assert report.tunnels(report.Row(tunnels=[])) == "none"
    assert report.tunnels(report.Row()) == "-"


def test_who_has_taken_a_tunnel_out_of_service_is_told_with_the_reason(report: ModuleType) -> None:
    tunnels = [
        {"name": "mpq3", "state": "up", "hold": None},
        {"name": "mpq5", "state": "held", "hold": {"by": "variables", "reason": ""}},
        {"name": "mpq4", "state": "held", "hold": {"by": "alice", "reason": "the dish is moved", "until": None}},
        {"name": "mpq6", "state": "held"},
        {"name": "mpq1", "state": "inactive"},
    ]
    assert report.tunnels(report.Row(tunnels=tunnels)) == (
        "up: mpq3; held: mpq4 (alice: the dish is moved), mpq5 (variables), mpq6; inactive: mpq1"
    )


def test_nothing_that_a_host_says_reaches_the_terminal_as_a_command(report: ModuleType) -> None:
    tunnels = [{"name": "mpq4", "state": "held", "hold": {"by": "alice", "reason": "\x1b[2J\n"}}]
    assert report.tunnels(report.Row(tunnels=tunnels)) == r"held: mpq4 (alice: \x1b[2J\n)"


def test_a_vps_is_up_and_tells_which_sites_are_out_of_service(report: ModuleType) -> None:
    hold = {"by": "the variables", "reason": "enabled: false"}
    peers = [
        {"identity": "urn:mpquic:site:north", "state": "held", "hold": hold},
        {"identity": "urn:mpquic:site:south", "state": "up", "hold": None},
        {"identity": "urn:mpquic:site:west", "state": "silent"},
    ]
    tunnels = [{"name": "mpq1", "state": "up", "peers": peers}, {"name": "mpq2", "state": "up", "peers": None}]
    assert report.tunnels(report.Row(tunnels=tunnels)) == (
        "up: mpq1, mpq2; held: mpq1 of north (the variables: enabled: false)"
    )


def test_the_table_has_a_line_for_each_host_in_columns(report: ModuleType) -> None:
    rows = {
        "vps1": report.Row(begun=True, done=True, tunnels=[{"name": "mpq1", "state": "listening"}]),
        "site1-client": report.Row(begun=True, done=True, changed={"base": 2, "daemon": 1}, tunnels=[]),
        "site2": report.Row(unreachable="timed out"),
    }
    assert report.table(rows) == [
        "HOST          RESULT       CHANGED           TUNNELS",
        "site1-client  changed      base 2, daemon 1  none",
        "site2         unreachable  nothing           -",
        "vps1          ok           nothing           listening: mpq1",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("no space left", "vps1: no space left"),
        ("no space left\nTraceback\n more", "vps1: no space left"),
        ("2 problems on vps1; nothing was changed there:\n- one\n- two\n", "vps1: one; two"),
        ("nothing below:\n", "vps1: nothing below:"),
        ("\n \n", "vps1: no reason given"),
    ],
)
def test_a_reason_is_one_line(report: ModuleType, text: str, line: str) -> None:
    assert report.reasons({"vps1": report.Row(failed=text), "site1": report.Row()}) == [line]


def test_problems_are_a_line_each(report: ModuleType) -> None:
    row = report.Row(failed="2 problems", problems=report.problems({"invocation": {"problems": ["one", "two"]}}))
    assert report.reasons({"vps1": row}) == ["vps1: one", "vps1: two"]
    row.conclude(failed=False, unreachable=False)
    assert report.reasons({"vps1": row}) == []


@pytest.mark.parametrize("result", [{}, {"invocation": None}, {"invocation": {"module_args": {}}}])
def test_a_result_of_a_module_has_no_problems(report: ModuleType, result: dict[str, Any]) -> None:
    assert report.problems(result) == []


def test_a_host_that_could_not_be_reached_has_that_as_its_reason(report: ModuleType) -> None:
    rows = {"site1": report.Row(failed="x", unreachable="Connection timed out")}
    assert report.reasons(rows) == ["site1: Connection timed out"]


@pytest.mark.parametrize(
    ("result", "cause"),
    [
        ({"msg": "a"}, "a"),
        ({"msg": "", "stderr": "b"}, "b"),
        ({}, "see above"),
        (
            {"msg": "One or more items failed", "results": [{"msg": "fine"}, {"failed": True, "msg": "c"}]},
            "c",
        ),
        ({"msg": "d", "results": [{"failed": False}, "x"]}, "d"),
    ],
)
def test_the_cause_of_a_loop_is_that_of_its_items(report: ModuleType, result: dict[str, Any], cause: str) -> None:
    assert report.failure(result) == cause


PLAY = """
- name: Look
  hosts: vps:sites
  gather_facts: false
  roles: [{role: preflight, tags: [always]}]

- name: Decide
  hosts: vps:sites
  gather_facts: false
  tags: [always]
  tasks:
    - ansible.builtin.include_role: {name: pki, tasks_from: authority}

- name: Provision
  hosts: vps:sites
  gather_facts: false
  pre_tasks:
    - ansible.builtin.fail: {msg: its VPS failed}
      when: refused | default(false)
  roles:
    - {role: base, tags: [base]}
    - {role: verify, tags: [verify]}
"""
HEALTH = """
from ansible.module_utils.basic import AnsibleModule

module = AnsibleModule(argument_spec={"tunnels": {"type": "list", "elements": "dict"}})
module.exit_json(changed=False, tunnels=module.params["tunnels"])
"""
INVENTORY = {
    "all": {
        "vars": {"ansible_connection": "local"},
        "children": {
            "vps": {"hosts": {"vps1": {"changes": False}}},
            "sites": {
                "hosts": {
                    "site1": {"changes": True},
                    "site2": {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1},
                    "site3": {"stopped": True},
                    "site4": {"fails": True},
                    "site5": {"rescued": True},
                    "site6": {"refused": True},
                }
            },
        },
    }
}


@pytest.fixture
def run(playbook: Playbook) -> Callable[..., subprocess.CompletedProcess[str]]:
    playbook.put("library/site_health.py", HEALTH)
    playbook.put("site.yml", PLAY)
    playbook.put(
        "roles/preflight/tasks/main.yml",
        "- ansible.builtin.ping:\n"
        "- ansible.builtin.fail: {msg: '1 problem on it; nothing was changed there:\n\n- it is stopped'}\n"
        "  when: stopped | default(false)\n",
    )
    playbook.put("roles/pki/meta/argument_specs.yml", "argument_specs: {authority: {options: {}}}\n")
    playbook.put(
        "roles/pki/tasks/authority.yml",
        "- ansible.builtin.command: 'true'\n  changed_when: true\n  run_once: true\n",
    )
    playbook.put(
        "roles/base/tasks/main.yml",
        "- ansible.builtin.ping:\n"
        "- ansible.builtin.command: 'true'\n  changed_when: changes | default(false)\n"
        "- ansible.builtin.command: 'true'\n  delegate_to: localhost\n  run_once: true\n"
        "- ansible.builtin.fail: {msg: '{{ item }} is wrong'}\n  loop: [it]\n  when: fails | default(false)\n"
        "- block:\n    - ansible.builtin.fail: {msg: never seen}\n      when: rescued | default(false)\n"
        "  rescue:\n    - ansible.builtin.ping:\n",
    )
    playbook.put(
        "roles/verify/tasks/main.yml",
        "- site_health: {tunnels: [{name: mpq1, state: up}]}\n  when: not ansible_check_mode\n",
    )

    def of(*more: str, name: str = "site.yml") -> subprocess.CompletedProcess[str]:
        return playbook.run(INVENTORY, *more, name=name)

    return of


def cells(done: subprocess.CompletedProcess[str]) -> dict[str, list[str]]:
    """The lines of the table by host, with their cells."""
    shown = done.stdout.partition("SITES AND VPSES")[2].partition("\n\n")[0].splitlines()[1:]
    return {line.split()[0]: line.split(maxsplit=2)[1:] for line in shown}


def test_every_way_in_which_a_host_comes_out_is_told(
    run: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = run()
    assert cells(done) == {
        "HOST": ["RESULT", "CHANGED  TUNNELS"],
        "site1": ["changed", "base 1   up: mpq1"],
        "site2": ["unreachable", "nothing  -"],
        "site3": ["stopped", "nothing  -"],
        "site4": ["failed", "nothing  -"],
        "site5": ["ok", "nothing  up: mpq1"],
        "site6": ["stopped", "nothing  -"],
        "vps1": ["ok", "nothing  up: mpq1"],
    }
    reasons = done.stdout.rpartition("SITES AND VPSES")[2].partition("\n\n")[2]
    assert "site3: it is stopped\n" in reasons
    assert "site4: it is wrong\n" in reasons
    assert "site2: " in reasons
    assert "never seen" not in reasons
    assert done.returncode in (2, 4)


@pytest.mark.parametrize("options", [["--tags", "base"], ["--skip-tags", "verify"], ["--check"]])
def test_a_host_is_done_without_the_verification_if_that_is_not_wanted(
    run: Callable[..., subprocess.CompletedProcess[str]], options: list[str]
) -> None:
    done = run("--limit", "vps1", *options)
    assert cells(done)["vps1"][0] == "ok", done.stdout
    assert done.returncode == 0


def test_other_playbooks_have_no_table(
    run: Callable[..., subprocess.CompletedProcess[str]], playbook: Playbook
) -> None:
    playbook.put("other.yml", PLAY)
    assert "SITES AND VPSES" not in run("--limit", "vps1", name="other.yml").stdout


def test_what_is_done_once_for_all_is_not_the_beginning_of_the_host_that_it_happens_to_run_on(
    run: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """With an unreachable VPS that's the first site, which is then left alone."""
    assert cells(run("--limit", "site6"))["site6"] == ["stopped", "nothing  -"]
