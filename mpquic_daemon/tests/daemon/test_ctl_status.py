"""`mpquicctl status` of what is out of service on purpose, and of the sites of a server."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from mpquic import held, hold
from mpquic.hold import Hold

from .test_ctl import CLIENT, SERVER, UP, documented, host, ok, process, run, write

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["host"]

# Out of service on purpose


@pytest.fixture(autouse=True)
def holds(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = host / "holds"
    folder.mkdir()
    monkeypatch.setenv(hold.DIRECTORY_VARIABLE, str(folder))
    monkeypatch.setattr(held, "UNIT_FOLDERS", (host / "units",))


def stopped(host: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    (row,) = json.loads(run(host, capsys, "status", "--json"))
    return {key: row[key] for key in ("state", "missing", "hold_at", "error")} | {
        "origin": (row["hold"] or {}).get("origin")
    }


@pytest.mark.parametrize("role", [CLIENT, SERVER])
def test_a_stopped_instance_is_held_by_its_record(
    host: Path, capsys: pytest.CaptureFixture[str], role: dict[str, object]
) -> None:
    write(host, "mpq5", {**role, "name": "mpq5"})
    hold.write("mpq5", Hold(by="alice", reason="the dish is moved", since=1795737600.0, until=1e10))
    words = "held by alice until 2286-11-20 17:46Z: the dish is moved"
    assert stopped(host, capsys) == {
        "state": "held", "missing": "held", "hold_at": "here", "error": words, "origin": "operator",
    }  # fmt: skip
    (row,) = json.loads(run(host, capsys, "status", "--json"))
    assert (row["hold"]["since"], row["hold"]["until"]) == ("2026-11-27T00:00:00Z", "2286-11-20T17:46:40Z")
    hold.write("mpq5", Hold(by="alice", reason="the dish is moved", since=1.0, until=2.0))
    assert stopped(host, capsys)["state"] in ("inactive", "down")


def test_a_stopped_instance_is_held_by_its_file(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(host, "mpq5", {**CLIENT, "enabled": False})
    assert (stopped(host, capsys)["error"], stopped(host, capsys)["origin"]) == (
        "held by the variables: enabled: false",
        "variables",
    )


@pytest.mark.parametrize(("target", "state"), [("/dev/null", "held"), ("/lib/x.service", "inactive")])
def test_a_stopped_instance_is_held_by_the_mask_of_its_unit(
    host: Path, capsys: pytest.CaptureFixture[str], target: str, state: str
) -> None:
    write(host, "mpq5", CLIENT)
    (host / "units").mkdir()
    (host / "units/mpquic@mpq5.service").symlink_to(target)
    row = stopped(host, capsys)
    assert row["state"] == state
    if state == "held":
        assert (row["error"], row["origin"]) == ("held by the operator: mpquic@mpq5.service is masked", "mask")


@pytest.mark.parametrize(("ago", "least", "most"), [(7200.0, 7199.0, 7260.0), (-60.0, 0.0, 0.0)])
def test_a_held_instance_says_for_how_long(
    host: Path, capsys: pytest.CaptureFixture[str], ago: float, least: float, most: float
) -> None:
    write(host, "mpq5", CLIENT)
    hold.write("mpq5", Hold(by="alice", reason="the dish is moved", since=time.time() - ago))
    (row,) = json.loads(run(host, capsys, "status", "--json"))
    assert least <= row["duration_seconds"] <= most
    assert row["since"] == row["hold"]["since"]


# The sites of a server


def peer(site: str, state: str = "up", **more: object) -> dict[str, object]:
    return {
        "identity": f"urn:mpquic:site:{site}", "tunnel": "mpq5", "class": None, "state": state,
        "connected": state == "up", "duration_seconds": 61.0, "since": "2026-06-01T12:30:00Z", "last_heard": None,
        "peer": None, "rtt_seconds": None, "loss_ratio": None, "flaps": 0, "release": None, "error": None, "hold": None,
        "hold_at": None, "second_machine": None, "handover_until": None, **more,
    }  # fmt: skip


def shown(host: Path, capsys: pytest.CaptureFixture[str], peers: list[dict[str, object]], *arguments: str) -> list[str]:
    write(host, "mpq5", {**SERVER, "name": "mpq5"})
    with process(host, "mpq5", ok({**UP, "role": "server", "peers": peers})):
        return run(host, capsys, "status", *arguments).splitlines()


def test_each_site_has_a_row_and_those_that_are_not_up_come_first(
    host: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = shown(host, capsys, [
        peer("a", peer="198.51.100.7:4242", rtt_seconds=0.031, release="9.8-cd"),
        peer("b", "silent", last_heard="2026-06-01T12:29:57Z"),
        peer("c", "never"),
        peer("d", "held", error="held by alice: the dish is moved"),
    ])  # fmt: skip
    assert [line.split()[:3] for line in lines[2:]] == [
        ["b", "peer", "silent"], ["c", "peer", "never"], ["d", "peer", "held"], ["a", "peer", "up"],
    ]  # fmt: skip
    assert all(line.startswith("  ") for line in lines[2:])
    assert lines[2].endswith("last heard 2026-06-01T12:29:57Z")
    assert lines[3].split()[3] == "-", "it has been absent, but since when nobody knows"
    assert lines[4].endswith("held by alice: the dish is moved")
    assert "198.51.100.7:4242" in lines[5]
    assert lines[5].split()[-3:] == ["9.8-cd", "-", "-"]


def test_of_sixty_sites_only_those_that_need_a_look_are_shown(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sites = [peer(f"site{number}", "silent" if number == 7 else "up") for number in range(60)]
    lines = shown(host, capsys, sites)
    assert [line.split()[0] for line in lines[2:]] == ["site7", "and"]
    assert lines[3].strip() == "and 59 that are up: mpquicctl status mpq5"
    (host / "run/mpq5.sock").unlink()
    assert len(shown(host, capsys, sites, "mpq5")) == 62


def test_tunnels_of_one_site_are_told_apart(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(host, capsys, [peer("a"), peer("a", tunnel="mpq6"), peer("b")])
    assert [line.split()[0] for line in lines[2:]] == ["a/mpq5", "a/mpq6", "b"]


def test_the_fields_of_a_peer_are_those_of_the_document() -> None:
    assert sorted(documented("of `peers`")) == sorted(peer("a"))
