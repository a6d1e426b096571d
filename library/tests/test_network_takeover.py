"""Other programs no longer configure the interfaces of a host, and what they had is kept."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import network_takeover
import pytest
from network_takeover import Host, take_files

if TYPE_CHECKING:
    from pathlib import Path

NETWORK = "etc/systemd/network"


class Machine:
    """The files of a host below a folder, and the module on them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.kept = root / "var/lib/mpquic/before"
        self.note = root / "var/lib/mpquic/taken-over.json"

    def put(self, path: str, text: str = "theirs\n", mode: int = 0o600) -> Path:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(mode)
        return place

    def host(self, *, dry: bool = False) -> Host:
        return Host(self.root, self.kept, dry=dry)

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if not path.is_dir())

    def run(self, umask: int = 0o077, **arguments: Any) -> dict[str, Any]:
        words = {"root": str(self.root), "kept": str(self.kept), "note": str(self.note), **arguments}
        done = subprocess.run(
            [sys.executable, network_takeover.__file__],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": words}),
            capture_output=True,
            text=True,
            check=False,
            umask=umask,
        )
        result: dict[str, Any] = json.loads(done.stdout)
        return result


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def is_masked(path: Path) -> bool:
    return path.is_symlink() and str(path.readlink()) == os.devnull


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_moved_to_where_it_is_kept_with_its_path_and_mode(machine: Machine) -> None:
    machine.put(f"{NETWORK}/10-all.network", "[Match]\nName=en*\n", 0o640)
    host = machine.host()
    host.move(f"/{NETWORK}/10-all.network")
    kept = machine.kept / NETWORK / "10-all.network"
    assert kept.read_text() == "[Match]\nName=en*\n"
    assert mode(kept) == 0o640
    assert not (machine.root / NETWORK / "10-all.network").exists()
    assert host.taken == [f"moved /{NETWORK}/10-all.network"]


def test_a_second_file_of_the_same_path_is_kept_beside_the_first(machine: Machine) -> None:
    for text in ("first", "second", "third"):
        machine.put("etc/netplan/50.yaml", text)
        machine.host().move("/etc/netplan/50.yaml")
    kept = machine.kept / "etc/netplan"
    assert [(kept / name).read_text() for name in ("50.yaml", "50.yaml.1", "50.yaml.2")] == ["first", "second", "third"]


def test_a_file_that_is_gone_already_is_no_change(machine: Machine) -> None:
    host = machine.host()
    host.move(f"/{NETWORK}/10-all.network")
    assert host.taken == []
    assert machine.files() == []


@pytest.mark.parametrize("folder", ["usr/lib/systemd/network", "usr/local/lib/systemd/network", "lib/systemd/network"])
def test_a_file_of_a_package_is_masked_and_stays(machine: Machine, folder: str) -> None:
    packaged = machine.put(f"{folder}/80-all.network")
    host = machine.host()
    host.move(f"/{folder}/80-all.network")
    assert packaged.read_text() == "theirs\n"
    assert is_masked(machine.root / NETWORK / "80-all.network")
    assert host.taken == [f"masked /{NETWORK}/80-all.network"]
    again = machine.host()
    again.move(f"/{folder}/80-all.network")
    assert again.taken == []


def test_a_file_in_the_place_of_a_mask_is_kept(machine: Machine) -> None:
    machine.put("usr/lib/systemd/network/80-all.network")
    machine.put(f"{NETWORK}/80-all.network", "by hand\n")
    machine.host().move("/usr/lib/systemd/network/80-all.network")
    assert is_masked(machine.root / NETWORK / "80-all.network")
    assert (machine.kept / NETWORK / "80-all.network").read_text() == "by hand\n"


def test_netplan_loses_its_files_and_its_generator(machine: Machine) -> None:
    machine.put("etc/netplan/50-cloud-init.yaml", "network: {}\n")
    machine.put("run/netplan/10.yaml")
    take_files(machine.host(), "netplan")
    assert is_masked(machine.root / "etc/systemd/system-generators/netplan")
    assert machine.files() == [
        "etc/systemd/system-generators/netplan",
        "var/lib/mpquic/before/etc/netplan/50-cloud-init.yaml",
        "var/lib/mpquic/before/run/netplan/10.yaml",
    ]


def test_a_name_that_netplan_gave_to_a_card_stays(machine: Machine) -> None:
    machine.put("run/systemd/network/10-netplan-wan1.link", "[Match]\nMACAddress=a\n\n[Link]\nName=wan1\n")
    machine.put("run/systemd/network/10-netplan-b.link", "[Match]\nOriginalName=b\nName=b\n\n[Link]\nWakeOnLan=off\n")
    host = machine.host()
    take_files(host, "netplan")
    assert "Name=wan1" in (machine.root / NETWORK / "10-netplan-wan1.link").read_text()
    assert not (machine.root / NETWORK / "10-netplan-b.link").exists()
    again = machine.host()
    take_files(again, "netplan")
    assert again.taken == []


