"""What `mpqlab` prints with `--json` is what JSON Schemas say, and each command with that option has one."""

from __future__ import annotations

import argparse
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from json_schemas import check
from mpqlab import cli, links, status, tunnels
from mpqlab.emulator.client import EmulatorError
from mpqlab.emulator.control import Control
from mpqlab.emulator.direction import Direction
from mpqlab.emulator.model import DIRECTIONS, DirectionConfig
from mpqlab.speedtest import Speedtest
from mpqlab.topology import NODES, WANS, find_lan

from .test_speedtest import TCP, UDP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mpqlab.lab import Lab

SCHEMAS = {
    "status": "lab-status",
    "table": "lab-table",
    "speedtest": "lab-speedtest",
    **{f"link {verb}": "lab-link" for verb in ("set", "cut", "heal", "unplug", "plug", "renumber")},
}


def commands(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[str, bool]]:
    """Each command, and whether it has `--json`."""
    verbs = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
    if not verbs:
        yield " ".join(words), "--json" in parser._option_string_actions
    for each in verbs:
        for name, command in each.choices.items():
            yield from commands(command, (*words, name))


class Emulator:
    """The emulator of a link, whose control says what it would say."""

    def __init__(self) -> None:
        directions = {name: Direction(name, DirectionConfig(delay_ms=5.0)) for name in DIRECTIONS}
        self._control = Control("wan5", directions, lambda _: 0)

    def get(self) -> Any:
        return self._told("get")

    def counters(self) -> Any:
        return self._told("counters")

    def _told(self, operation: str) -> Any:
        return json.loads(self._control.answer(json.dumps({"op": operation}).encode(), 0.0))


class NoEmulator:
    def get(self) -> Any:
        raise EmulatorError("No emulator answers.")


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A lab that is there, with machines that are off, and emulators but for WAN6's."""
    monkeypatch.setattr(links.network, "device_exists", lambda *_: True)
    monkeypatch.setattr(links.network, "namespace_exists", lambda _: True)
    monkeypatch.setattr(links.network, "has_carrier", lambda *_: True)
    monkeypatch.setattr(links.services, "current_subnet", lambda _, wan: wan.subnets[0])
    emulator = lambda _, wan: NoEmulator() if wan.name == "wan6" else Emulator()  # noqa: E731
    monkeypatch.setattr(links.services, "emulator", emulator)
    monkeypatch.setattr(tunnels, "address_of", lambda *_: "10.150.19.95/24")
    monkeypatch.setattr(tunnels, "_ping", lambda *_: 0.0132)
    machine = SimpleNamespace(hostname="site1-client", leader=None)
    return cast(
        "Lab",
        SimpleNamespace(
            complete=True,
            suite="bookworm",
            own_kernel=False,
            machines=dict.fromkeys(NODES, machine),
            state=SimpleNamespace(processes=lambda: [SimpleNamespace(name="dns", alive=False)]),
            require=lambda: None,
            require_names=lambda: None,
        ),
    )


def test_each_command_with_json_has_a_schema() -> None:
    assert {name for name, has_json in commands(cli.parser()) if has_json} == set(SCHEMAS)


def test_links_with_and_without_an_emulator(lab: Lab) -> None:
    shown = [links.describe(lab, wan) for wan in WANS]
    assert {"settings" in each for each in shown} == {True, False}
    assert any("error" in each for each in shown)
    for each in shown:
        check("lab-link", each)


def test_status_of_a_lab_and_of_none(lab: Lab) -> None:
    facts = status.gather(lab)
    assert facts["up"]
    check("lab-status", facts)
    check("lab-status", {"up": False, "suite": None, "nodes": [], "links": [], "stopped": []})


def test_the_table(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"name": "mpq5", "state": "up", "wan": "wan5", "rtt_seconds": 0.02}, {"name": "mpq1", "state": "inactive"}]
    monkeypatch.setattr(tunnels, "instances", lambda _: rows)
    facts = tunnels.gather(lab, measure=False)
    assert len(facts["tunnels"]) == 2
    check("lab-table", facts)


def test_a_single_run() -> None:
    lan = find_lan(5)
    check("lab-speedtest", Speedtest(lan).result(json.dumps(TCP)))
    check("lab-speedtest", Speedtest(lan, udp=True).result(json.dumps(UDP)))
