"""What `status` says of a client that doesn't carry: the cause of now, which of them, and for how long."""

from __future__ import annotations

import ipaddress
import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from mpquic.daemon import server_report
from mpquic.daemon.client_connection import Failure
from mpquic.daemon.period import Period
from mpquic.net.netlink import WanState
from mpquic.net.rtnetlink import DefaultRoute
from mpquic.proto.path.cause import Cause

from .test_outages import ends

if TYPE_CHECKING:
    from collections.abc import Callable

    from .virtual import Ends

    Make = Callable[..., Ends]

__all__ = ["ends"]

SILENCE = "no answer from the server for 3 s"


def test_the_newest_cause_is_told_and_none_once_the_tunnel_carries() -> None:
    cause = Cause()
    cause.failure("refused: no such tunnel")
    cause.silence(SILENCE)
    assert cause.text == SILENCE
    cause.silence("no answer from 192.0.2.1:45005")
    assert cause.text == SILENCE, "the same cause in other words"
    cause.failure("the server stops")
    assert cause.text == "the server stops"
    cause.clear()
    assert cause.text is None


def test_an_obstacle_explains_silence_and_nothing_that_was_answered() -> None:
    cause = Cause()
    cause.obstacle = "the lease covers the VPS"
    assert cause.text == "the lease covers the VPS"
    cause.silence(SILENCE)
    assert cause.text == "the lease covers the VPS"
    cause.failure("revoked")
    assert cause.text == "revoked"
    cause.silence(SILENCE)
    cause.obstacle = None
    assert cause.text == SILENCE


def test_a_server_that_stopped_and_then_went_silent_is_silent(ends: Make) -> None:
    both = ends()
    both.run(5.0)
    both.processes["cl"].call(lambda: both.client._paths[0].current._end(Failure.ENDED, "the server stops"))
    both.network.cut()
    both.processes["cl"].call(both.client._iterate)
    assert both.client.status()["error"] == "the server stops"
    told: list[object] = []
    both.client._on_change = lambda: told.append(both.client.status()["error"])
    both.run(20.0)
    assert str(both.client.status()["error"]).startswith("no answer from ")
    assert told == [both.client.status()["error"]], "whoever watches hears of the new cause once"
    both.network.heal()
    both.wait(lambda: both.state == "up", 20.0, "up")
    assert both.client.status()["error"] is None


def test_the_cause_of_a_former_lease_is_forgotten_with_it(ends: Make) -> None:
    both = ends(bind_ip="iface:wan0")
    both.network.cut()
    both.run(20.0)
    assert (both.state, both.client.status()["error"]) == ("down", SILENCE)
    both.processes["cl"].call(lambda: both.monitors[0].change("10.77.1.9"))
    both.run(0.1)
    assert (both.state, both.client.status()["error"]) == ("connecting", None)
    both.processes["cl"].call(lambda: both.monitors[0].change(None))
    both.run(0.1)
    status = both.client.status()
    assert (status["state"], status["missing"]) == ("inactive", "lease")
    assert status["error"] == "wan0: no IPv4 address (the carrier is there, a lease is not)"
    both.processes["cl"].call(lambda: both.monitors[0].change("10.77.1.9"))
    both.run(0.1)
    assert both.client.status()["missing"] is None


def test_an_obstacle_is_gone_with_the_subnet_that_made_it(ends: Make) -> None:
    """The lease has the same address and gateway in another subnet: no connection needs to be made anew for that."""
    both = ends(bind_ip="iface:wan0", striped=False, transport="quic")
    both.monitors[0].prefix_length = 8
    both.processes["cl"].call(lambda: both.monitors[0].put(None))
    both.network.cut()
    both.wait(lambda: both.state == "down", 6.0, "down")
    assert "covers the VPS's address" in str(both.client.status()["error"])
    both.monitors[0].prefix_length = 24
    both.processes["cl"].call(lambda: both.monitors[0].put(None))
    both.run(0.1)
    assert both.client.status()["error"] == SILENCE


def test_a_step_of_the_wall_clock_changes_no_duration(ends: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    both = ends()
    both.run(60.0)
    monkeypatch.setattr("time.time", lambda: 0.0)
    before = both.client.status()["duration_seconds"], both.server.status()["duration_seconds"]
    both.run(30.0)
    after = both.client.status()["duration_seconds"], both.server.status()["duration_seconds"]
    assert after == tuple(pytest.approx(value + 30.0, abs=0.2) for value in before)


def test_a_suspend_counts_as_time() -> None:
    clock = SimpleNamespace(time=lambda: clock.now, now=100.0)
    kernel = SimpleNamespace(suspended=lambda: kernel.slept, slept=5.0)
    period = Period(clock, kernel)
    clock.now, kernel.slept = 110.0, 3605.0
    assert period.status()["duration_seconds"] == 3610.0
    period.restart()
    assert period.status()["duration_seconds"] == 0.0


ADDRESS = ipaddress.ip_address("192.0.2.7")
SIXTH = ipaddress.ip_address("2001:db8::7")
ROUTE = DefaultRoute(socket.AF_INET, 2, ipaddress.ip_address("192.0.2.1"), 105, 0)


@pytest.mark.parametrize(
    ("wan", "missing", "words"),
    [
        (WanState("wan5"), "device", "wan5: no such device"),
        (WanState("wan5", exists=True), "carrier", "wan5: no carrier (nothing is plugged in, or the modem is off)"),
        (
            WanState("wan5", exists=True, carrier=True, addresses=(SIXTH,), default_routes=(ROUTE,)),
            "lease",
            "wan5: no IPv4 address (the carrier is there, a lease is not)",
        ),
        (
            WanState("wan5", exists=True, carrier=True, addresses=(ADDRESS,)),
            "route",
            "wan5: no IPv4 default route (the address 192.0.2.7 is there)",
        ),
        (WanState("wan5", exists=True, carrier=True, addresses=(ADDRESS,), default_routes=(ROUTE,)), None, ""),
    ],
)
def test_what_a_wan_lacks_is_told_for_the_family_that_is_needed(wan: WanState, missing: str | None, words: str) -> None:
    assert (wan.missing_for(socket.AF_INET), wan.reason_for(socket.AF_INET)) == (missing, words)


@pytest.mark.parametrize(
    ("here", "absent", "summary"),
    [
        (["a"], [], "1 of 1: a"),
        ([], ["a"], "0 of 1, not a"),
        (["a", "b"], ["c"], "2 of 3: a, b; not c"),
        (["a", "b", "c", "d"], list("efghi"), "4 of 9; not e, f, g and 2 more"),
        ([], [], "0 of 0"),
    ],
)
def test_a_server_names_the_sites_that_are_absent(here: list[str], absent: list[str], summary: str) -> None:
    rows = [
        {"identity": f"urn:mpquic:site:{name}", "tunnel": "mpq5", "connected": name in here}
        for name in (*here, *absent)
    ]
    assert server_report.peer_summary(rows) == summary


def test_two_tunnels_of_one_site_are_told_apart() -> None:
    rows = [{"identity": "urn:mpquic:site:a", "tunnel": name, "connected": name == "mpq5"} for name in ("mpq5", "mpq6")]
    assert server_report.peer_summary(rows) == "1 of 2: a/mpq5; not a/mpq6"
