"""A tunnel is taken out of service and put back; one that fails is tried now and then; a frozen host loses nothing."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from mpqlab.testing import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mpqlab.testing import Lab, Probe

FAULT = "/run/systemd/system/mpquic@mpq5.service.d"
UNITS = "systemctl show --property=Id,MainPID mpquic-linkd.service 'mpquic@*.service'"


def linkd(lab: Lab, node: str = "client") -> dict[str, Any]:
    """What mpquic-linkd does with each instance."""
    return {row["name"]: row for row in json.loads(lab.run(node, "mpquicctl linkd --json"))["instances"]}


def wait_linkd(lab: Lab, name: str, state: str, within: float, node: str = "client") -> float:
    return wait_until(lambda: linkd(lab, node)[name]["state"] == state, within, f"{name} {state}")


@pytest.fixture(autouse=True)
def released(lab: Lab) -> Iterator[None]:
    yield
    for node in ("client", "vps"):
        lab.run(node, "for name in mpq4 mpq5; do mpquicctl release $name; done", check=False)
        lab.run(node, "systemctl unmask -q mpquic@mpq5; rm -rf " + FAULT + "; systemctl daemon-reload")
    lab.wait_state("mpq4", "up", within=30)
    lab.wait_state("mpq5", "up", within=30)


def test_a_held_tunnel_is_down_its_neighbour_loses_nothing_and_a_release_brings_it_back(
    lab: Lab, probe: Callable[[int], Probe]
) -> None:
    neighbour, since = probe(4), time.time()
    lab.run("client", "SUDO_USER=alice mpquicctl hold mpq5 --reason 'the dish is moved'")
    wait_until(lambda: lab.run("client", "systemctl is-active mpquic@mpq5 || true").strip() == "inactive", 5, "stopped")
    row = linkd(lab)["mpq5"]
    assert (row["state"], row["hold"]["by"], row["hold"]["reason"]) == ("held", "alice", "the dish is moved")
    lab.run("client", "mpquicctl release mpq5")
    assert lab.wait_state("mpq5", "up", within=5) < 5
    assert neighbour.longest_gap(since) < 0.5


@pytest.mark.parametrize("node", ["client", "vps"])
def test_a_mask_is_a_hold_and_without_it_the_tunnel_is_up_within_5_s(lab: Lab, node: str) -> None:
    since = lab.run(node, "date +%s").strip()
    lab.run(node, "systemctl mask -q --now mpquic@mpq5")
    wait_linkd(lab, "mpq5", "masked", 5, node)
    lab.run(node, "systemctl unmask -q mpquic@mpq5")
    wait_linkd(lab, "mpq5", "running", 5, node)
    assert lab.run(node, f"journalctl -q --no-pager -p err -u mpquic-linkd --since @{since}") == ""


def test_a_stop_is_no_hold_and_a_start_by_hand_ends_one(lab: Lab) -> None:
    since = lab.run("client", "date +%s").strip()
    lab.run("client", "systemctl stop mpquic@mpq5")
    wait_linkd(lab, "mpq5", "running", 12)
    assert "mpquicctl hold mpq5" in lab.run("client", f"journalctl -q -u mpquic-linkd --since @{since}")
    lab.run("client", "mpquicctl hold mpq5 --reason x")
    wait_until(lambda: lab.run("client", "systemctl is-active mpquic@mpq5 || true").strip() == "inactive", 5, "stopped")
    time.sleep(0.5)  # linkd has seen it stopped.
    lab.run("client", "systemctl start mpquic@mpq5")
    wait_linkd(lab, "mpq5", "running", 5)
    assert lab.run("client", "ls /var/lib/mpquic-linkd/holds") == ""


def test_a_hold_outlives_a_reboot_and_ends_in_its_time(lab: Lab) -> None:
    lab.run("client", "mpquicctl hold mpq5 --for 45s --reason x; mpquicctl hold mpq4 --reason 'for good'")
    lab.mpqlab("reboot", "client")
    wait_until(lambda: lab.run("client", "systemctl is-active mpquic-linkd || true").strip() == "active", 20, "linkd")
    assert [linkd(lab)[name]["state"] for name in ("mpq4", "mpq5")] == ["held", "held"]
    lab.wait_state("mpq5", "up", within=60)
    assert linkd(lab)["mpq4"]["state"] == "held"
    assert lab.run("client", "systemctl list-units --failed --plain --no-legend") == ""


@pytest.mark.parametrize("command", ["/bin/false", "/nonexistent", "/bin/sh -c 'kill -9 $$$$'"])
def test_one_that_fails_is_tried_every_10_s_and_is_back_when_it_can_run(lab: Lab, command: str) -> None:
    lab.run("client", f"mkdir -p {FAULT} && printf '[Service]\\nExecStart=\\nExecStart={command}\\n' > {FAULT}/x.conf")
    since = float(lab.run("client", "systemctl daemon-reload; systemctl kill -s KILL mpquic@mpq5; date +%s.%N"))
    wait_linkd(lab, "mpq5", "failing", 10)
    time.sleep(max(0.0, since + 31 - time.time()))  # What a fault writes within 30 s is counted.
    lines = lab.run("client", f"journalctl -q --no-pager -u mpquic@mpq5 --since @{since} --until @{since + 30}")
    assert lines.count("Main process exited") <= 9
    lab.run("client", f"rm -r {FAULT}; systemctl daemon-reload")
    lab.wait_state("mpq5", "up", within=13)


def test_machines_that_were_frozen_for_45_s_lose_no_process_and_are_back_within_3_s(lab: Lab) -> None:
    before = {node: lab.run(node, UNITS) for node in ("client", "vps")}
    lab.mpqlab("freeze", "45")
    ping = (
        "for n in 4 5 6; do i=0; until ping -qc1 -W0.2 10.200.$n.2 >/dev/null; do i=$((i+1)); [ $i -lt 99 ]; done; done"
    )
    began = time.monotonic()
    lab.run("client", ping)
    assert time.monotonic() - began < 3
    assert {node: lab.run(node, UNITS) for node in ("client", "vps")} == before
