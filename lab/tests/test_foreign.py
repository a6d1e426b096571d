"""What other programs leave on a host is what those programs write."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from mpqlab.foreign import netplan, netplan_generator, programs
from mpqlab.topology import MACHINES

if TYPE_CHECKING:
    from pathlib import Path

NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,11}", fullmatch=True)
ADDRESSES = st.ip_addresses(v=4).map(lambda address: f"{address}/24")


def generated(tmp_path: Path, machine: str) -> dict[str, str]:
    sources = tmp_path / "netplan"
    sources.mkdir()
    for path, file in netplan.program(machine).files.items():
        if path.startswith("etc/netplan/"):
            (sources / path.rpartition("/")[2]).write_text(file.text)
    netplan_generator.generate(sources, tmp_path / "network")
    return {path.name: path.read_text() for path in (tmp_path / "network").iterdir()}


def test_netplan_on_the_client_takes_all_that_begins_with_en_and_one_wan(tmp_path: Path) -> None:
    files = generated(tmp_path, "client")
    assert set(files) == {"10-netplan-all-en.network", "10-netplan-enp7s7.network"}
    assert files["10-netplan-all-en.network"] == (
        "[Match]\nName=en*\n\n[Network]\nDHCP=yes\nLinkLocalAddressing=ipv6\n\n[DHCP]\nRouteMetric=100\nUseMTU=true\n"
    )
    assert "Name=enp7s7\n" in files["10-netplan-enp7s7.network"]
    assert "DHCP=ipv4\n" in files["10-netplan-enp7s7.network"]


def test_netplan_on_the_vps_gives_it_the_addresses_of_its_provider(tmp_path: Path) -> None:
    (text,) = generated(tmp_path, "vps").values()
    for line in ("Name=ens18", "Address=203.0.113.10/24", "Gateway=203.0.113.1", "Gateway=2001:db8:113::1"):
        assert f"{line}\n" in text
    assert "DHCP=" not in text


@given(st.dictionaries(NAMES, st.lists(ADDRESSES, max_size=3), min_size=1, max_size=4))
def test_each_device_has_a_file_with_its_addresses(devices: dict[str, list[str]]) -> None:
    document = {name: {"addresses": addresses} for name, addresses in devices.items()}
    for name, addresses in devices.items():
        lines = netplan_generator.unit(name, document[name]).splitlines()
        assert f"Name={name}" in lines
        assert [line.partition("=")[2] for line in lines if line.startswith("Address=")] == addresses


def test_a_later_file_of_netplan_replaces_a_device_of_an_earlier_one(tmp_path: Path) -> None:
    for name, dhcp in (("10-a.yaml", True), ("20-b.yaml", False)):
        (tmp_path / name).write_text(yaml.safe_dump({"network": {"ethernets": {"ens3": {"dhcp4": dhcp}}}}))
    assert netplan_generator.merged(tmp_path) == {"ens3": {"dhcp4": False}}


@pytest.mark.root
@pytest.mark.parametrize("order", [("docker", "ufw"), ("ufw", "docker")])
def test_rules_of_docker_and_ufw_load_beside_each_other_and_drop_what_is_forwarded(order: tuple[str, str]) -> None:
    if os.geteuid() != 0:
        pytest.fail("This test loads rules in a network namespace: run it as root.")
    rules = "".join(
        file.text
        for name in order
        for path, file in programs.PROGRAMS[name]("vps").files.items()
        if path.endswith(".nft")
    )
    done = subprocess.run(
        ["unshare", "--net", "sh", "-ec", "nft -f -; nft list ruleset"],
        input=rules,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for line in (
        "type filter hook forward priority filter; policy drop;",
        "type filter hook input priority filter; policy drop;",
        "jump DOCKER-USER",
        "jump ufw-before-forward",
        "dnat to 172.17.0.2:80",
    ):
        assert line in done.stdout


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", programs.PROGRAMS)
def test_each_program_has_files_below_the_root(machine: str, name: str) -> None:
    files = programs.PROGRAMS[name](machine).files
    assert files
    assert not any(path.startswith("/") or ".." in path for path in files)


def test_netplan_alone_has_the_management_of_the_client_and_ifupdown_nothing(tmp_path: Path) -> None:
    files = netplan.alone("client").files
    (tmp_path / "a.yaml").write_text(files["etc/netplan/50-cloud-init.yaml"].text)
    devices = netplan_generator.merged(tmp_path)
    text = netplan_generator.unit("enp6s18", devices["enp6s18"])
    for line in ("Address=10.10.11.100/24", "DNS=10.10.11.1", "Gateway=10.10.11.1"):
        assert f"{line}\n" in text
    assert "Address=10.10.10.100/24\n" in netplan_generator.unit("enp6s19", devices["enp6s19"])
    assert "enp6s" not in files["etc/network/interfaces"].text
