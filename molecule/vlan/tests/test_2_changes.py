"""What is changed by variables, and what somebody takes away by hand, on a trunk with real VLANs."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

from mpqlab.testing import INTERNET, PROJECT
from mpqlab.waiting import wait_for

from .conftest import INVENTORY, SSH, ask, run_site

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mpqlab.testing import Lab

OLD, NEW = 22, 24
"""The VLAN that gets another number."""
DELETED = "enp6s21.23"


def check() -> subprocess.CompletedProcess[str]:
    """Run playbooks/check.yml."""
    words = ["ansible-playbook", "playbooks/check.yml", "-i", str(INVENTORY), "-i", str(SSH)]
    environment = os.environ | {"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "NO_COLOR": "1"}
    return subprocess.run(words, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=900, check=False)


def traces(lab: Lab, vlan: int) -> list[str]:
    """What is there of a VLAN on the client: files, devices, addresses, rules, routes, chains, counters."""
    names = rf"enp6s21\.{vlan}|lan2\.{vlan}|172\.16\.{vlan}\.|fd00:16:{vlan}:|2000{vlan}"
    listings = {
        "files": f"grep -rlE '{names}' /etc/mpquic /etc/systemd/network /etc/iproute2 || true",
        "names": f"find /etc/systemd/network /run/systemd/network -name '*.{vlan}.*' || true",
        "links": f"ip -o link | grep -E '{names}' || true",
        "addresses": f"ip -o address | grep -E '{names}' || true",
        "rules": f"(ip -4 rule; ip -6 rule) | grep -E '{names}' || true",
        "routes": f"(ip -4 route show table all; ip -6 route show table all) | grep -E '{names}' || true",
        "filter": f"nft list ruleset | grep -E '{names}' || true",
    }
    script = "\n".join(f"({command}) | sed 's/^/{what}: /'" for what, command in listings.items())
    return lab.run("client", script, timeout=120).splitlines()


def kinds(found: list[str]) -> set[str]:
    return {line.partition(":")[0] for line in found}


def test_a_second_run_changes_nothing() -> None:
    done = run_site()
    assert done.status == 0, done.output[-9000:]
    assert done.changed == []


def test_the_check_finds_nothing() -> None:
    done = check()
    assert done.returncode == 0, done.stdout[-9000:]


def test_the_check_names_a_vlan_device_that_somebody_has_deleted(lab: Lab) -> None:
    # systemd-networkd makes none again by itself, and the guard leaves it alone; the next test's run brings it back.
    lab.run("client", f"ip link delete {DELETED}")
    done = check()
    assert done.returncode == 2, done.stdout[-9000:]
    assert DELETED in done.stdout


def renumbered(site: dict[str, Any]) -> None:
    for vlan in site["lans"][0]["vlans"]:
        if vlan["id"] == OLD:
            vlan |= {"id": NEW, "address6": f"fd00:16:{NEW}::1/64"}
        else:
            vlan["pcp"] = 3


def test_a_vlan_that_gets_another_number_leaves_nothing_of_the_old_one(
    lab: Lab, edited: Callable[[Callable[[dict[str, Any]], None]], Path]
) -> None:
    assert kinds(traces(lab, OLD)) == {"files", "names", "links", "addresses", "rules", "routes", "filter"}
    done = run_site(inventory=edited(renumbered))
    assert done.status == 0, done.output[-9000:]
    assert traces(lab, OLD) == []
    assert kinds(traces(lab, NEW)) == {"files", "names", "links", "addresses", "rules", "routes", "filter"}
    wait_for(lambda: ask(lab, NEW, INTERNET) > 0, 30, f"traffic by VLAN {NEW}")
    # The deleted one is there again, and those that stay have the other priority.
    links = {link["ifname"]: link for link in json.loads(lab.run("client", "ip -d -j link show type vlan"))}
    assert sorted(links) == ["enp6s21.21", DELETED, f"enp6s21.{NEW}"]
    for name in ("enp6s21.21", DELETED):
        assert {each["to"] for each in links[name]["linkinfo"]["info_data"]["egress_qos"]} == {3}
