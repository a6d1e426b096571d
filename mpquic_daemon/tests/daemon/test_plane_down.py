"""What waits at the server for a striped data plane goes on by QUIC when the plane carries no more, by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from mpquic.proto.path.path import PathState

from ..proto import packets
from .conftest import Site
from .virtual import INNER_CLIENT, INNER_SERVER, STRIPE_PORT, Ends

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mpquic.daemon.server_connection import ServerConnection
    from mpquic.daemon.server_tunnel import ServerTunnel

    from .virtual import Endpoint


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    """Two striped ends without other traffic than a test's own, and whose pipes answer nothing from now on."""
    both = Ends(Site(tmp_path), probes=False)
    both.wait(lambda: both.session, 5.0, "up")
    both.run(5.0)

    def pipes(source: Endpoint, destination: Endpoint) -> bool:
        return STRIPE_PORT in (source[1], destination[1])

    both.network.lost = pipes
    yield both
    both.close()


def parts(ends: Ends) -> tuple[ServerConnection, ServerTunnel]:
    (connection,) = ends.server._connections
    (tunnel,) = ends.server._tunnels
    return connection, tunnel


def fill(ends: Ends, tunnel: ServerTunnel) -> None:
    """Give the server more than the striped plane takes without a report."""
    for _ in range(600):
        body = bytes(1300)
        ends.tuns["sv"].give(packets.ipv4(253, body, source=INNER_SERVER, destination=INNER_CLIENT))
    ends.run(0.05)
    assert tunnel.sender.waiting


def check_goes_on(ends: Ends, tunnel: ServerTunnel) -> None:
    """What waits reaches the client by QUIC although nothing else is sent."""
    before = len(ends.arrivals("cl"))
    ends.run(1.0)
    assert not tunnel.sender.waiting
    assert len(ends.arrivals("cl")) > before + 20
    assert ends.server._tun.device.carrier


def test_packets_do_not_wait_for_the_next_one_when_a_plane_goes_down(ends: Ends) -> None:
    connection, tunnel = parts(ends)
    plane = connection.plane
    assert plane is not None
    ends.run(3.0)
    assert plane.session.state is PathState.UP
    fill(ends, tunnel)
    ends.wait(lambda: plane.session.state is not PathState.UP, 3.0, "down")
    check_goes_on(ends, tunnel)


def test_packets_do_not_wait_for_the_next_one_when_a_plane_is_dropped(ends: Ends) -> None:
    connection, tunnel = parts(ends)
    fill(ends, tunnel)
    ends.processes["sv"].call(lambda: ends.server._planes.drop(connection))
    check_goes_on(ends, tunnel)


def test_a_session_whose_keys_are_used_up_carries_no_more(ends: Ends) -> None:
    connection, tunnel = parts(ends)
    fill(ends, tunnel)
    plane = connection.plane
    assert plane is not None
    plane.session.exhausted = True
    ends.processes["sv"].call(lambda: plane.push(ends.now))
    assert plane.session.state is PathState.DOWN
    check_goes_on(ends, tunnel)
