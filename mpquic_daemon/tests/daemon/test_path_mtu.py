"""What the path's MTU is, and what ICMP says of it, in virtual time: ICMP is a hint, and an honest one is followed."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from .test_outages import WITHIN, ends
from .virtual import CLIENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from .virtual import Endpoint, Ends

    Make = Callable[..., Ends]

__all__ = ["ends"]

LARGE = 1340
"""Octets behind the IP header: a packet that fills a datagram of the configured size."""
TRANSPORTS = ("quic", "stripe")
FORGED = (0, 68, 552, 1227, 1228, 1279, 1280, 1400, 65535, None)
"""Values of "too big" that no path has; None stands for errors without a size: unreachable, prohibited."""


def running(make: Make, transport: str, **settings: object) -> Ends:
    return make(striped=transport == "stripe", transport=transport, size=LARGE, **settings)


def client_sockets(both: Ends) -> list[Endpoint]:
    return [address for address in both.network.sockets if address[0] == CLIENT]


def report(both: Ends, mtu: int | None) -> None:
    """ICMP for everything that the client sends."""
    for address in client_sockets(both):
        both.network.report(address, mtu)
    both.processes["cl"].wake()


def pauses(both: Ends, since: float) -> list[float]:
    """Seconds between packets that came out of a tunnel, of the worse direction."""
    worst: list[float] = []
    for name in ("cl", "sv"):
        times = [since, *(moment for moment in both.arrivals(name) if moment > since), both.now]
        found = [after - before for before, after in itertools.pairwise(times)]
        worst = max(worst, found, key=lambda each: max(each, default=0.0))
    return worst


def narrow(mtu: int, *hosts: str) -> Callable[[Endpoint, Endpoint], int]:
    """The MTU of a path for what these hosts send, or all."""
    return lambda source, _destination: mtu if not hosts or source[0] in hosts else 1500


def carry(both: Ends, within: float = WITHIN) -> None:
    """Large packets pass in both directions, soon."""
    began = both.now
    both.wait(
        lambda: all(both.arrivals(name) and both.arrivals(name)[-1] > began + 0.1 for name in ("cl", "sv")),
        within,
        "large packets in both directions",
    )
    assert both.state == "up"


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("mtu", FORGED)
def test_forged_icmp_does_not_hold_up_a_tunnel_that_runs(ends: Make, transport: str, mtu: int | None) -> None:
    both = running(ends, transport)
    states, session, began = both.states(), both.session, both.now
    for _ in range(60):
        report(both, mtu)
        both.run(0.1)
    assert max(pauses(both, began)) < 0.25
    assert (states, both.session, both.client.status()["reconnects"]) == ([], session, 0)
    assert both.client._paths[0].current is not None
    assert both.client._paths[0].current.link.max_datagram_size == 1452


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("mtu", FORGED)
def test_forged_icmp_does_not_hold_up_a_tunnel_that_connects(ends: Make, transport: str, mtu: int | None) -> None:
    both = running(ends, transport)
    both.network.cut()
    for _ in range(200):
        report(both, mtu)
        both.run(0.1)
    assert both.state == "down"
    both.network.heal()
    healed = both.now
    while both.now < healed + WITHIN:
        report(both, mtu)
        both.run(0.1)
    assert both.state == "up"
    assert both.client.status()["error"] is None
    carry(both)
    both.wait(lambda: both.client._paths[0].current.link.max_datagram_size == 1452, WITHIN, "of full size")


@pytest.mark.simulation
@pytest.mark.parametrize("tells", [True, False], ids=["told", "silent"])
@pytest.mark.parametrize("hosts", [(CLIENT,), ("10.77.2.2",), ()], ids=["up", "down", "both"])
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("mtu", [1228, 1300])
def test_a_path_that_shrinks_carries_on_and_grows_again(
    ends: Make, transport: str, mtu: int, hosts: tuple[str, ...], tells: bool
) -> None:
    both = running(ends, transport)
    states = both.states()
    both.network.tells, both.network.mtu = tells, narrow(mtu, *hosts)
    carry(both)
    shrunk = both.now
    both.run(30.0)
    assert max(pauses(both, shrunk)) < WITHIN
    both.network.mtu = narrow(1500)
    both.run(25.0)
    assert both.client.status()["reconnects"] == 0
    assert states == []
    if transport == "quic":
        (row,) = both.server.paths()
        assert both.client._paths[0].current.link.max_datagram_size > 1440
        assert int(str(row["quic"]["max_datagram_bytes"])) > 1440


@pytest.mark.parametrize("tells", [True, False], ids=["told", "silent"])
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("mtu", [1228, 1279, 1280, 1400])
def test_a_tunnel_connects_over_a_path_of_any_mtu_that_quic_allows(
    ends: Make, transport: str, mtu: int, tells: bool
) -> None:
    both = running(ends, transport)
    both.network.cut()
    both.run(20.0)
    both.network.tells, both.network.mtu = tells, narrow(mtu)
    both.network.heal()
    both.wait(lambda: both.state == "up", WITHIN, "up")
    carry(both)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_an_mtu_that_is_too_small_for_quic_is_told_as_the_cause(
    ends: Make, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    both = running(ends, transport)
    both.network.mtu = narrow(1000)
    both.wait(lambda: both.state == "down", 15.0, "down")
    both.run(60.0)
    error = "no answer from 10.77.2.2:45009: the path's MTU is 1000, QUIC needs 1228"
    assert both.client.status()["error"] == error
    assert "path.mtu" in caplog.text
    both.network.mtu = narrow(1500)  # what the kernel believes lasts
    both.wait(lambda: both.state == "up", WITHIN, "up")
    assert both.client.status()["error"] is None
    carry(both)
    both.network.cut()
    both.run(20.0)
    both.network.believed.clear()
    both.run(20.0)
    assert "MTU" in str(both.client.status()["error"]), "the wording of an outage stays while it lasts"


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("hosts", [(CLIENT,), ("10.77.2.2",)], ids=["up", "down"])
def test_an_mtu_that_is_too_small_for_quic_is_found_out_without_icmp(
    ends: Make, hosts: tuple[str, ...], transport: str
) -> None:
    both = running(ends, transport)
    both.network.tells, both.network.mtu = False, narrow(1000, *hosts)
    both.wait(lambda: both.state == "down", 25.0, "down")
    both.run(30.0)
    error = str(both.client.status()["error"])
    assert "the path's MTU is below 1228, QUIC needs 1228: packets of 1200 bytes don't pass, smaller ones do" in error
    both.network.mtu = narrow(1500)
    both.wait(lambda: both.state == "up", WITHIN, "up")
    carry(both)


def test_a_flood_of_icmp_costs_few_iterations(ends: Make) -> None:
    both = running(ends, "quic", probes=False)
    sent = both.network.sent
    for _ in range(2000):
        report(both, 552)
        both.run(0.005)
    assert both.network.sent - sent < 10 * 40
