"""What all roles have in common, read from their tasks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

ROLES = Path(__file__).parents[2] / "roles"


def tasks(entries: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each task of a list, and those in its blocks."""
    for entry in entries:
        yield entry
        for part in ("block", "rescue", "always"):
            yield from tasks(entry.get(part, []))


def test_whoever_calls_apt_waits_for_the_upgrades_of_a_first_boot() -> None:
    """They hold the locks for minutes, and Ansible's default is one: https://github.com/ansible/ansible/issues/51663."""
    files = sorted(ROLES.glob("*/tasks/*.yml"))
    calls = {
        f"{file.parts[-3]}: {task['name']}": task["ansible.builtin.apt"].get("lock_timeout", 60)
        for file in files
        for task in tasks(yaml.safe_load(file.read_text()))
        if "ansible.builtin.apt" in task
    }
    assert len(calls) >= 3
    assert {name: seconds for name, seconds in calls.items() if seconds < 600} == {}


def test_units_of_systemd_that_others_mask_are_unmasked_or_left_alone() -> None:
    """Masking systemd-networkd-wait-online is what people do against long boots, and enabling it fails then."""
    files = sorted((ROLES / "networkd/tasks").glob("*.yml"))
    found = [task for file in files for task in tasks(yaml.safe_load(file.read_text()))]
    units = {
        task["ansible.builtin.systemd_service"]["name"]: task
        for task in found
        if "ansible.builtin.systemd_service" in task
    }
    assert units["systemd-networkd.service"]["ansible.builtin.systemd_service"]["masked"] is False
    assert "networkd_wait_online != 'masked'" in units["systemd-networkd-wait-online.service"]["when"]


def test_a_check_sees_every_file_that_a_role_writes() -> None:
    """It includes the tasks `files` of the roles, and is told what differs by owned_files alone."""
    files = sorted(ROLES.glob("*/tasks/files.yml"))
    writers = {"copy", "template", "file", "lineinfile", "blockinfile", "assemble"}
    found = {
        f"{file.parts[-3]}: {task['name']}"
        for file in files
        for task in tasks(yaml.safe_load(file.read_text()))
        if {key.removeprefix("ansible.builtin.") for key in task} & writers
    }
    assert found == set()
    play = yaml.safe_load((ROLES.parent / "playbooks/check.yml").read_text())[-1]
    (include,) = (task for task in play["tasks"] if task["name"] == "Compare the files of each role")
    assert {file.parts[-3] for file in files} == set(include["loop"])


def test_what_the_roles_write_goes_when_a_host_leaves() -> None:
    """Links of systemd-networkd go with the network, and resolv.conf stays."""
    settings = yaml.safe_load((ROLES / "decommission/defaults/main.yml").read_text())
    gone = {
        *settings["decommission_files"],
        *(f"/etc/systemd/system/{unit}" for unit in settings["decommission_units"]),
    }
    golden = ROLES.parent / "molecule/render/golden"
    written = {
        "/" + file.relative_to(host).as_posix()
        for host in golden.iterdir()
        for file in (host / "etc").rglob("*")
        if file.is_file()
    }
    left = {
        path
        for path in written - {"/etc/resolv.conf"}
        if path not in gone and not path.startswith(("/etc/mpquic/", "/etc/systemd/network/05-mpquic-"))
    }
    assert len(written) > 20
    assert left == set()
    release = tasks(yaml.safe_load((ROLES / "daemon/tasks/release.yml").read_text()))
    installed = next(task["venv_release"] for task in release if "venv_release" in task)
    links = {f"/usr/local/bin/{name}" for name in installed["commands"]}
    links |= {f"/usr/local/share/{name}" for name in installed["shared"]}
    assert links - gone == set()
