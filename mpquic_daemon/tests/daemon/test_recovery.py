"""Ways in which other tunnels did not come back after an outage, in virtual time. Each test names a public report."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from mpquic.daemon.client_connection import Phase
from mpquic.net.send_status import SendStatus

from .test_outages import check_recovery, ends, pipes, to_client
from .virtual import CLIENT, QUIC_PORT, Nat, UdpSocket

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .virtual import Endpoint, Ends

    Make = Callable[..., Ends]

__all__ = ["ends"]


@pytest.mark.parametrize("down_after", [800, 1000, 1500, 3000])
def test_an_idle_tunnel_is_not_called_down_on_a_healthy_link(ends: Make, down_after: int) -> None:
    """quinn issue 1670, libreswan issue 1311: keepalives that come later than what they are to prevent."""
    times = {"down_after_ms": down_after, "probe_interval_ms": 250}
    both = ends(probes=False, server=dict(times), **times)
    states, session = both.states(), both.session
    both.run(120.0)
    assert (states, both.session, both.client.status()["reconnects"]) == ([], session, 0)


@pytest.mark.parametrize("delay", [0.5, 0.85, 0.95, 1.4])
def test_a_path_that_has_become_slow_is_reached_again(ends: Make, delay: float) -> None:
    """mangos issue 108: an attempt that is given up before a reply can come."""
    both = ends(probes=False)
    both.network.cut()
    both.run(100.0)
    both.network.delay = delay
    both.network.heal()
    both.wait(lambda: both.state == "up", 30.0, "up")


@pytest.mark.parametrize("seconds", [5, 31, 60, 120, 600])
def test_striped_within_2_s_after_the_machine_was_suspended(ends: Make, seconds: float) -> None:
    """wireguard-go issue 29, tailscale issue 10688: timers on a clock that stands while the machine is suspended."""
    both = ends(probes=False)
    both.suspend("cl", seconds)
    check_recovery(both)


@pytest.mark.parametrize("silence", [1.0, 2.0, 3.0, 5.5, 6.5, 7.5])
def test_a_reply_in_the_middle_of_an_outage_delays_nothing(ends: Make, silence: float) -> None:
    """quic-go issue 3594: an attempt that was answered once and then holds up all others."""
    both = ends()
    both.network.cut()
    both.run(100.0)
    both.network.heal()

    def registering() -> bool:
        candidate = both.client._paths[0].candidate
        return candidate is not None and candidate.phase is Phase.REGISTERING

    both.wait(registering, 3.0, "answered")
    both.network.cut()
    both.run(silence)
    both.network.heal()
    check_recovery(both)


@pytest.mark.parametrize("phase", [0.0, 4.0, 8.0, 12.0, 16.0])
def test_a_dead_control_connection_is_replaced_while_pipes_carry(ends: Make, phase: float) -> None:
    """nebula issue 1748: what else arrives keeps a dead path alive until everything on it is torn down."""
    both = ends()
    both.run(phase)
    dead, states, began = both.client._paths[0].current.socket.local_address, both.states(), both.now
    both.network.lost = lambda source, destination: dead in (source, destination)
    both.run(130.0)
    assert states == []
    for name in ("cl", "sv"):
        times = [moment for moment in both.arrivals(name) if moment > began]
        assert max(later - earlier for earlier, later in itertools.pairwise(times)) < 0.35


def test_a_request_that_can_not_be_made_now_costs_no_iterations(ends: Make) -> None:
    """quic-go issue 3567: a loop that spins on a timer which is due and can't be acted on."""
    both = ends(probes=False)
    both.network.lost = pipes
    both.wait(lambda: (both.client._paths[0].stripe.renewal.due or 0.0) > both.now + 10.0, 120.0, "a long pause")
    both.run(both.client._paths[0].stripe.renewal.due - both.now - 1.6)
    iterate, iterations = both.client._iterate, []
    both.client._iterate = lambda: (iterations.append(both.now), iterate())
    both.network.cut()
    both.run(3.0)
    assert len(iterations) < 200


@pytest.mark.parametrize("seconds", [36.0, 45.3, 60.7, 72.1, 80.0])
def test_a_grant_that_an_outage_has_delayed_is_not_trusted_for_long(ends: Make, seconds: float) -> None:
    """strongswan issue 3042: the reply to a rekeying meets an outage."""
    both = ends()
    both.network.lost = pipes
    both.wait(lambda: both.client._paths[0].current.stripe_requests.is_open, 8.0, "asking")
    both.network.lost = to_client
    both.run(0.05)
    both.network.cut()
    both.run(seconds)
    both.network.heal()
    check_recovery(both)


@pytest.mark.parametrize("outage", [0.0, 20.0, 60.0])
def test_a_nat_that_rebinds_in_an_outage(ends: Make, outage: float) -> None:
    """ngtcp2 issue 2257."""
    both = ends()
    nat = Nat(both.network)
    both.network.cut()
    both.run(outage)
    nat.rebind()
    both.network.heal()
    check_recovery(both)


