"""What a comparison says of its runs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from json_schemas import check
from mpqlab import comparison, tunnels
from mpqlab.errors import LabError
from mpqlab.topology import find_lan, find_wan
from mpquic.speedtest.runs import Counters, Reading, Run, Transfer

LAN5 = find_lan(5)


def lab(monkeypatch: pytest.MonkeyPatch, state: str, tun_bytes: int) -> None:
    """A lab whose WAN moves 10 MB in each run, and whose TUN moves `tun_bytes` in those of the tunnel."""
    monkeypatch.setattr(tunnels, "instances", lambda _: [{"name": "mpq5", "state": state, "wan": "wan5"}])
    moved = {"tun": 0, "wan": 0}

    def transfer(_lab: object, run: Run, *_: object) -> Transfer:
        moved["wan"] += 11_000_000
        moved["tun"] += tun_bytes if run.way == "tunnel" else 0
        return Transfer(80.0 if run.way == "tunnel" else 100.0, 10_000_000, 1.0, 0)

    def read(tun: str, wan: object) -> Reading:
        assert (tun, wan) == ("mpq5", find_wan("wan5"))
        return Reading(Counters(moved["tun"], moved["tun"]), {"wan5": Counters(moved["wan"], moved["wan"])})

    monkeypatch.setattr(comparison, "_transfer", transfer)
    monkeypatch.setattr(comparison, "_read", read)


def compare(*, own_kernel: bool = False) -> dict[str, Any]:
    return comparison.compare(SimpleNamespace(own_kernel=own_kernel), LAN5, 1.0, 1)  # type: ignore[arg-type]


def test_an_emulated_processor_is_not_measured() -> None:
    with pytest.raises(LabError, match="emulated"):
        compare(own_kernel=True)


def test_each_cell_has_both_ways_and_their_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    lab(monkeypatch, "up", 10_500_000)
    facts = compare()
    assert comparison.problems(facts) == []
    assert [(cell["direction"], cell["connections"], cell["ratio"]) for cell in facts["medians"]] == [
        ("down", 1, 0.8),
        ("up", 1, 0.8),
        ("down", 10, 0.8),
        ("up", 10, 0.8),
    ]
    check("lab-speedtest", facts)
    assert "mpq5 (LAN5) over wan5, cubic, a fresh server for each run" in comparison.render(facts)


def test_bytes_that_did_not_go_through_the_tunnel_are_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    lab(monkeypatch, "up", 0)
    facts = compare()
    assert len(comparison.problems(facts)) == 4
    assert "tunnel down, 1 connections: the TUN moved 0 B of its 10.0 MB" in comparison.problems(facts)[0]
    assert all(cell["tunnel_bits_per_second"] is None and cell["ratio"] is None for cell in facts["medians"])


def test_a_tunnel_that_is_not_up_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    lab(monkeypatch, "down", 0)
    with pytest.raises(LabError, match="the tunnel mpq5 of LAN5 is down"):
        compare()
