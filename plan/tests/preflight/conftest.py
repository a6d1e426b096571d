"""Hosts of the reference site as the preflight sees them: their slices of the plan, and surveys of sound machines."""

from __future__ import annotations

import copy
import json
import re
from typing import TYPE_CHECKING, Any

import mpquic_plan
import pytest
from mpquic_plan.preflight import Host, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MIB = 1 << 20
GIB = 1 << 30
Survey = dict[str, Any]


def link(kind: str = "", *addresses: str, **more: Any) -> dict[str, Any]:
    """A link as `host_survey` lists it."""
    return {
        "mac": "52:54:00:00:00:01",
        "permanent_mac": "",
        "kind": kind,
        "master": "",
        "altnames": [],
        "lease": {"address": "", "client": ""},
        "addresses": list(addresses),
        **more,
    }


def listener(
    protocol: str, address: str, port: int, process: str = "", unit: str = "", device: str = "", pid: int = 700
) -> dict[str, Any]:
    """A socket as `host_survey` lists it."""
    return {
        "protocol": protocol,
        "address": address,
        "device": device,
        "port": port,
        "process": process,
        "pid": pid if process else 0,
        "unit": unit,
    }


SSHD = [
    listener("tcp", "0.0.0.0", 22, "sshd", "ssh.service"),
    listener("tcp", "::", 22, "sshd", "ssh.service"),
]


def _survey(device: str, address: str) -> Survey:
    manager = {"installed": False, "active": False, "enabled": "", "files": [], "generator_masked": False}
    return {
        "connection": {"client": "198.51.100.20", "address": address, "port": 22, "device": device},
        "system": {
            "ID": "debian",
            "VERSION_ID": "12",
            "PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)",
            "init": "systemd",
            "apt": True,
            "python": [3, 11],
        },
        "links": {"lo": link("", "127.0.0.1/8", "::1/128", mac="00:00:00:00:00:00")},
        "default_routes": [{"family": 4, "device": device, "gateway": "203.0.113.1"}],
        "sockets": list(SSHD),
        "filters": [],
        "nft": True,
        "legacy_filters": [],
        "units": {},
        "ufw_enabled": False,
        "network_files": [],
        "managers": {
            name: copy.deepcopy(manager) for name in ("ifupdown", "netplan", "cloud-init", "NetworkManager", "dhcpcd")
        },
        "cloud_network": False,
        "taken_over": None,
        "disk": {
            "/": {"bytes": 8 * GIB, "inodes": 500_000, "device": 1},
            "/opt": {"bytes": 8 * GIB, "inodes": 500_000, "device": 1},
            "/var/lib": {"bytes": 8 * GIB, "inodes": 500_000, "device": 1},
            "/tmp": {"bytes": 1 * GIB, "inodes": 500_000, "device": 2},
            "/run": {"bytes": 100 * MIB, "inodes": 100_000, "device": 3},
        },
        "memory": 2 * GIB,
        "kernel": "6.1.0-29-cloud-amd64",
        "tun": True,
        "missing_modules": [],
        "ours": False,
    }


@pytest.fixture
def slices(reference: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The reference site's slices of the plan, as plain data."""
    plain: dict[str, dict[str, Any]] = json.loads(json.dumps(mpquic_plan.build(reference), default=str))
    return plain


def _put(data: Any, path: str, value: Any) -> None:
    *parts, last = [int(part) if part.isdecimal() else part for part in re.findall(r"[^/]+", path)]
    for part in parts:
        data = data[part]
    data[last] = value


@pytest.fixture
def client(slices: dict[str, dict[str, Any]]) -> Callable[..., Host]:
    """Makes the client of the reference site as a bare, sound machine; changes are paths with slashes and values."""

    def make(*changes: tuple[str, Any], plan: Iterable[tuple[str, Any]] = (), clock_ahead: float = 0.0) -> Host:
        slice_ = copy.deepcopy(slices["site1-client"])
        survey = _survey("enp6s18", "10.10.11.100")
        cards = [item["device"] for kind in ("management", "wans", "lans") for item in slice_[kind]]
        for number, card in enumerate(cards):
            survey["links"][card] = link("", mac=f"52:54:00:00:01:{number:02x}")
        survey["links"]["enp6s18"]["addresses"] = ["10.10.11.100/24", "fe80::5054:ff:fe00:100/64"]
        for path, value in changes:
            _put(survey, path, value)
        for path, value in plan:
            _put(slice_, path, value)
        return Host("site1-client", slice_, survey, clock_ahead)

    return make


@pytest.fixture
def vps(slices: dict[str, dict[str, Any]]) -> Callable[..., Host]:
    """Makes the VPS of the reference site as a bare, sound machine."""

    def make(*changes: tuple[str, Any], plan: Iterable[tuple[str, Any]] = (), clock_ahead: float = 0.0) -> Host:
        slice_, survey = copy.deepcopy(slices["vps1"]), _survey("eth0", "203.0.113.10")
        survey["links"]["eth0"] = link("", "203.0.113.10/24", "2001:db8:113::10/64")
        for path, value in changes:
            _put(survey, path, value)
        for path, value in plan:
            _put(slice_, path, value)
        return Host("vps1", slice_, survey, clock_ahead)

    return make


@pytest.fixture
def problems() -> Callable[..., list[str]]:
    """Lists what stops a host: `code: message` each."""

    def of(host: Host, accepted: Iterable[str] = ()) -> list[str]:
        found = judge(host, set(accepted))
        return [f"{each.code}: {each.message}" for each in found if each.severity.value == "problem"]

    return of


@pytest.fixture
def notices() -> Callable[[Host], list[str]]:
    """Lists what is only told of a host."""

    def of(host: Host, accepted: Iterable[str] = ()) -> list[str]:
        found = judge(host, set(accepted))
        return [f"{each.code}: {each.message}" for each in found if each.severity.value == "notice"]

    return of


@pytest.fixture(name="link")
def link_factory() -> Callable[..., dict[str, Any]]:
    return link


@pytest.fixture(name="listener")
def listener_factory() -> Callable[..., dict[str, Any]]:
    return listener


@pytest.fixture
def sshd() -> list[dict[str, Any]]:
    return list(SSHD)