def test_a_control_connection_that_can_not_be_replaced_costs_few_iterations(ends: Make) -> None:
    both = ends(probes=False)
    both.network.lost = lambda source, destination: QUIC_PORT in (source[1], destination[1])
    both.run(40.0)
    iterate, iterations = both.client._iterate, []
    both.client._iterate = lambda: (iterations.append(both.now), iterate())
    both.run(30.0)
    assert both.session is not None, "pipes carry on without it"
    assert len(iterations) < 30 * 20


@pytest.mark.parametrize("apart", [step / 100 for step in range(1, 16, 2)])
def test_two_changes_of_a_wan_in_a_row_take_nothing_down(ends: Make, apart: float) -> None:
    """The second change gives up a connection that the server has admitted already in place of the first one."""
    both = ends(bind_ip="iface:wan0")
    states = both.states()
    for address in ("10.77.1.3", "10.77.1.4"):
        both.processes["cl"].call(lambda address=address: both.monitors[0].change(address))
        both.run(apart)
    check_recovery(both)
    assert "down" not in states


@pytest.mark.parametrize("changes", [{}, {"stripe_port": 47009}, None], ids=["crash", "port", "nat"])
def test_what_only_silence_tells_is_over_in_four_seconds(ends: Make, changes: dict[str, object] | None) -> None:
    """openmptcprouter issue 3712, nebula issue 889: a server that restarts, a NAT that forgets all it knew."""
    both = ends()
    stale = {address for address in both.network.sockets if address[0] == CLIENT}
    before = both.session
    if changes is None:
        both.network.lost = lambda source, destination: not stale.isdisjoint((source, destination))
    else:
        both.restart_server(**changes)
    both.wait(lambda: both.session not in (None, before), 4.0, "striped anew")


@pytest.mark.parametrize("status", [SendStatus.REFUSED, SendStatus.UNREACHABLE, SendStatus.DROPPED])
@pytest.mark.parametrize("seconds", [2.0, 33.0, 95.0])
def test_errors_of_the_socket_in_an_outage(
    ends: Make, monkeypatch: pytest.MonkeyPatch, status: SendStatus, seconds: float
) -> None:
    """ics-openvpn issue 765."""
    both, send = ends(), UdpSocket.send_batch

    def fails(
        self: UdpSocket, datagrams: Sequence[bytes], address: Endpoint | None = None, dscp: int = 0
    ) -> SendStatus:
        return status if self.local_address[0] == CLIENT else send(self, datagrams, address, dscp)

    with monkeypatch.context() as patch:
        patch.setattr(UdpSocket, "send_batch", fails)
        both.run(seconds)
    check_recovery(both)


def test_a_wan_that_flaps_leaves_nothing_behind(ends: Make) -> None:
    """openmptcprouter issue 4212."""
    both = ends(bind_ip="iface:wan0")
    for step in range(24):
        both.processes["cl"].call(lambda: both.monitors[0].change(None))
        both.run(0.1 + 0.07 * step)
        both.processes["cl"].call(lambda: both.monitors[0].change("10.77.1.2"))
        both.run(0.02 + 0.06 * step)
    check_recovery(both)
    tables = both.server.counters()["tables"]
    assert [tables[key] for key in ("stripe_sessions", "registered", "groups")] == [1, 1, 1]


def test_a_lease_that_covers_the_server_is_named_until_it_changes(ends: Make) -> None:
    both = ends(bind_ip="iface:wan0")
    both.run(5.0)
    monitor = both.monitors[0]
    monitor.prefix_length = 16
    both.network.cut()
    both.processes["cl"].call(lambda: monitor.change("10.77.1.3"))
    both.run(20.0)
    error = str(both.client.status()["error"])
    assert error.startswith("the lease 10.77.1.3/16 of wan0 covers the VPS's address 10.77.2.2: "), error
    monitor.prefix_length = 24
    both.processes["cl"].call(lambda: monitor.change("10.77.1.4"))
    both.run(5.0)
    assert "covers" not in str(both.client.status()["error"])
    both.network.heal()
    both.wait(lambda: both.state == "up", 20.0, "up")
    assert both.client.status()["error"] is None


def test_nothing_leaves_any_more_from_an_address_that_the_wan_has_lost(ends: Make) -> None:
    both = ends(bind_ip="iface:wan0")
    both.run(5.0)
    connection = both.client._paths[0].current
    assert connection is not None
    assert connection.plane is not None
    before = [connection.socket, *connection.plane.sockets]
    both.processes["cl"].call(lambda: both.monitors[0].change("10.77.1.3"))
    sent = [each.counters.tx_datagrams for each in before]
    both.run(5.0)
    assert [each.counters.tx_datagrams for each in before] == sent
    check_recovery(both)
