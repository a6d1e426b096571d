"""Machines that freeze, and network cards that come and go."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from .conftest import CARRYING

if TYPE_CHECKING:
    from mpqlab.testing import Lab, Probe

UNITS = "systemctl show -P NRestarts -P MainPID mpquic-linkd mpquic-guard 'mpquic@*'"


def test_a_freeze_of_both_machines_kills_nothing(lab: Lab, traffic: dict[int, Probe]) -> None:
    before = {node: lab.run(node, UNITS) for node in ("client", "vps")}
    lab.mpqlab("freeze", "client", "vps", "--seconds", "45")
    thawed = time.time()
    for number in CARRYING:
        assert traffic[number].wait_answers(5, within=10, after=thawed) - thawed <= 3
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
        assert traffic[5].wait_answers(1, within=8, after=there) - there <= 5
    assert traffic[4].longest_gap(there) < 1
