"""The program that tags: two of them, at the ends of one cable, are two switches between which VLANs run."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root

ENDS = ("trunktest-1", "trunktest-2")
VLANS = (21, 22)
COUNT = 20


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def ended(program: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        program.send_signal(signal.SIGTERM)
        program.wait(timeout=10)


@pytest.fixture
def cable() -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.fail("This test makes network namespaces: run it as root.")
    with contextlib.ExitStack() as stack:
        for end in ENDS:
            ip("netns", "add", end)
            stack.callback(ip, "netns", "delete", end)
        ip("-n", ENDS[0], "link", "add", "trunk", "type", "veth", "peer", "name", "trunk", "netns", ENDS[1])
        for number, end in enumerate(ENDS, start=1):
            ip("-n", end, "link", "set", "trunk", "up")
            for vlan in VLANS:
                ip("-n", end, "tuntap", "add", "dev", f"v{vlan}", "mode", "tap")
                ip("-n", end, "address", "add", f"10.0.{vlan}.{number}/24", "dev", f"v{vlan}")
                ip("-n", end, "link", "set", f"v{vlan}", "up")
            words = ["trunk", *(f"v{vlan}={vlan}" for vlan in VLANS)]
            inside = ["nsenter", f"--net=/run/netns/{end}", "--"]
            program = subprocess.Popen([*inside, sys.executable, "-m", "mpqlab.trunk", *words])
            stack.enter_context(ended(program))
            last = ("-n", end, "link", "show", f"v{VLANS[-1]}")
            wait_for(lambda last=last: "LOWER_UP" in ip(*last), 10, f"the trunk's program at {end}", shown=program.poll)
        yield


def answers(source: str, target: str, *options: str) -> int:
    ping = ["ping", "-n", "-i", "0.1", "-W", "1", "-I", source, *options, target]
    done = subprocess.run(
        ["nsenter", f"--net=/run/netns/{ENDS[0]}", "--", *ping], capture_output=True, text=True, check=False
    )
    return done.stdout.count("bytes from")


def received(vlan: int) -> int:
    """Packets that have come in by the tap of a VLAN at the other end."""
    shown = json.loads(ip("-n", ENDS[1], "-s", "-j", "link", "show", f"v{vlan}"))
    return int(shown[0]["stats64"]["rx"]["packets"])


@pytest.mark.usefixtures("cable")
@pytest.mark.parametrize(("vlan", "other"), [VLANS, VLANS[::-1]])
def test_full_frames_come_in_by_their_own_vlan_and_by_no_other(vlan: int, other: int) -> None:
    before = {each: received(each) for each in VLANS}
    # 1500 octets, and the tag besides.
    assert answers(f"10.0.{vlan}.1", f"10.0.{vlan}.2", "-c", str(COUNT), "-s", "1472", "-M", "do") == COUNT
    assert received(vlan) - before[vlan] >= COUNT
    # Neighbour discovery at most.
    assert received(other) - before[other] < COUNT / 2


@pytest.mark.usefixtures("cable")
def test_a_vlan_whose_other_end_is_down_reaches_nothing_and_the_other_one_goes_on() -> None:
    ip("-n", ENDS[1], "link", "set", "v21", "down")
    assert answers("10.0.21.1", "10.0.21.2", "-c", "3") == 0
    assert answers("10.0.22.1", "10.0.22.2", "-c", "3") == 3
    ip("-n", ENDS[1], "link", "set", "v21", "up")
    assert answers("10.0.21.1", "10.0.21.2", "-c", "3") == 3


def test_wrong_arguments_are_answered_with_how_to_call_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mpqlab.trunk", "trunk"], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 2
    assert "python -m mpqlab.trunk TRUNK TAP=VLAN..." in done.stderr