def test_cloud_init_is_told_to_leave_the_network_alone(machine: Machine) -> None:
    machine.put("etc/network/interfaces.d/50-cloud-init")
    machine.put(f"{NETWORK}/10-cloud-init-eth0.network")
    take_files(machine.host(), "cloud-init")
    configuration = machine.root / "etc/cloud/cloud.cfg.d/99-mpquic-network.cfg"
    assert "network: {config: disabled}" in configuration.read_text()
    assert mode(configuration) == 0o644
    again = machine.host()
    take_files(again, "cloud-init")
    assert again.taken == []


@pytest.mark.parametrize("manager", ["netplan", "cloud-init"])
def test_check_mode_says_what_would_be_done_and_does_nothing(machine: Machine, manager: str) -> None:
    machine.put("etc/netplan/50.yaml")
    machine.put(f"{NETWORK}/10-cloud-init-eth0.network")
    machine.put("usr/lib/systemd/network/80-all.network")
    machine.put("run/systemd/network/10-netplan-wan1.link", "[Link]\nName=wan1\n")
    before = machine.files()
    host = machine.host(dry=True)
    take_files(host, manager)
    host.move("/usr/lib/systemd/network/80-all.network")
    assert len(host.taken) >= 3
    assert machine.files() == before
    outcome = machine.run(files=[f"/{NETWORK}/10-cloud-init-eth0.network"], _ansible_check_mode=True)
    assert outcome["changed"] is True
    assert machine.files() == before


def test_modes_do_not_depend_on_the_umask(machine: Machine) -> None:
    machine.put(f"{NETWORK}/10-all.network", mode=0o644)
    outcome = machine.run(files=[f"/{NETWORK}/10-all.network"], managers=["netplan", "cloud-init"], umask=0o077)
    assert outcome["changed"] is True, outcome
    folders = ["etc/systemd/system-generators", "etc/cloud/cloud.cfg.d", "var/lib/mpquic", "var/lib/mpquic/before"]
    assert [mode(machine.root / folder) for folder in folders] == [0o755] * 4
    assert mode(machine.note) == mode(machine.kept / NETWORK / "10-all.network") == 0o644


def test_a_second_run_changes_nothing(machine: Machine) -> None:
    machine.put(f"{NETWORK}/10-all.network")
    words = {"files": [f"/{NETWORK}/10-all.network"], "managers": ["netplan", "cloud-init"]}
    assert machine.run(**words)["changed"] is True
    assert machine.run(**words) | {"invocation": None} == {"changed": False, "taken": [], "invocation": None}
    assert machine.run()["changed"] is False


def test_the_note_collects_what_all_runs_have_taken(machine: Machine) -> None:
    machine.run(managers=["netplan"])
    machine.run(managers=["cloud-init"], files=["/etc/systemd/network/x.network"])
    assert json.loads(machine.note.read_text()) == {
        "files": ["/etc/systemd/network/x.network"],
        "managers": ["cloud-init", "netplan"],
    }


def test_a_run_that_takes_nothing_notes_that_it_was_there(machine: Machine) -> None:
    assert machine.run()["changed"] is True
    assert json.loads(machine.note.read_text()) == {"files": [], "managers": []}


@pytest.mark.parametrize("damage", ["", '{"files": [', "[]"])
def test_a_damaged_note_is_written_anew(machine: Machine, damage: str) -> None:
    machine.put("var/lib/mpquic/taken-over.json", damage)
    assert machine.run(managers=["netplan"])["changed"] is True
    assert json.loads(machine.note.read_text())["managers"] == ["netplan"]


def test_a_link_among_what_is_kept_is_not_followed(machine: Machine) -> None:
    theirs = machine.root / "theirs"
    theirs.mkdir()
    machine.put("etc/netplan/50.yaml", "secret\n")
    (machine.kept / "etc/netplan").mkdir(parents=True)
    (machine.kept / "etc/netplan/50.yaml").symlink_to(theirs / "dangling")
    machine.host().move("/etc/netplan/50.yaml")
    assert list(theirs.iterdir()) == []
    assert (machine.kept / "etc/netplan/50.yaml.1").read_text() == "secret\n"


@pytest.mark.parametrize("link", ["var/lib/mpquic/before", "var/lib/mpquic/before/etc"])
def test_a_folder_that_is_a_link_is_refused_with_its_path(machine: Machine, link: str) -> None:
    theirs = machine.root / "theirs"
    theirs.mkdir()
    machine.put("etc/netplan/50.yaml", "secret\n")
    place = machine.root / link
    place.parent.mkdir(parents=True)
    place.symlink_to(theirs)
    outcome = machine.run(managers=["netplan"])
    assert outcome["failed"] is True
    assert outcome["msg"] == f"{place} is a symbolic link, and the former files would go elsewhere"
    assert list(theirs.iterdir()) == []
    assert (machine.root / "etc/netplan/50.yaml").read_text() == "secret\n"
    assert not machine.note.exists()


