"""Machines that freeze, network cards that come and go, and an instance that can't start."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from mpqlab.waiting import wait_for

from .conftest import CARRYING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mpqlab.testing import Lab, Probe

    from .conftest import Journal

UNITS = "systemctl show -P NRestarts -P MainPID mpquic-linkd mpquic-guard 'mpquic@*'"


def test_a_freeze_of_both_machines_kills_nothing(lab: Lab, traffic: dict[int, Probe]) -> None:
    before = {node: lab.run(node, UNITS) for node in ("client", "vps")}
    lab.mpqlab("freeze", "45")
    thawed = time.time()
    for number in CARRYING:
        assert traffic[number].wait_replies(5, within=10, after=thawed) - thawed <= 3
    assert {node: lab.run(node, UNITS) for node in before} == before


@pytest.mark.parametrize("seconds", [1, 3])
def test_a_card_that_bounces_carries_whenever_it_is_there_for_5_s(
    lab: Lab, traffic: dict[int, Probe], seconds: int
) -> None:
    for _ in range(3):
        lab.link("unplug", "wan5")
        time.sleep(seconds)
        lab.link("plug", "wan5")
        there = time.time()
        assert traffic[5].wait_replies(1, within=8, after=there) - there <= 5
    assert traffic[4].longest_gap(there) < 1


@pytest.fixture
def broken_unit(lab: Lab) -> Iterator[str]:
    """A drop-in by which mpq5's program isn't there, and how to take it away again."""
    folder = "/run/systemd/system/mpquic@mpq5.service.d"
    mend = f"rm -rf {folder}; systemctl daemon-reload"
    lines = "[Service]\\nExecStart=\\nExecStart=/nonexistent\\n"
    lab.run("client", f"mkdir -p {folder} && printf '{lines}' >{folder}/x.conf && systemctl daemon-reload")
    yield mend
    lab.run("client", mend)


def test_an_instance_that_cannot_start_is_tried_every_10_s_and_is_back_when_it_can(
    lab: Lab, journals: dict[str, Journal], broken_unit: str
) -> None:
    def state() -> str:
        rows = json.loads(lab.run("client", "mpquicctl linkd --json"))["instances"]
        return str(next(row["state"] for row in rows if row["name"] == "mpq5"))

    lab.run("client", "systemctl kill --signal=KILL mpquic@mpq5")
    wait_for(lambda: state() == "failing", 10, "linkd knows that mpq5 fails")
    time.sleep(12)
    lines = [line for line in journals["client"].lines() if "mpq5" in line]
    assert 6 <= sum("Main process exited" in line for line in lines) <= 8
    lab.run("client", broken_unit)
    lab.wait_state("mpq5", "up", within=13)
