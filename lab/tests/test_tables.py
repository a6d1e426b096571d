"""What `mpqlab status` and `mpqlab table` print."""

from __future__ import annotations

from typing import Any

import pytest
from mpqlab import links, status, tunnels
from mpqlab.emulator.model import DirectionConfig
from mpqlab.table import columns, number


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
        "rtt_ms": 13.62,
        "loss": 0.015,
        "mbit": 181.3,
        "wan_mbit": 190.0,
        "reconnects": 2,
    }
    idle = {"name": "mpq1", "state": "inactive", "wan": "wan1", "rtt_ms": None, "loss": None, "mbit": None}
    text = tunnels.render({"wans": [], "tunnels": [tunnel, idle | {"wan_mbit": None, "reconnects": None}]})
    rows = [line.split() for line in text.splitlines() if line.startswith("  mpq")]
    assert rows == [
        ["mpq5", "up", "wan5", "13.6", "1.5", "181.3", "190", "2"],
        ["mpq1", "inactive", "wan1", "-", "-", "-", "-", "-"],
    ]


def test_a_probe_that_failed_says_why_below_the_table() -> None:
    tunnel = {"name": "mpq5", "state": "up", "wan": "wan5", "rtt_ms": 1, "loss": 0, "mbit": None, "wan_mbit": None}
    text = tunnels.render({"wans": [], "tunnels": [tunnel | {"reconnects": 0, "error": "no answer"}]})
    assert text.endswith("\n  mpq5: no answer")


def test_before_the_daemon_is_installed_the_table_says_so() -> None:
    assert "no mpquicctl" in tunnels.render({"wans": [], "tunnels": []})


def test_a_lab_that_is_down_says_how_to_start_it() -> None:
    assert status.render({"up": False}) == "The lab isn't up: start it with `mpqlab up`."


def test_a_process_that_ended_is_named() -> None:
    facts = {"up": True, "suite": "bookworm", "nodes": [], "links": [], "stopped": ["isp5.dhcp"]}
    assert "broken: isp5.dhcp; `mpqlab up` starts processes again" in status.render(facts)
