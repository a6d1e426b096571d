"""A path on which packets still come in, however late or few, is never called down: 60 s of each fault, every plane."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .bottleneck import Bottleneck, TcpConnection
from .conftest import Site
from .test_failover import TRANSPORTS, cut, heal, longest_pause
from .test_failover import ends as two_paths
from .virtual import Ends

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Make = Callable[..., Ends]
    Step = Callable[[Bottleneck, float], None]

__all__ = ["two_paths"]

FAULT_TIME = 60.0
pytestmark = pytest.mark.simulation

LOOK = 0.05
QUEUE = 2.5
RATE = 1.5e6
"""bit/s of a link that isn't slow: fewer packets to simulate."""
PERIOD = 15.0
MIN_SEGMENTS = 10
"""Segments that a TCP connection sends in the worst case: it is there, though it may get none across."""
LOADS = ("idle", "tcp")


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Make]:
    made: list[Ends] = []

    def make(transport: str) -> Ends:
        both = Ends(Site(tmp_path), probes=False, **TRANSPORTS[transport])
        made.append(both)
        both.wait(lambda: both.state == "up", 5.0, "up")
        both.run(5.0)
        return both

    yield make
    for both in made:
        both.close()


class Watch:
    """Passes time with a load, and notes each state that an end calls the path."""

    def __init__(self, both: Ends, load: str, *, down: bool = True) -> None:
        self.both = both
        self.tcp = None if load == "idle" else TcpConnection(both, down=down)
        self.entered: dict[str, list[str]] = {"cl": [], "sv": []}

    def run(self, seconds: float) -> None:
        end = self.both.now + seconds
        while self.both.now < end - 1e-9:
            (self.tcp or self.both).run(min(LOOK, end - self.both.now))
            for name, role in (("cl", self.both.client), ("sv", self.both.server)):
                rows = role.paths()
                state = str(rows[0]["state"]) if rows else "gone"
                if not self.entered[name] or self.entered[name][-1] != state:
                    self.entered[name].append(state)

    def check_never_down(self) -> None:
        assert self.tcp is None or self.tcp.sent > MIN_SEGMENTS
        status = self.both.client.status()
        assert (status["state"], status["flaps"], status["reconnects"]) == ("up", 0, 0), self.entered
        for name, entered in self.entered.items():
            assert set(entered) <= {"up", "suspect"}, (name, entered)


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_traffic_of_others_that_waits_2_5_s_in_the_queue(ends: Make, transport: str, load: str) -> None:
    both = ends(transport)
    link = Bottleneck(both, rate=RATE, queue=QUEUE)
    watch = Watch(both, load)
    watch.run(5.0)
    # Twice all at once, then more than the link takes for 20 s, and the queue runs empty again.
    for _ in range(2):
        for way in (link.up, link.down):
            way.burst(QUEUE, both.now)
        watch.run(10.0)
    link.up.foreign = link.down.foreign = 1.2
    watch.run(20.0)
    link.up.foreign = link.down.foreign = 0.0
    watch.run(20.0)
    watch.check_never_down()


@pytest.mark.parametrize("down", [True, False], ids=["download", "upload"])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_one_connection_on_a_link_of_64_kbit_s(ends: Make, transport: str, down: bool) -> None:
    both = ends(transport)
    Bottleneck(both, rate=64e3, queue=QUEUE)
    watch = Watch(both, "tcp", down=down)
    watch.run(FAULT_TIME)
    watch.check_never_down()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_an_idle_tunnel_on_a_link_of_64_kbit_s(ends: Make, transport: str) -> None:
    both = ends(transport)
    Bottleneck(both, rate=64e3, queue=QUEUE)
    watch = Watch(both, "idle")
    watch.run(FAULT_TIME)
    watch.check_never_down()


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_half_of_all_packets_lost_each_way(ends: Make, transport: str, load: str) -> None:
    both = ends(transport)
    Bottleneck(both, rate=RATE, loss=0.5)
    watch = Watch(both, load)
    watch.run(FAULT_TIME)
    watch.check_never_down()


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_total_loss_for_2_5_s_every_15_s(ends: Make, transport: str, load: str) -> None:
    both = ends(transport)
    Bottleneck(both, rate=RATE)
    watch = Watch(both, load)
    watch.run(5.0)
    for _ in range(int(FAULT_TIME / PERIOD)):
        both.network.cut()
        watch.run(QUEUE)
        both.network.heal()
        watch.run(PERIOD - QUEUE)
    watch.check_never_down()
    assert all(entered.count("suspect") >= 4 for entered in watch.entered.values()), watch.entered


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_traffic_leaves_a_path_in_each_total_loss_for_2_5_s(two_paths: Make, transport: str) -> None:
    both = two_paths(transport)
    began = both.now
    for _ in range(int(FAULT_TIME / PERIOD)):
        cut(both, "wan5")
        both.run(QUEUE)
        heal(both)
        both.run(PERIOD - QUEUE)
    assert longest_pause(both, "cl", began) < 2.0 > longest_pause(both, "sv", began)
    assert both.client.status()["flaps"] == 0
