"""A server behind a NAT that maps ports: the client is told which ones, for the connection and for the pipes."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from .conftest import Site
from .virtual import SERVER, Ends

if TYPE_CHECKING:
    from pathlib import Path

    from .virtual import Endpoint, Network


def map_ports(network: Network, public: dict[int, int]) -> None:
    """Have packets for public ports of the server go to its own, and replies leave from the public ones."""
    send, private = network.send, {own: port for port, own in public.items()}

    def mapped(source: Endpoint, destination: Endpoint, data: bytes) -> None:
        if destination[0] == SERVER and destination[1] in private:
            return  # not reachable from outside
        if destination[0] == SERVER:
            destination = (SERVER, public.get(destination[1], destination[1]))
        if source[0] == SERVER:
            source = (SERVER, private.get(source[1], source[1]))
        send(source, destination, data)

    network.send = mapped  # type: ignore[method-assign]


@pytest.mark.parametrize("stated", [True, False], ids=["stripe_port", "not stated"])
def test_a_server_behind_mapped_ports_is_striped_where_the_client_states_them(tmp_path: Path, *, stated: bool) -> None:
    ports = {"remote_port": 443, **({"stripe_port": 8443} if stated else {})}
    both = Ends(Site(tmp_path), server={"stripe_port": 50017}, **ports)
    try:
        map_ports(both.network, {443: 45009, 8443: 50017})
        both.wait(lambda: both.state == "up", 5.0, "up")
        if stated:
            both.wait(lambda: both.session is not None, 5.0, "striped")
        both.run(20.0)
        # Without it QUIC carries.
        assert (both.session is not None) is stated
        assert both.state == "up"
        times = [moment for moment in both.arrivals("sv") if moment >= both.now - 15.0]
        assert len(times) > 140
        assert max(later - earlier for earlier, later in pairwise(times)) < 0.5
    finally:
        both.close()
