"""A site and its VPS as the check sees them when all is well, made from the reference site's plan."""

from __future__ import annotations

import copy
import datetime as dt
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import mpquic_plan
import pytest
from mpquic_plan.check import Certificate, Controller, Fleet, Host, Result, judge
from mpquic_plan.check.finding import identity_of

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)
RELEASE = "0.2.0-0123456789ab-3.11-x86_64"
MONOTONIC = 90_000.0
TYPES = {"unicast": "1", "blackhole": "6", "unreachable": "7"}
TABLE = "table inet mpquic {\n\tip saddr 10.200.5.0/30 masquerade\n\tct state established accept\n}\n"
Plain = dict[str, Any]


def certificate(serial: str, days: float = 500, **more: Any) -> Certificate:
    return Certificate(serial * 8, serial, NOW - dt.timedelta(days=1), NOW + dt.timedelta(days=days), **more)


def links_of(plan: Plain) -> list[Plain]:
    return [link for kind in ("management", "wans", "lans", "tuns") for link in plan.get(kind, [])]


def rules_of(plan: Plain, family: str) -> list[Plain]:
    """What `ip -json -N rule show` prints of a host that is as planned, with the kernel's own."""
    found: list[Plain] = [{"priority": 0, "src": "all", "table": "255"}]
    for link in links_of(plan):
        for rule in link.get("rules", []):
            if rule["family"] in ("both", family):
                source, _, length = (rule["from"] or "all").partition("/")
                entry = {"priority": rule["priority"], "src": source, "table": str(rule["table"]), "protocol": "4"}
                # A single address is printed without a length.
                entry |= {"srclen": int(length)} if length not in ("", "32", "128") else {}
                entry |= {"iif": rule["incoming_interface"]} if rule["incoming_interface"] else {}
                entry |= {"oif": rule["outgoing_interface"]} if rule["outgoing_interface"] else {}
                found.append(entry)
    return found


def routes_of(plan: Plain, family: str) -> list[Plain]:
    """What `ip -json -N route show table all` prints, with routes that come by DHCP."""
    found: list[Plain] = [
        {"dst": "default", "gateway": "198.51.100.1", "dev": "enp7s7", "table": "105", "protocol": "16"}
    ]
    for link in links_of(plan):
        for route in link["routes"]:
            if (":" in route["destination"]) != (family == "ipv6"):
                continue
            address, _, length = route["destination"].partition("/")
            shown = "default" if length == "0" else address if length in ("32", "128") else route["destination"]
            entry: Plain = {"dst": shown, "protocol": "4"}
            entry |= {"table": str(route["table"])} if route["table"] else {}
            if route["type"] == "unicast":
                entry["dev"] = link.get("device", link["name"])
            else:
                entry["type"] = TYPES[route["type"]]
            found.append(entry)
    return found


def unit(name: str, **more: str) -> Plain:
    return {
        "Id": name,
        "LoadState": "loaded",
        "ActiveState": "active",
        "UnitFileState": "static" if "@" in name else "enabled",
        "Result": "success",
        "MainPID": "700",
        "NRestarts": "0",
        "NeedDaemonReload": "no",
        "ActiveEnterTimestampMonotonic": str(int((MONOTONIC - 50_000) * 1e6)),
        "Release": RELEASE,
        **more,
    }


def look_at(plan: Plain) -> Plain:
    names = ["mpquic-linkd.service", *(f"mpquic@{each['name']}.service" for each in plan["instances"])]
    return {
        "time": NOW.timestamp(),
        "monotonic": MONOTONIC,
        "uptime": 80_000.0,
        "units": {
            **{name: unit(name) for name in names},
            "mpquic-firewall.service": unit("mpquic-firewall.service", MainPID="0") | {"Release": None},
        },
        "current_release": RELEASE,
        "versions": [],
        "applied": NOW.timestamp() - 40_000,
        "links": {link.get("device", link["name"]): True for link in links_of(plan)},
        "rules": {family: rules_of(plan, family) for family in ("ipv4", "ipv6")},
        "routes": {family: routes_of(plan, family) for family in ("ipv4", "ipv6")},
        "network_files": {
            f"/etc/systemd/network/{link['file']}.network": "[Network]\n"
            + "".join(f"Address={address}\n" for address in link["addresses"])
            for link in links_of(plan)
        },
        "filter_file": "ip saddr 10.200.5.0/30 masquerade\n",
        "filter": TABLE,
        "filter_wanted": TABLE,
        "saved_tables": {},
        "resolv_conf": "nameserver 10.10.11.1\n",
        "revoked": "# Written by Ansible (role pki).\n",
    }


def rows_of(plan: Plain) -> list[Plain]:
    rows = []
    for each in plan["instances"]:
        row = {"name": each["name"], "role": each["config"]["role"], "state": "up", "certificate": {"serial": "0A:b1"}}
        peers = [{"identity": peer["identity"], "connected": True} for peer in each["config"].get("peers", [])]
        rows.append(row | ({"peers": peers} if peers else {}))
    return rows


def sound(name: str, plan: Plain) -> Host:
    rows = rows_of(plan)
    forward = plan["firewall"].get("forward", [])
    return Host(
        name,
        plan,
        {
            "instances": {each["name"]: json.dumps(each["config"]) for each in plan["instances"]},
            "resolv_conf": "/etc/resolv.conf",
        },
        look_at(plan),
        look_at(plan),
        health=[{"problems": [], "tunnels": rows}, {"problems": [], "tunnels": copy.deepcopy(rows)}],
        replies={each["name"]: {"sent": 10, "received": 10} for each in plan["instances"]},
        forwarding={"passed": [f"{pair['from']} to {pair['to']}" for pair in forward], "idle": [], "untried": []},
        release=RELEASE,
        ca=certificate("ca"),
        certificate=certificate("ab1"),
    )


@pytest.fixture
def hosts(reference: dict[str, Plain]) -> dict[str, Host]:
    """The client of the reference site and its VPS; facts may be changed in place."""
    plain = json.loads(json.dumps(mpquic_plan.build(reference), default=str))
    return {name: sound(name, plan) for name, plan in plain.items()}


@pytest.fixture
def client(hosts: dict[str, Host]) -> Host:
    return hosts["site1-client"]


@pytest.fixture
def vps(hosts: dict[str, Host]) -> Host:
    return hosts["vps1"]


@pytest.fixture
def fleet(hosts: dict[str, Host]) -> Fleet:
    controller = Controller(NOW, certificate("ca"), "pki/prod/ca.crt")
    return Fleet(controller, hosts["vps1"], frozenset({identity_of(hosts["site1-client"].plan)}))


@pytest.fixture
def told(fleet: Fleet) -> Callable[..., list[str]]:
    """Findings of a host with a result, as `check: text` each."""

    def of(host: Host, result: Result = Result.PROBLEM, **changed: Any) -> list[str]:
        found = judge(host, replace(fleet, **changed))
        assert all(each.remedy for each in found if each.result is Result.PROBLEM), "what to do is always told"
        return [f"{each.check}: {each.text}" for each in found if each.result is result]

    return of


@pytest.fixture(name="certificate")
def certificate_factory() -> Callable[..., Certificate]:
    return certificate


@pytest.fixture(name="unit")
def unit_factory() -> Callable[..., Plain]:
    return unit


@pytest.fixture(name="make_sound")
def sound_factory() -> Callable[..., Host]:
    return sound
