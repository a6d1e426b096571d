"""What a tunnel survives: queues full of others' traffic, slow and lossy links, short outages, and hosts that freeze.

mpq4 is reliable QUIC, mpq5 QUIC with datagrams, mpq6 striped; mp1 is striped over WAN5 and WAN6.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

import pytest
from mpqlab import services, topology
from mpqlab.fixtures import download, healed, probe
from mpqlab.state import State
from mpqlab.testing import INTERNET
from mpqlab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mpqlab.testing import Download, Lab, Probe

__all__ = ["download", "healed", "probe"]

TUNNELS = {4: "mpq4", 5: "mpq5", 6: "mpq6"}
PUBLIC = "198.51.100.{}"
"""A provider's address; its last octet is the number of the WAN."""
LINKS = {4: (54, 100, 50), 5: (6.5, 200, 50), 6: (17, 150, 40)}
"""Delay one way in ms, and rates down and up in Mbit/s, as the lab has them."""
QUEUE_MS = 100
FAULT_TIME = 60.0
CUT_TIME = 2.5
PERIOD = 15.0
LEFT_WITHIN = 2.0
FREEZE = 45
THAWED_WITHIN = 2.0
HUGE = 2_000_000_000
MULTIPATH_SOURCE = "192.168.17.2"
TIMES = 10


class Watch:
    """What became of tunnels from the beginning on: whether any was called down, at either end."""

    def __init__(self, lab: Lab, numbers: tuple[int, ...]) -> None:
        self._lab, self._names = lab, [TUNNELS[number] for number in numbers]
        for name in self._names:
            lab.wait_state(name, "up", within=30)
        self._began = time.time()
        self._before = self._counted()

    def _counted(self) -> dict[str, tuple[str, int]]:
        rows = self._lab.status()
        return {name: (rows[name]["state"], rows[name]["flaps"]) for name in self._names}

    def check_never_down(self) -> None:
        assert self._counted() == self._before
        lines = self.journal("vps", r"path\.down|client\.gone")
        assert lines == []

    def journal(self, node: str, pattern: str) -> list[str]:
        """Lines of the tunnels' journal since the beginning."""
        units = " ".join(f"-u mpquic@{name}" for name in self._names)
        command = f"journalctl -q --no-pager -o short-unix -g '{pattern}' {units} --since @{self._began:.0f} || true"
        return [line for line in self._lab.run(node, command).splitlines() if float(line.split()[0]) > self._began]


@pytest.fixture
def links(lab: Lab) -> Iterator[None]:
    """The rates and queues of WAN4, WAN5 and WAN6 are as before after the test."""
    yield
    for number, (_, down, up) in LINKS.items():
        lab.link("set", f"wan{number}", f"down.rate_mbit={down}", f"up.rate_mbit={up}", f"queue_ms={QUEUE_MS}")


@pytest.fixture(params=["idle", "tcp"])
def load(request: pytest.FixtureRequest, download: Callable[..., Download]) -> Callable[[tuple[int, ...]], None]:
    """Begins one download by each tunnel, or none."""

    def begin(numbers: tuple[int, ...]) -> None:
        for number in numbers if request.param == "tcp" else ():
            download(number, HUGE).wait_bytes(1, within=20)

    return begin


def wait(seconds: float) -> None:
    deadline = time.monotonic() + seconds
    wait_for(lambda: time.monotonic() > deadline, seconds + 5, "the time over")


def outage(numbers: tuple[int, ...], seconds: float) -> None:
    """Have WANs lose everything for so long, to some milliseconds: a command takes a second where cores are busy."""
    wans = [wan for wan in topology.EMULATED_WANS if wan.name in {f"wan{number}" for number in numbers}]
    emulators = [services.emulator(State(), wan) for wan in wans]
    assert len(emulators) == len(numbers)
    for each in emulators:
        each.cut()
    time.sleep(seconds)
    for each in emulators:
        each.heal()


@contextlib.contextmanager
def flood(lab: Lab, number: int, mbit: float, seconds: float) -> Iterator[None]:
    """Traffic of another customer of a provider, in both directions, for so long."""
    echo = (sys.executable, "-m", "mpqlab.echo", "flood")
    public, amount = PUBLIC.format(number), (f"{mbit:g}", f"{seconds:g}")
    senders = [
        lab.start(f"isp{number}", *echo, public, INTERNET, "9", *amount),
        lab.start("internet", *echo, INTERNET, public, "9", *amount),
    ]
    try:
        yield
    finally:
        for sender in senders:
            sender.terminate()
            sender.wait(timeout=10)


