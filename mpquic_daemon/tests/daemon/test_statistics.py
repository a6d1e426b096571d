"""Statistics of tunnels and paths: what they count is what crosses the network and the TUN."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest
from mpquic.daemon.statistics import QueueStatistics, TunnelStatistics, snapshot
from mpquic.proto.tunnel.counters import Counters

from .conftest import Site
from .virtual import CLIENT, DELAY, STRIPE_PORT, Ends, Network

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .virtual import Endpoint


class Meter:
    """Adds up what hosts hand to a network, and what it delivers."""

    def __init__(self, network: Network) -> None:
        self._send = network.send
        network.send = self.send  # type: ignore[method-assign]
        self.sent = {True: [0, 0], False: [0, 0]}
        """Datagrams and bytes by whether the client has sent them."""
        self.striped = {True: [0, 0], False: [0, 0]}
        """The same of the striped session."""

    def send(self, source: Endpoint, destination: Endpoint, data: bytes) -> None:
        up = source[0] == CLIENT
        counts = [self.sent[up], self.striped[up]] if STRIPE_PORT in (source[1], destination[1]) else [self.sent[up]]
        for count in counts:
            count[0] += 1
            count[1] += len(data)
        self._send(source, destination, data)


@pytest.fixture(params=["quic", "stripe"])
def metered(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    made: list[Meter] = []
    plain = Network.__init__

    def meter(self: Network, *arguments: Any) -> None:
        plain(self, *arguments)
        made.append(Meter(self))

    monkeypatch.setattr(Network, "__init__", meter)
    both = Ends(Site(tmp_path), transport=request.param)
    both.wait(lambda: both.session if request.param == "stripe" else both.state == "up", 5.0, "up")
    yield both, made[0], request.param
    both.close()


def row(role: Any) -> dict[str, Any]:
    (found,) = role.paths()
    return dict(found)


def test_the_bytes_of_a_path_are_what_the_network_carried_by_all_its_planes(metered: Any) -> None:
    both, meter, transport = metered
    both.run(5.0)
    client, server = row(both.client), row(both.server)
    assert [client["tx_datagrams"], client["tx_bytes"]] == meter.sent[True]
    # What is under way hasn't come yet, and a probe for a larger packet may be too large for the way.
    assert server["rx_bytes"] == pytest.approx(client["tx_bytes"], rel=0.1)
    assert client["rx_bytes"] == pytest.approx(server["tx_bytes"], rel=0.1)
    assert (client["stripe"] is not None) == (transport == "stripe")
    assert client["tx_bytes"] > client["quic"]["tx_bytes"]


def test_the_bytes_of_a_path_outlive_its_connections(metered: Any) -> None:
    both, meter, _ = metered
    both.processes["cl"].call(lambda: both.client.reconnect(silent=False))
    both.wait(lambda: both.client.status()["reconnects"] == 1, 5.0, "reconnected")
    both.run(5.0)
    assert [row(both.client)["tx_datagrams"], row(both.client)["tx_bytes"]] == meter.sent[True]
    assert row(both.server)["rx_bytes"] == pytest.approx(row(both.client)["tx_bytes"], rel=0.1)


def test_both_ends_tell_the_same_of_a_tunnel_and_a_path(metered: Any) -> None:
    both, _, _ = metered
    both.run(2.0)
    client, server = both.client.counters()["tunnel"], both.server.counters()["tunnel"]
    assert list(client) == list(server) == [field.name for field in fields(TunnelStatistics)]
    assert client["tx_packets"] > 0
    assert server["rx_packets"] > 0
    assert set(row(both.server)) <= set(row(both.client))


def test_pipes_add_up_to_what_the_network_carried_of_their_session(metered: Any) -> None:
    both, meter, transport = metered
    both.run(5.0)
    client, server = row(both.client), row(both.server)
    for end, up in ((client, True), (server, False)):
        pipes = end["pipes"]
        assert [pipe["pipe"] for pipe in pipes] == ([0, 1, 2, 3] if transport == "stripe" else [])
        assert [sum(pipe[name] for pipe in pipes) for name in ("tx_datagrams", "tx_bytes")] == meter.striped[up]
        assert sum(pipe["tx_bytes"] for pipe in pipes) <= end["tx_bytes"]
        if transport == "stripe":
            assert sum(pipe["rx_shards"] for pipe in pipes) == end["stripe"]["rx_shards"]
            assert sum(pipe["tx_lost_shards"] for pipe in pipes) == end["stripe"]["lost_shards"]
    for sent, came in zip(client["pipes"], server["pipes"], strict=True):
        assert sent["tx_datagrams"] > 0
        assert came["rx_datagrams"] == pytest.approx(sent["tx_datagrams"], abs=2)
        assert came["rx_bytes"] == pytest.approx(sent["tx_bytes"], rel=0.1)
        assert came["rtt_seconds"] == pytest.approx(2 * DELAY, abs=0.002)
        # At rest one pipe is asked each second.
        assert came["rx_heard_age_seconds"] < 5.0


def test_every_counter_of_a_tunnel_is_in_its_statistics() -> None:
    assert set(Counters().snapshot()) <= {field.name for field in fields(TunnelStatistics)}


def test_tunnels_are_added_with_their_reasons_and_queues() -> None:
    total = TunnelStatistics(tx_bytes=1, refused={"source": 1}, queues=[QueueStatistics(0, waiting_bytes=5, expired=1)])
    other = TunnelStatistics(
        tx_bytes=2,
        refused={"source": 2, "no_path": 4},
        queues=[QueueStatistics(0, waiting_bytes=7, expired=2), QueueStatistics(3, codel_drops=9)],
    )
    total.add(other.drained())
    assert (total.tx_bytes, total.refused) == (3, {"source": 3, "no_path": 4})
    assert snapshot(total)["queues"] == [
        snapshot(QueueStatistics(0, waiting_bytes=5, expired=3)),
        snapshot(QueueStatistics(3, codel_drops=9)),
    ]
