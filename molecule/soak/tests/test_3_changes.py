"""Classes that go, come and change their names leave nothing behind, and cost those that stay no packet."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from mpqlab.edited_site import EditedSite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mpqlab.testing import Lab

    from .conftest import Call

GONE = ("br1", "br2", "br3", "df1", "df2", "df3")
STAYING = ("cr1", "cr2", "cr3")


@pytest.fixture
def edited_site(lab: Lab, tmp_path: Path) -> Iterator[EditedSite]:
    """`site.yml` with edited variables; the site is as before afterwards."""
    run = EditedSite(tmp_path)
    yield run
    if run.differs:
        lab.playbook()


def only_critical(site: dict[str, Any]) -> None:
    for wan in site["wans"]:
        if "classes" in wan:
            wan["classes"] = ["critical"]
    for lan in site["lans"]:
        lan["vlans"] = [vlan for vlan in lan.get("vlans", []) if vlan.get("class") == "critical"]


def renamed(site: dict[str, Any]) -> None:
    names = {"critical": "calls", "bulk": "rest", "default": "web"}
    for entry in site["classes"]:
        entry["name"] = names[entry["name"]]
    for lan in site["lans"]:
        for vlan in lan.get("vlans", []):
            if "class" in vlan:
                vlan["class"] = names[vlan["class"]]


def traces(lab: Lab, names: tuple[str, ...]) -> list[str]:
    """What is there of tunnels on both machines: files, units, devices, rules, routes, chains, marks."""
    listings = {
        "files": "grep -rlwE '{names}' /etc/mpquic /etc/systemd/network /etc/iproute2/rt_tables.d || true",
        "names": "ls /etc/mpquic/instances /etc/systemd/network | grep -wE '{names}' || true",
        "units": "systemctl list-units --all --plain --no-legend 'mpquic@*' | grep -wE '{names}' || true",
        "links": "ip -o link | grep -wE '{names}' || true",
        "rules": "(ip -4 rule; ip -6 rule) | grep -wE '{names}' || true",
        "routes": "(ip -4 route show table all; ip -6 route show table all) | grep -wE '{names}' || true",
        "filter": "nft list ruleset | grep -wE '{names}' || true",
    }
    pattern = "|".join(names)
    return [
        f"{node}: {what}: {line}"
        for node in ("client", "vps")
        for what, command in listings.items()
        for line in lab.run(node, command.format(names=pattern)).splitlines()
    ]


def lost(calls: dict[str, Call], names: tuple[str, ...]) -> dict[str, float]:
    """Packets that calls have lost, where any was; all calls end."""
    ends = {tunnel: call.end() for tunnel, call in calls.items() if tunnel in names}
    assert all(end["sent"] > 500 for end in ends.values())
    return {tunnel: end["lost"] for tunnel, end in ends.items() if end["lost"]}


def test_from_nine_tunnels_to_three_and_back(lab: Lab, calls: dict[str, Call], edited_site: EditedSite) -> None:
    assert traces(lab, GONE)
    assert edited_site(only_critical).status == 0
    assert traces(lab, GONE) == []
    assert edited_site(only_critical).changed == []
    lab.playbook()
    edited_site.differs = False
    for tunnel in (*GONE, *STAYING):
        lab.wait_state(tunnel, "up", within=30)
    assert lost(calls, STAYING) == {}


def test_a_class_gets_another_name(lab: Lab, calls: dict[str, Call], edited_site: EditedSite) -> None:
    before = lab.run("client", "systemctl show -P MainPID " + " ".join(f"mpquic@{name}" for name in (*GONE, *STAYING)))
    assert edited_site(renamed).status == 0
    shown = {row["name"]: row["class"] for row in json.loads(lab.run("client", "mpquicctl status --json"))}
    assert {shown[name] for name in STAYING} == {"calls"}
    assert edited_site(renamed).changed == []
    after = lab.run("client", "systemctl show -P MainPID " + " ".join(f"mpquic@{name}" for name in (*GONE, *STAYING)))
    assert after == before
    assert lost(calls, (*GONE, *STAYING)) == {}
