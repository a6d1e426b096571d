"""Whoever writes the id of somebody's connection or session into datagrams has them worked on at nobody's expense."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from mpquic.daemon import arrivals as arrivals_module
from mpquic.daemon.claims import UNPROVEN
from mpquic.proto.stripe.wire import OVERHEAD

from .test_outages import ends
from .virtual import QUIC_PORT, SERVER, STRIPE_PORT, Nat

if TYPE_CHECKING:
    from collections.abc import Callable

    from .virtual import Endpoint, Ends

    Make = Callable[..., Ends]

__all__ = ["ends"]

ATTACKER = "203.0.113.66"
PORTS = {"quic": QUIC_PORT, "stripe": STRIPE_PORT}


def started(ends: Make, transport: str, **settings: object) -> Ends:
    return ends(transport=transport, striped=transport == "stripe", **settings)


def forged(both: Ends, transport: str) -> bytes:
    """Garbage with the id that an observer reads in the client's packets."""
    (connection,) = both.server._connections
    if transport == "quic":
        return b"\x41" + bytes(connection.link._connection.host_cid) + bytes(60)
    session: Any = connection.plane.session  # type: ignore[union-attr]
    return session._sealer.seal_control(9, 0, b"")[:8] + bytes(OVERHEAD)


def own_address(both: Ends, transport: str) -> Endpoint:
    current = both.client._paths[0].current
    assert current is not None
    sockets = [current.socket] if transport == "quic" else current.plane.sockets  # type: ignore[union-attr]
    return sockets[0].local_address  # type: ignore[return-value]


def work_of(both: Ends) -> list[object]:
    """For whom work is done or added from now on, in a list that grows."""
    share, found = both.server._share, []
    add, do = share.add, share.do

    def added(client: Any, work: Any) -> None:
        found.append(client)
        add(client, work)

    def done(client: Any, work: Any, octets: int, now: float) -> None:
        found.append(client)
        do(client, work, octets, now)

    share.add, share.do = added, done  # type: ignore[method-assign]
    return found


def put(both: Ends, transport: str, datagrams: list[tuple[Endpoint, bytes]]) -> None:
    port = both.network.sockets[SERVER, PORTS[transport]]

    def give() -> None:
        for address, data in datagrams:
            port.put((address, data))

    both.processes["sv"].call(give)


@pytest.mark.parametrize("transport", PORTS)
def test_what_names_a_client_and_comes_from_elsewhere_is_not_charged_to_that_client(ends: Make, transport: str) -> None:
    both = started(ends, transport, probes=False)
    data = forged(both, transport)
    (tunnel,) = both.server._tunnels
    found = work_of(both)
    put(both, transport, [((ATTACKER, 1 + number), data) for number in range(100)])
    assert set(found) == {UNPROVEN}
    found.clear()
    put(both, transport, [(own_address(both, transport), data)])
    assert set(found) == {tunnel}


@pytest.mark.parametrize("transport", PORTS)
def test_a_flood_in_somebodys_name_displaces_nothing_that_he_has_sent(
    ends: Make, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = started(ends, transport, probes=False)
    monkeypatch.setattr(arrivals_module, "MAX_READS", 10_000)
    both.run(2.0)
    (connection,) = both.server._connections
    arrivals: Any = both.server._port._arrivals if transport == "quic" else both.server._stripe._arrivals  # type: ignore[union-attr]
    arrivals._queues._max_bytes = 100_000
    before = connection.received
    # One honest datagram, and behind it more than the queues hold before anything is worked on.
    honest: list[tuple[Endpoint, bytes]] = []
    send = both.network.send

    def caught(source: Endpoint, _destination: Endpoint, data: bytes) -> None:
        honest.append((source, data))

    both.network.send = caught  # type: ignore[method-assign]
    current: Any = both.client._paths[0].current

    def ask() -> None:
        if transport == "quic":
            current.session.send_bytes(b"")
            current.link._connection.send_ping(1)
            current.link._request_flush()
            current.flush(both.now)
        else:
            current.plane.session.ask(both.now)
            current.plane.push(both.now)

    both.processes["cl"].call(ask)
    both.network.send = send  # type: ignore[method-assign]
    (source, data), *_ = honest
    put(
        both, transport, [(source, data), *[((ATTACKER, number), forged(both, transport)) for number in range(1, 1000)]]
    )
    assert arrivals.dropped > 100
    assert connection.received != before


@pytest.mark.parametrize("transport", PORTS)
def test_a_client_whose_nat_rebinds_is_found_again_among_forged_datagrams(ends: Make, transport: str) -> None:
    both = started(ends, transport)
    nat = Nat(both.network)
    data = forged(both, transport)
    nat.rebind()
    for _ in range(300):
        put(both, transport, [((ATTACKER, 1 + number), data) for number in range(30)])
        both.run(0.01)
    assert both.state == "up"
    arrived = len(both.arrivals("sv"))
    both.run(1.0)
    assert len(both.arrivals("sv")) > arrived + 5
    (connection,) = both.server._connections
    found = work_of(both)
    both.run(1.0)
    assert connection.tunnel in found
    assert UNPROVEN not in found, "its address has become known"
