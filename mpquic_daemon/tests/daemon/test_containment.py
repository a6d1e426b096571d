"""A defect that one peer brings to light ends that peer's session: nothing reaches the event loop, nobody else notices.

Virtual time; `Process.run` fails on anything that reaches the loop's exception handler, which counts faults.
"""

from __future__ import annotations

import gc
from hashlib import sha256
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from mpquic.daemon.processor_share import PIECE
from mpquic.daemon.session import CloseCode
from mpquic.proto.control.messages import RenewStripe
from mpquic.proto.control.server_registration import ServerRegistration
from mpquic.proto.packet.frame import Frame
from mpquic.proto.stripe.keys import SECRET_SIZE
from mpquic.proto.stripe.table import SessionTable

from ..proto.stripe.hostile import tcp_packet
from .conftest import IDENTITY, SERVER_NAME, Site
from .test_outages import ends
from .virtual import Ends

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Make = Callable[..., Ends]

__all__ = ["ends"]


def broken(*_arguments: object, **_settings: object) -> None:
    raise IndexError("a defect")


def server_session(both: Ends) -> object:
    (connection,) = both.server._connections
    assert connection.plane is not None
    return connection.plane.session


def client_session(both: Ends) -> object:
    plane = both.client._paths[0].current.plane
    assert plane is not None
    return plane.session


@pytest.mark.parametrize("end", [server_session, client_session])
@pytest.mark.parametrize("part", ["receive", "poll", "send", "take_outgoing", "next_time"])
def test_a_fault_in_a_striped_session_ends_that_session_and_another_follows(
    ends: Make, caplog: pytest.LogCaptureFixture, end: Callable[[Ends], object], part: str
) -> None:
    both = ends()
    before = both.session
    setattr(end(both), part, broken)
    both.wait(lambda: both.session not in (None, before), 10.0, "striped anew")
    assert "fault" in caplog.text
    both.run(5.0)
    arrived = len(both.arrivals("sv")), len(both.arrivals("cl"))
    both.run(1.0)
    assert all(len(both.arrivals(name)) > count + 5 for name, count in zip(("sv", "cl"), arrived, strict=True))
    assert both.state == "up"


