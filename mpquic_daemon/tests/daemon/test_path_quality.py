"""Round-trip time and loss that both ends show of a path, 3 s after a change or the end of a cut."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import Site
from .virtual import DELAY, Ends

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .virtual import Endpoint

TRANSPORTS = {
    "quic": {"transport": "quic"},
    "reliable": {"transport": "quic", "transport_mode": "reliable"},
    "stripe": {"transport": "stripe"},
}


@pytest.fixture(params=list(TRANSPORTS))
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["idle", "busy"])
def both(request: pytest.FixtureRequest, transport: str, tmp_path: Path) -> Iterator[Ends]:
    ends = Ends(Site(tmp_path), probes=request.param == "busy", **TRANSPORTS[transport])
    ends.wait(lambda: ends.session if transport == "stripe" else ends.state == "up", 5.0, "up")
    ends.run(10.0)
    yield ends
    ends.close()


def shown(ends: Ends, name: str) -> list[Any]:
    """What both ends show of the path, by a field."""
    return [role.paths()[0][name] for role in (ends.client, ends.server)]


def assert_right(ends: Ends) -> None:
    true = 2 * ends.network.delay
    assert shown(ends, "rtt_seconds") == pytest.approx([true, true], abs=max(0.2 * true, 0.005))


@pytest.mark.parametrize(("before", "after"), [(DELAY, 0.08), (DELAY, 0.3), (0.08, DELAY)])
def test_the_round_trip_time_is_right_3_s_after_a_change(both: Ends, before: float, after: float) -> None:
    both.network.delay = before
    both.run(5.0)
    assert_right(both)
    both.network.delay = after
    both.run(3.0)
    assert_right(both)


@pytest.mark.parametrize("seconds", [1.0, 2.5])
@pytest.mark.parametrize("after", [DELAY, 0.08])
def test_what_is_shown_is_right_3_s_after_the_end_of_a_cut(both: Ends, seconds: float, after: float) -> None:
    assert_right(both)
    both.network.cut()
    both.run(seconds)
    both.network.heal()
    both.network.delay = after
    both.run(3.0)
    assert_right(both)
    # What a cut has taken is told by the path's state. A short one may be two requests of an idle path, of ten.
    assert shown(both, "loss_ratio") == pytest.approx([0.0, 0.0], abs=0.02 if seconds > 2.0 else 0.25)


class Losing:
    """Loses 30 % of what comes from a port, or goes there, or both."""

    def __init__(self, port: int, *, up: bool, down: bool) -> None:
        self._port, self._loses = port, {True: up, False: down}
        self._rng = random.Random(1)
        self._fates: dict[bool, list[bool]] = {True: [], False: []}

    def __call__(self, source: Endpoint, destination: Endpoint) -> bool:
        if self._port not in (source[1], destination[1]):
            return False
        up = source[1] == self._port
        self._fates[up].append(self._loses[up] and self._rng.random() < 0.3)
        return self._fates[up][-1]

    def share(self, *, up: bool) -> float:
        """Part of the datagrams in a direction that was lost."""
        return sum(self._fates[up]) / len(self._fates[up])


@pytest.mark.parametrize(("up", "down"), [(True, False), (False, True), (True, True)])
def test_both_ends_show_which_pipe_loses_and_which_way(tmp_path: Path, *, up: bool, down: bool) -> None:
    ends = Ends(Site(tmp_path), transport="stripe", stripe_fec="off")
    try:
        ends.wait(lambda: ends.session, 5.0, "up")
        plane: Any = ends.client._paths[0].current.plane
        ends.network.lost = losing = Losing(plane.sockets[2].local_address[1], up=up, down=down)
        # 20 packets go in each direction each 0.1 s.
        for _ in range(300):
            for _ in range(20):
                ends._send_probes()
            ends.run(0.1)
        (client,), (server,) = ends.client.paths(), ends.server.paths()
        for sender, receiver, is_up in ((client, server, True), (server, client, False)):
            for number, (sent, came) in enumerate(zip(sender["pipes"], receiver["pipes"], strict=True)):
                expected = losing.share(up=is_up) if number == 2 else 0.0
                lost = sent["tx_lost_shards"] / sent["tx_shards"]
                missing = came["rx_lost_shards"] / (came["rx_lost_shards"] + came["rx_shards"])
                assert [lost, missing] == pytest.approx([expected, expected], abs=0.03 if expected else 0.01)
                assert (sent["tx_loss_ratio"] > 0.1, came["rx_loss_ratio"] > 0.1) == (expected > 0, expected > 0)
    finally:
        ends.close()
