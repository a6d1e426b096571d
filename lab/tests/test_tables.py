"""What `mpqlab status` and `mpqlab table` print."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from mpqlab import cli, links, status, tunnels
from mpqlab.emulator.model import DirectionConfig
from mpqlab.lab import Lab
from mpqlab.progress import Progress
from mpqlab.state import State
from mpqlab.table import columns, number
from mpqlab.topology import WANS, Attachment

README = Path(__file__).resolve().parents[2] / "README.md"
UNMEASURED = {"down_mbit": None, "up_mbit": None, "wan_mbit": None}


def link(**changes: Any) -> dict[str, Any]:
    facts = {"wan": "wan5", "device": "enp7s7", "attachment": "isp", "plugged": True, "carrier": True, "cut": ""}
    return facts | changes


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "plugged"),
        ({"carrier": False}, "no carrier"),
        ({"plugged": False}, "unplugged"),
        ({"plugged": False, "attachment": "no device"}, "no device"),
        ({"cut": "both"}, "cut"),
        ({"cut": "up"}, "cut up"),
        ({"attachment": "carrier, no DHCP"}, "carrier, no DHCP"),
        ({"error": "No emulator answers"}, "no emulator"),
    ],
)
def test_the_state_of_a_link_in_a_word(changes: dict[str, Any], expected: str) -> None:
    assert links.link_state(link(**changes)) == expected


def test_only_settings_that_differ_from_a_perfect_wire_are_shown() -> None:
    settings = {"up": DirectionConfig(delay_ms=6.5).as_dict(), "down": DirectionConfig().as_dict()}
    text = links.render(link(settings=settings))
    assert text.splitlines() == ["wan5 (enp7s7): plugged", "  up   delay_ms=6.5", "  down a perfect wire"]


def test_columns_are_as_wide_as_their_longest_cell() -> None:
    assert columns(["a", "bb"], [["ccc", "d"], ["", "e"]]) == ["  a    bb", "  ccc  d", "       e"]


@pytest.mark.parametrize(("value", "expected"), [(None, "-"), (13.0, "13"), (13.46, "13.5"), (100, "100"), (0, "0")])
def test_numbers_are_short(value: float | None, expected: str) -> None:
    assert number(value) == expected


def test_a_tunnel_shows_what_is_known_and_a_dash_for_the_rest() -> None:
    tunnel = {
        "name": "mpq5",
        "state": "up",
        "wan": "wan5",
        "rtt_seconds": 0.01362,
        "loss_ratio": 0.015,
        "down_mbit": 181.3,
        "up_mbit": 45.5,
        "wan_mbit": 190.0,
        "reconnects": 2,
    }
    idle = {
        "name": "mpq1",
        "state": "inactive",
        "wan": "wan1",
        "rtt_seconds": None,
        "loss_ratio": None,
        "reconnects": None,
    }
    text = tunnels.render({"wans": [], "tunnels": [tunnel, idle | UNMEASURED]})
    rows = [line.split() for line in text.splitlines() if " mpq" in line]
    assert rows == [
        ["WAN5", "-", "mpq5", "up", "13.6", "1.5", "181.3", "45.5", "190", "2"],
        ["WAN1", "-", "mpq1", "inactive", "-", "-", "-", "-", "-", "-"],
    ]


def test_a_probe_that_failed_says_why_below_the_table() -> None:
    tunnel = {"name": "mpq5", "state": "up", "wan": "wan5", "rtt_seconds": 0.001, "loss_ratio": 0}
    text = tunnels.render({"wans": [], "tunnels": [tunnel | UNMEASURED | {"reconnects": 0, "error": "no answer"}]})
    assert text.endswith("\n  mpq5: no answer")


def measured(name: str, **changes: Any) -> dict[str, Any]:
    return {"name": name, "state": "up", "down_mbit": 90.0, "up_mbit": 40.0} | changes


INACTIVE = measured("mpq1", state="inactive", **UNMEASURED)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([measured("mpq5"), INACTIVE], []),
        ([], ["no tunnel is up: `mpqlab exec client -- mpquicctl status` tells why"]),
        ([INACTIVE], ["no tunnel is up: `mpqlab exec client -- mpquicctl status` tells why"]),
        (
            [measured("mpq5"), measured("mpq6", state="down", **UNMEASURED)],
            ["the tunnel mpq6 is down, and its WAN is usable"],
        ),
        (
            [measured("mpq5", error="no route", **UNMEASURED)],
            ["the tunnel mpq5 is up and carries nothing: no route"],
        ),
        (
            [measured("mpq4", up_mbit=0.0), measured("mpq5")],
            ["the tunnel mpq4 is up and carried 0 Mbit/s up"],
        ),
    ],
)
def test_a_measurement_is_wrong_where_traffic_does_not_flow(found: list[dict[str, Any]], expected: list[str]) -> None:
    assert tunnels.problems({"wans": [], "tunnels": found}) == expected


@pytest.mark.parametrize("failing", [True, False])
def test_a_failed_measurement_is_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], failing: bool
) -> None:
    row = {"wan": "wan5", "rtt_seconds": 0.013, "loss_ratio": 0.0, "reconnects": 0, "wan_mbit": 95.0}
    tunnel = measured("mpq5", **row) | ({"down_mbit": 0.0} if failing else {})
    monkeypatch.setattr(cli.preflight, "check_system", lambda: None)
    monkeypatch.setattr(tunnels, "gather", lambda _lab, *, measure: {"wans": [], "tunnels": [tunnel][: 1 + measure]})
    assert cli.main(["table", "--measure"]) == int(failing)
    assert ("carried 0 Mbit/s down" in capsys.readouterr().err) == failing
    assert cli.main(["table"]) == 0


@pytest.mark.parametrize(("patience", "state"), [(60.0, "up"), (0.0, "connecting")])
def test_a_measurement_waits_for_a_tunnel_that_is_connecting(
    monkeypatch: pytest.MonkeyPatch, patience: float, state: str
) -> None:
    answers = [[{"name": "mpq5", "state": "connecting"}], [{"name": "mpq5", "state": "up"}]]
    monkeypatch.setattr(tunnels, "instances", lambda _lab: answers.pop(0))
    monkeypatch.setattr(tunnels, "CONNECT_SECONDS", patience)
    # `time.monotonic() > deadline` has to be seen at once where there is no patience.
    clock = iter(range(100))
    monkeypatch.setattr(tunnels.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(tunnels.time, "sleep", lambda _seconds: None)
    lab = Lab(Progress(quiet=True), State(Path("/nonexistent")))
    assert [status["state"] for status in tunnels._connected(lab)] == [state]


def readme_rows(title: str) -> list[tuple[str, str]]:
    """Return the cells of the table below a head cell in the README."""
    lines = README.read_text().splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith(f"| {title} |"))
    rows = []
    for line in lines[begin + 2 :]:
        if not line.startswith("|"):
            break
        name, _, meaning = line.strip("| ").partition(" | ")
        rows.append((name, meaning))
    return rows


@pytest.mark.parametrize(
    ("title", "head", "states"),
    [
        ("column of WANs", tunnels.WAN_HEAD, tunnels.WAN_STATES),
        ("column of tunnels", tunnels.TUNNEL_HEAD, tunnels.TUNNEL_STATES),
    ],
)
def test_the_readme_explains_the_columns_and_states_that_are_printed(
    title: str, head: tuple[str, ...], states: tuple[str, ...]
) -> None:
    rows = readme_rows(title)
    assert tuple(name for name, _ in rows) == head
    assert sorted(re.findall(r"`([^`]+)`(?=[:,])", dict(rows)["state"])) == sorted(states)


def test_the_states_of_a_link_are_among_those_of_the_table() -> None:
    shown = {
        links.link_state(link(**changes))
        for changes in (
            {"carrier": False},
            {"plugged": False},
            {"plugged": False, "attachment": "no device"},
            {"cut": "both"},
            {"cut": "up"},
            {"cut": "down"},
            {"error": "x"},
            *({"attachment": wan.attachment.value} for wan in WANS if wan.attachment is not Attachment.ISP),
        )
    }
    assert shown | {"up", "no answer", "no lease"} == set(tunnels.WAN_STATES)


def test_before_the_daemon_is_installed_the_table_says_so() -> None:
    assert "no mpquicctl" in tunnels.render({"wans": [], "tunnels": []})


def test_a_lab_that_is_down_says_how_to_start_it() -> None:
    assert status.render({"up": False}) == "The lab isn't up: start it with `mpqlab up`."


def test_a_process_that_ended_is_named() -> None:
    facts = {"up": True, "suite": "bookworm", "nodes": [], "links": [], "stopped": ["isp5.dhcp"]}
    assert "broken: isp5.dhcp; `mpqlab up` starts processes again" in status.render(facts)


@pytest.mark.parametrize(
    ("tunnel", "lan", "source"),
    [("mpq5", 5, None), ("cr1", 1, "192.168.11.2"), ("df3", 3, "192.168.33.2")],
)
def test_a_class_tunnel_is_measured_from_the_network_of_its_vlan(tunnel: str, lan: int, source: str | None) -> None:
    found = tunnels._sender(tunnel)
    assert found is not None
    assert (found[0].number, found[1]) == (lan, source)
    assert tunnels._sender("voice") is None


def test_tunnels_are_shown_with_their_wan_and_class() -> None:
    row = {"name": "cr1", "state": "up", "wan": "wan4", "class": "critical", "rtt_seconds": 0.11, "loss_ratio": 0}
    text = tunnels.render({"wans": [], "tunnels": [row | UNMEASURED | {"reconnects": 0}]})
    assert text.splitlines()[-1].split()[:5] == ["WAN4", "critical", "cr1", "up", "110"]
