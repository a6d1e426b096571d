"""NATs that change the client's ports faster than a round trip, in virtual time: traffic goes on in both directions.

ZeroTierOne issue 619. What can't be done: while a NAT forgets each port sooner than a reply can come, by all sockets,
nothing that the server sends arrives.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from .test_outages import ends
from .virtual import CLIENT, QUIC_PORT

if TYPE_CHECKING:
    from collections.abc import Callable

    from .virtual import Endpoint, Ends, Network

    Make = Callable[..., Ends]

__all__ = ["ends"]

PORTS = 1_000_000
"""Public ports of a binding are those of the one before and so many."""
LONGEST_GAP = 2.0

CHANGES: dict[str, Callable[[int, float], int]] = {
    "each packet": lambda packet, _now: packet,
    "two by turns": lambda packet, _now: packet % 2,
    "sixteen by turns": lambda packet, _now: packet % 16,
    "every 0.2 s": lambda _packet, now: int(now / 0.2),
}


class RestlessNat:
    """A NAT that has another binding by the number of the packet and the time.

    `forgets` has it drop what is sent to another binding than the present one, of those sockets that it concerns.
    """

    def __init__(
        self,
        network: Network,
        binding: Callable[[int, float], int],
        *,
        forgets: bool = False,
        concerns: Callable[[Endpoint], bool] = lambda _server: True,
    ) -> None:
        self._network, self._send = network, network.send
        self._binding, self._forgets, self._concerns = binding, forgets, concerns
        self._packets = itertools.count()
        network.send = self.send  # type: ignore[method-assign]

    def stop(self) -> None:
        self._binding = lambda _packet, _now: 0

    def send(self, source: Endpoint, destination: Endpoint, data: bytes) -> None:
        now = self._network._clock.now
        if source[0] == CLIENT and self._concerns(destination):
            source = (CLIENT, source[1] + PORTS * self._binding(next(self._packets), now))
        elif destination[0] == CLIENT:
            binding, port = divmod(destination[1], PORTS)
            if self._forgets and self._concerns(source) and binding != self._binding(0, now + self._network.delay):
                return
            destination = (CLIENT, port)
        self._send(source, destination, data)


def longest_gap(both: Ends, name: str, since: float) -> float:
    """Seconds without a packet out of an end's TUN, of which one is sent every 0.1 s."""
    moments = [since, *(moment for moment in both.arrivals(name) if moment > since), both.now]
    return max(later - earlier for earlier, later in itertools.pairwise(moments))


@pytest.mark.parametrize("size", [64, 1300])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("transport", ["quic", "stripe"])
def test_traffic_passes_a_nat_that_changes_ports_and_knows_the_old_ones(
    ends: Make, transport: str, change: str, size: int
) -> None:
    both = ends(striped=transport == "stripe", transport=transport, size=size)
    both.network.delay = 0.15
    both.run(5.0)
    states, began = both.states(), both.now
    nat = RestlessNat(both.network, CHANGES[change])
    both.run(30.0)
    assert states == []
    gaps = {name: longest_gap(both, name, began) for name in ("cl", "sv")}
    print(gaps)
    assert max(gaps.values()) < LONGEST_GAP
    nat.stop()
    both.run(10.0)
    assert both.state == "up"
    if transport == "stripe":
        assert both.session is not None


@pytest.mark.parametrize("period", [0.2, 0.35, 0.5, 0.7, 1.0, 2.0])
def test_quic_carries_where_pipes_lose_their_ports_faster_than_a_reply_can_come(ends: Make, period: float) -> None:
    both = ends()
    both.network.delay = 0.15
    both.run(5.0)
    states, began = both.states(), both.now
    RestlessNat(
        both.network, lambda _packet, now: int(now / period), forgets=True, concerns=lambda at: at[1] != QUIC_PORT
    )
    both.run(30.0)
    assert states == []
    gaps = {name: longest_gap(both, name, began) for name in ("cl", "sv")}
    print(gaps)
    assert max(gaps.values()) < LONGEST_GAP