def test_a_session_that_faults_again_and_again_is_renewed_with_a_limit(
    ends: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = ends(probes=False)
    kind = type(server_session(both))
    with monkeypatch.context() as patch:
        patch.setattr(kind, "poll", broken)
        before = both.server.counters()["registrations"]
        both.run(60.0)
        assert both.server.counters()["registrations"] - before < 60
    both.wait(lambda: both.session, 70.0, "striped")


@pytest.mark.parametrize("part", ["advance", "read"])
def test_a_fault_in_the_clients_quic_connection_ends_that_connection(ends: Make, part: str) -> None:
    both = ends()
    setattr(both.client._paths[0].current, part, broken)
    both.wait(lambda: both.client.status()["reconnects"] == 1 and both.session, 30.0, "up again")


def test_a_fault_in_what_has_waited_for_a_client_ends_its_connections(ends: Make) -> None:
    both = ends()
    (tunnel,) = both.server._tunnels
    order = tunnel.receiver._space(0).order
    order.expire = broken
    frames = [Frame(tcp_packet(1, 10_000 * each), 0, order.highest + 2 + 2 * each) for each in range(20)]
    both.processes["sv"].call(lambda: tunnel.pump.put(order.add(frames, both.now, 0.01) and []))
    both.wait(lambda: both.client.status()["reconnects"] == 1 and both.session, 10.0, "up again")
    assert tunnel not in both.server._tunnels
    assert not both.fatal


@pytest.mark.parametrize("part", ["enqueue_packets", "flush"])
def test_a_fault_in_what_goes_to_one_client_ends_its_connections(ends: Make, part: str) -> None:
    both = ends(striped=False, transport="quic")
    (tunnel,) = both.server._tunnels
    setattr(tunnel.sender, part, broken)
    both.wait(lambda: both.client.status()["reconnects"] == 1 and both.state == "up", 10.0, "up again")
    assert tunnel not in both.server._tunnels


def test_the_datagrams_of_others_in_the_same_read_are_served(ends: Make) -> None:
    both = ends(probes=False)
    session = server_session(both)
    listener = both.server._stripe
    served: list[bytes] = []

    class Other:
        """Stands for the plane of another client."""

        def on_arrival(self) -> None:
            both.server._share.add("other", self.serve)

        def serve(self, _now: float) -> None:
            served.extend(bytes(data) for data, _, _ in listener._arrivals.take(self, None))

    other = Other()
    find = listener.table.find
    own = SimpleNamespace(pipes=SimpleNamespace(sources={("10.77.1.3", 1)}))
    # The read holds a datagram of the session that faults, and then one of the other.
    listener.table.find = lambda datagram: (own, other) if bytes(datagram) == b"other" else find(datagram)
    session.receive = broken
    known = both.network.sockets[listener.socket.local_address]
    before = both.session

    def give() -> None:
        stripe = both.client._paths[0].current.plane
        stripe.session.pipes.busy(both.now)
        known.put((("10.77.1.2", 1), stripe.session._sealer.seal_control(9, 0, bytes(10))))
        known.put((("10.77.1.3", 1), b"other"))

    both.processes["sv"].call(give)
    assert served == [b"other"]
    both.wait(lambda: both.session not in (None, before), 10.0, "striped anew")


def test_the_budget_of_a_client_is_one_for_all_its_sessions_and_goes_with_them(ends: Make) -> None:
    both = ends(probes=False)
    (tunnel,) = both.server._tunnels
    memory = tunnel.pump.memory
    assert len(memory._sending) == 1
    before = both.session
    both.processes["cl"].call(lambda: setattr(both.client._paths[0].current.plane.session, "exhausted", True))
    both.wait(lambda: both.session not in (None, before), 10.0, "striped anew")
    assert [*both.server._tunnels] == [tunnel]
    assert len(memory._sending) == 1
    both.network.cut()
    both.wait(lambda: not both.server._tunnels and not memory._sending and not memory._stores, 120.0, "forgotten")
    both.network.heal()


@pytest.mark.parametrize("name", ["sv", "cl"])
def test_what_room_is_made_of_for_another_tunnel_goes_on_at_once(ends: Make, name: str) -> None:
    both = ends(probes=False)
    both.run(5.0)
    receiver = both.client._receiver if name == "cl" else next(iter(both.server._tunnels)).receiver
    order = receiver._space(0).order
    first = order.highest + 2
    frames = [Frame(tcp_packet(1, 10_000 * each), 1, first + 2 * each) for each in range(20)]
    both.processes[name].call(lambda: order.add(frames, both.now, 60.0))
    assert order.bytes
    both.processes[name].call(order.shed)
    both.run(0.002)
    assert not order._shed_frames


def test_all_tunnels_of_an_identity_have_one_budget(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.ca.client("other", "urn:mpquic:site:other")
    addresses = {"mpq9": "10.200.9.1/32", "mpq8": "10.200.9.3/32"}
    peers: list[dict[str, object]] = [
        {"identity": IDENTITY, "tunnel": tunnel, "allowed": [address]} for tunnel, address in addresses.items()
    ]
    peers.append({"identity": "urn:mpquic:site:other", "tunnel": "mpq7", "allowed": ["10.200.9.4/32"]})
    both = Ends(site, inner_addresses=[addresses["mpq9"]], server={"peers": peers})
    try:
        second = {"bind_ip": "10.77.1.3", "tunnel": "mpq8", "inner_addresses": [addresses["mpq8"]]}
        both.start_other("second", "10.77.1.3", site.client_config("second", transport="stripe", **second))
        tls = {"ca_file": str(site.ca.file), "cert_file": str(tmp_path / "other.crt")}
        tls |= {"key_file": str(tmp_path / "other.key"), "server_name": SERVER_NAME}
        other = {"bind_ip": "10.77.1.4", "tunnel": "mpq7", "inner_addresses": ["10.200.9.4/32"], "tls": tls}
        both.start_other("other", "10.77.1.4", site.client_config("other", transport="stripe", **other))
        listener: Any = both.server._stripe
        both.wait(lambda: len(listener.table) == 3, 5.0, "three sessions")
        planes = [connection.plane for connection in both.server._connections]
        memories = {id(plane.session.memory): plane.session.memory for plane in planes if plane is not None}
        assert sorted(len(memory._sending) for memory in memories.values()) == [1, 2]
        tunnels = {id(tunnel.receiver.memory) for tunnel in both.server._tunnels}
        assert tunnels == {*memories}
    finally:
        both.close()


def test_a_client_that_asks_for_sessions_all_the_time_gets_one_a_second(
    ends: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = ends(probes=False)
    granted: list[float] = []
    allocate = SessionTable.allocate
    monkeypatch.setattr(SessionTable, "allocate", lambda table: (granted.append(both.now), allocate(table))[1])

    def ask() -> None:
        current: Any = both.client._paths[0].current
        for _ in range(20):
            current.session.send(RenewStripe(stripe=current._request.stripe))
        both.client._iterate()

    began = both.now
    while both.now < began + 5.0:
        both.processes["cl"].call(ask)
        both.run(0.1)
    assert 3 <= len(granted) <= 6
    assert len(both.server._stripe.table) == 1
    assert both.state == "up"


def digests_in_use() -> set[bytes]:
    """The SHA-256 of all octet strings of the size of a secret that anything refers to."""
    found: set[bytes] = set()
    gc.collect()
    for one in gc.get_objects():
        for each in gc.get_referents(one):
            # What refers to nothing that could be part of a cycle isn't listed by itself.
            for part in (each, *(() if gc.is_tracked(each) else gc.get_referents(each))):
                if type(part) is bytes and len(part) == SECRET_SIZE:
                    found.add(sha256(part).digest())
    return found


def test_nothing_refers_to_the_secret_of_a_grant_once_the_keys_are_derived(
    ends: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests: set[bytes] = set()
    allocate = SessionTable.allocate

    def recorded(table: SessionTable[Any]) -> tuple[int, bytes] | None:
        found = allocate(table)
        if found is not None:
            digests.add(sha256(found[1]).digest())
        return found

    monkeypatch.setattr(SessionTable, "allocate", recorded)
    both = ends()
    before = both.session
    both.processes["cl"].call(lambda: setattr(both.client._paths[0].current.plane.session, "exhausted", True))
    both.wait(lambda: both.session not in (None, before), 10.0, "striped anew")
    both.run(2.0)
    # One in the welcome, and one in the renewal.
    assert len(digests) == 2
    assert not digests & digests_in_use()


def test_a_fault_while_datagrams_of_a_connection_are_taken_ends_that_connection(ends: Make) -> None:
    both = ends(striped=False, transport="quic")
    (connection,) = both.server._connections
    connection.link.receive = broken
    both.wait(lambda: both.client.status()["reconnects"] == 1 and both.state == "up", 30.0, "up again")
    assert connection not in both.server._connections


@pytest.mark.parametrize("part", ["advance", "poll"])
def test_a_fault_in_a_connection_of_a_client_at_the_server_ends_that_connection(ends: Make, part: str) -> None:
    both = ends(striped=False, transport="quic")
    (connection,) = both.server._connections
    setattr(connection, part, broken)
    both.wait(lambda: both.client.status()["reconnects"] == 1 and both.state == "up", 30.0, "up again")
    assert connection not in both.server._connections


def test_a_fault_while_a_connection_is_closed_keeps_no_other_from_its_end(ends: Make) -> None:
    both = ends(striped=False, transport="quic")
    (connection,) = both.server._connections
    connection.link.close = broken
    both.processes["sv"].call(
        lambda: both.server._connections.end(connection, CloseCode.REVOKED, "not allowed any more")
    )
    both.wait(lambda: connection not in both.server._connections, 5.0, "forgotten")
    both.wait(lambda: both.client.status()["reconnects"] == 1 and both.state == "up", 60.0, "up again")
    both.run(1.0)  # until the server has the client's farewell on the old connection


def test_a_fault_in_a_registration_ends_that_attempt_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path)
    certificate, key, _ = site.ca.client("other", "urn:mpquic:site:other")
    peers = [
        {"identity": IDENTITY, "tunnel": "mpq9", "allowed": ["10.200.9.1/32", "fd09::1/128"]},
        {"identity": "urn:mpquic:site:other", "tunnel": "mpq9", "allowed": ["10.200.9.3/32"]},
    ]
    both = Ends(site, transport="quic", server={"peers": peers})
    try:
        both.wait(lambda: both.state == "up", 5.0, "up")
        (connection,) = both.server._connections
        tls = {"ca_file": str(site.ca.file), "cert_file": str(certificate), "key_file": str(key)}
        config = site.client_config(
            "other", bind_ip="10.77.1.3", inner_addresses=["10.200.9.3/32"], tls={**tls, "server_name": SERVER_NAME}
        )
        with monkeypatch.context() as patch:
            patch.setattr(ServerRegistration, "receive", broken)
            other = both.start_other("other", "10.77.1.3", config)
            both.run(5.0)
            assert other.status()["state"] != "up"
            assert connection in both.server._connections
        both.wait(lambda: other.status()["state"] == "up", 15.0, "up")
        assert (both.state, both.client.status()["reconnects"]) == ("up", 0)
    finally:
        both.close()


def test_what_unregistered_peers_send_is_taken_in_pieces_although_nobody_else_waits(ends: Make) -> None:
    both = ends(probes=False)
    arrivals: Any = both.server._port._arrivals
    take = arrivals.take
    sizes: list[int] = []

    def taken(client: object, max_bytes: int | None) -> Any:
        found = take(client, max_bytes)
        sizes.append(sum(len(data) for data, _, _ in found))
        return found

    arrivals.take = taken
    port = both.network.sockets[both.server._port.socket.local_address]

    def flood() -> None:
        for number in range(200):
            port.put((("10.77.1.3", 1 + number), bytes([0xC0]) + bytes(1199)))

    both.processes["sv"].call(flood)
    both.run(0.5)
    assert sum(sizes) >= 200 * 1200
    assert max(sizes) <= PIECE
