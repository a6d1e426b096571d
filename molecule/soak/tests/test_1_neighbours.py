"""What becomes of one class tunnel costs the calls in the other eight no packet."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from mpqlab.waiting import wait_for

if TYPE_CHECKING:
    import random

    from mpqlab.testing import Lab

    from .conftest import Call

KILLS = 20


def pid(lab: Lab, tunnel: str) -> str:
    return lab.run("client", f"systemctl show -P MainPID mpquic@{tunnel}").strip()


def check_neighbours(calls: dict[str, Call], victim: str, seconds: float) -> None:
    """All calls but the victim's have lost nothing, and lasted as long as what was done."""
    ends = {tunnel: call.end() for tunnel, call in calls.items()}
    print({tunnel: (int(end["sent"]), int(end["lost"])) for tunnel, end in ends.items()})
    others = {tunnel: end for tunnel, end in ends.items() if tunnel != victim}
    assert all(end["sent"] > 45 * seconds for end in others.values())
    assert {tunnel: end["lost"] for tunnel, end in others.items() if end["lost"]} == {}


@pytest.mark.parametrize("victim", ["cr2", "br2", "df2"])
def test_a_daemon_that_is_killed_over_and_over(
    lab: Lab, calls: dict[str, Call], choices: random.Random, victim: str
) -> None:
    began = time.monotonic()
    for _ in range(KILLS):
        before = pid(lab, victim)
        lab.run("client", f"kill -9 {before}")
        wait_for(lambda before=before: pid(lab, victim) not in ("0", before), 20, f"{victim} started again")
        lab.wait_state(victim, "up", within=20)
        time.sleep(choices.uniform(0.0, 0.5))  # where in its life it is hit
    check_neighbours(calls, victim, time.monotonic() - began)


@pytest.mark.parametrize("victim", ["cr1", "br1", "df1"])
def test_an_instance_that_is_held_released_and_restarted(lab: Lab, calls: dict[str, Call], victim: str) -> None:
    began = time.monotonic()
    for _ in range(3):
        lab.run("client", f"mpquicctl hold {victim} --reason soak")
        lab.wait_state(victim, "held", within=10)
        lab.run("client", f"mpquicctl release {victim}")
        lab.wait_state(victim, "up", within=20)
        # As an upgrade restarts it.
        lab.run("client", f"systemctl restart mpquic@{victim}")
        lab.wait_state(victim, "up", within=20)
    check_neighbours(calls, victim, time.monotonic() - began)


@pytest.mark.parametrize(("victim", "seconds"), [("cr3", 6), ("br3", 6), ("df3", 6), ("df2", 75)])
def test_a_daemon_that_stands_still(lab: Lab, calls: dict[str, Call], victim: str, seconds: int) -> None:
    """For 75 s its watchdog kills it, and it is started again."""
    began = time.monotonic()
    before = pid(lab, victim)
    lab.run("client", f"kill -STOP {before}")
    deadline = began + seconds
    wait_for(lambda: time.monotonic() > deadline, seconds + 5, "the time over")
    lab.run("client", f"kill -CONT {before}", check=False)
    lab.wait_state(victim, "up", within=30)
    assert (pid(lab, victim) != before) is (seconds > 60)
    check_neighbours(calls, victim, time.monotonic() - began)