def test_a_link_is_moved_as_a_link(machine: Machine) -> None:
    target = machine.put("srv/shared.network")
    place = machine.root / NETWORK / "10-all.network"
    place.parent.mkdir(parents=True)
    place.symlink_to(target)
    machine.host().move(f"/{NETWORK}/10-all.network")
    assert (machine.kept / NETWORK / "10-all.network").is_symlink()
    assert target.exists()


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An imitation that knows NetworkManager.service alone; its calls are in the file that is returned."""
    calls = tmp_path / "calls"
    program = tmp_path / "bin/systemctl"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$*" >>{calls}\n'
        'case "$1 $2" in\n'
        '"cat NetworkManager.service") exit 0;;\n'
        '"cat "*) exit 1;;\n'
        '"mask "*) exit ${MASK_FAILS:-0};;\n'
        "esac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return calls


def test_a_service_is_masked_before_it_is_killed_so_that_it_leaves_its_addresses(
    tmp_path: Path, systemctl: Path
) -> None:
    machine = Machine(tmp_path / "host")
    outcome = machine.run(managers=["NetworkManager"])
    assert outcome["taken"] == ["masked NetworkManager.service"]
    assert [line for line in systemctl.read_text().splitlines() if not line.startswith("cat ")] == [
        "mask NetworkManager.service",
        "kill --kill-whom=all --signal=KILL NetworkManager.service",
        "stop NetworkManager.service",
    ]


def test_a_unit_of_somebodys_own_gives_way_to_the_mask_and_is_kept(tmp_path: Path, systemctl: Path) -> None:
    machine = Machine(tmp_path / "host")
    own = "etc/systemd/system/NetworkManager.service"
    place = machine.root / own
    place.parent.mkdir(parents=True)
    place.write_text("[Service]\n")
    outcome = machine.run(managers=["NetworkManager"])
    assert outcome["taken"] == [f"moved /{own}", "masked NetworkManager.service"]
    assert not place.exists()
    assert (machine.kept / own).read_text() == "[Service]\n"
    assert "mask NetworkManager.service" in systemctl.read_text()


def test_a_service_that_can_not_be_masked_is_named_and_nothing_is_noted(
    tmp_path: Path, systemctl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASK_FAILS", "1")
    machine = Machine(tmp_path / "host")
    outcome = machine.run(managers=["NetworkManager"])
    assert outcome["failed"] is True
    assert "NetworkManager.service can't be masked" in outcome["msg"]
    assert "kill" not in systemctl.read_text()
    assert not machine.note.exists()


def test_a_service_is_left_alone_in_check_mode(tmp_path: Path, systemctl: Path) -> None:
    outcome = Machine(tmp_path / "host").run(managers=["NetworkManager"], _ansible_check_mode=True)
    assert outcome["taken"] == ["masked NetworkManager.service"]
    assert "mask" not in systemctl.read_text()


def process(proc: Path, number: str, name: str, namespace: str = "net:[1]") -> None:
    folder = proc / number
    (folder / "ns").mkdir(parents=True)
    (folder / "comm").write_text(f"{name}\n")
    (folder / "ns/net").symlink_to(namespace)


def test_dhcp_clients_of_ifupdown_are_those_in_the_namespace_of_the_host(tmp_path: Path) -> None:
    """Debian 13's ifupdown starts dhcpcd, whose package brings no unit: https://lists.debian.org/debian-devel/2025/10/msg00201.html."""
    process(tmp_path, "self", "python3")
    process(tmp_path, "10", "dhclient")
    process(tmp_path, "11", "dhcpcd")
    process(tmp_path, "12", "dhcpcd", "net:[2]")
    process(tmp_path, "13", "sshd")
    (tmp_path / "14").mkdir()
    (tmp_path / "uptime").touch()
    assert network_takeover.dhcp_clients(tmp_path) == {10: "dhclient", 11: "dhcpcd"}


def test_dhcp_clients_are_killed_as_they_would_take_their_addresses_away(machine: Machine) -> None:
    with subprocess.Popen(["sleep", "60"]) as client:
        host = machine.host(dry=True)
        network_takeover.stop_dhcp_clients(host, {client.pid: "dhcpcd"}, dry=True)
        assert client.poll() is None
        assert host.taken == [f"stopped dhcpcd, process {client.pid}"]
        network_takeover.stop_dhcp_clients(machine.host(), {client.pid: "dhcpcd"}, dry=False)
        assert client.wait(timeout=10) == -signal.SIGKILL
    network_takeover.stop_dhcp_clients(machine.host(), {client.pid: "dhcpcd"}, dry=False)