@pytest.mark.usefixtures("links")
def test_traffic_of_others_that_waits_2_5_s_in_the_queue(lab: Lab, load: Callable[..., None]) -> None:
    numbers = tuple(TUNNELS)
    watch = Watch(lab, numbers)
    for number in numbers:
        lab.link("set", f"wan{number}", "rate_mbit=2", f"queue_ms={CUT_TIME * 1000:g}")
    load(numbers)
    for _ in range(2):
        with contextlib.ExitStack() as floods:
            for number in numbers:
                floods.enter_context(flood(lab, number, 2.6, 25.0))
            wait(25.0)
        wait(5.0)
    watch.check_never_down()


@pytest.mark.usefixtures("links")
@pytest.mark.parametrize("fault", ["rate_mbit=0.064 queue_ms=2500", "loss_percent=50"])
def test_a_link_of_64_kbit_s_or_half_of_all_packets_lost(lab: Lab, load: Callable[..., None], fault: str) -> None:
    numbers = tuple(TUNNELS)
    watch = Watch(lab, numbers)
    load(numbers)
    for number in numbers:
        lab.link("set", f"wan{number}", *fault.split())
    wait(FAULT_TIME)
    watch.check_never_down()


@pytest.mark.parametrize("numbers", [(4, 5), (6,)], ids=["quic", "stripe"])
def test_total_loss_for_2_5_s_every_15_s(
    lab: Lab, load: Callable[..., None], probe: Callable[..., Probe], numbers: tuple[int, ...]
) -> None:
    watch = Watch(lab, numbers)
    lab.wait_state("mp1", "up", within=15)
    leaving = probe(1, source=MULTIPATH_SOURCE)
    load(numbers)
    began = time.time()
    for _ in range(int(FAULT_TIME / PERIOD)):
        outage(numbers, CUT_TIME)
        wait(PERIOD - CUT_TIME)
    watch.check_never_down()
    leaving.wait_replies(1, within=10, after=time.time())
    assert leaving.longest_gap(began) <= LEFT_WITHIN
    assert leaving.repeated() == 0


@pytest.mark.parametrize("nodes", [("client",), ("vps",), ("client", "vps")], ids="+".join)
def test_striped_again_within_2_s_after_hosts_were_frozen(
    lab: Lab, probe: Callable[..., Probe], nodes: tuple[str, ...]
) -> None:
    watch = Watch(lab, (6,))
    lab.wait_striping("mpq6", within=10)
    traffic = probe(6)
    lab.mpqlab("freeze", str(FREEZE), *nodes)
    check_striped(lab, watch, traffic, time.time())


@pytest.mark.parametrize("node", ["client", "vps"])
def test_striped_again_within_2_s_after_a_daemon_stood_still(lab: Lab, probe: Callable[..., Probe], node: str) -> None:
    watch = Watch(lab, (6,))
    lab.wait_striping("mpq6", within=10)
    traffic = probe(6)
    pid = lab.run(node, "systemctl show -P MainPID mpquic@mpq6").strip()
    lab.run(node, f"kill -STOP {pid}")
    wait(FREEZE)
    lab.run(node, f"kill -CONT {pid}")
    check_striped(lab, watch, traffic, time.time())


def check_striped(lab: Lab, watch: Watch, traffic: Probe, thawed: float) -> None:
    """The tunnel carries and is striped within 2 s of the thaw, and stays so."""
    assert traffic.wait_replies(1, within=10, after=thawed) - thawed <= THAWED_WITHIN
    wait(10.0)
    lab.wait_striping("mpq6", within=5)
    # None is written where the session has outlived the freeze.
    striped = [float(line.split()[0]) for line in watch.journal("client", r"path\.striped")]
    assert all(moment <= thawed + THAWED_WITHIN for moment in striped), (striped, thawed)


@pytest.mark.parametrize("fault", ["stop", "kill -s KILL", "restart", "reload"])
@pytest.mark.parametrize(("victim", "number", "source"), [("mp1", 5, None), ("mpq5", 1, MULTIPATH_SOURCE)])
def test_what_happens_to_one_of_two_tunnels_on_a_wan_is_not_the_others(
    lab: Lab, probe: Callable[..., Probe], fault: str, victim: str, number: int, source: str | None
) -> None:
    for name in ("mp1", "mpq5"):
        lab.wait_state(name, "up", within=30)
    other = probe(number, source=source, interval=0.01)
    began = time.time()
    unit = f"mpquic@{victim}"
    for _ in range(TIMES):
        # So often in a row that systemd would start it no more (StartLimitBurst).
        after = f"; systemctl start {unit}" if fault == "stop" else ""
        lab.run("client", f"systemctl reset-failed {unit}; systemctl {fault} {unit}{after}")
        lab.wait_state(victim, "up", within=20)
    other.wait_replies(100, within=10, after=time.time())
    assert other.lost(began) == 0
    assert other.repeated() == 0
