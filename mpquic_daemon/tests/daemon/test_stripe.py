"""A real client and a real server whose tunnel is striped: it carries, and where it can't, QUIC does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root
Site = Any

PORT = 46009
PIPES = 4


def stripe(site: Site, name: str = "cl") -> dict[str, Any]:
    """The numbers of the striped data plane of the one path; {} where there is none."""
    rows = site.ask(name, "paths")
    return (rows[0].get("stripe") or {}) if rows else {}


def carries(site: Site) -> bool:
    return all(stripe(site, name).get("carries") for name in ("cl", "sv"))


def wait_stripe(site: Site, seconds: float = 5.0) -> float:
    return wait_for(lambda: carries(site), seconds, "a striped data plane that carries")


def session(site: Site) -> str:
    """The id of the session, which both ends name."""
    names = {stripe(site, name)["session"] for name in ("cl", "sv")}
    assert len(names) == 1
    return str(names.pop())


def tables(site: Site) -> dict[str, int]:
    found: dict[str, int] = site.ask("sv", "counters")["tables"]
    return found


def quic_frames(site: Site) -> int:
    return int(site.ask("cl", "counters")["paths"][0]["quic"]["tx_frames"])


def start(site: Site, *, client: dict[str, object] | None = None, server: dict[str, object] | None = None) -> None:
    site.start("server", site.server_config(**(server or {})))
    site.wait_server()
    site.start("client", site.client_config(**{"transport": "stripe", "pipes": PIPES, **(client or {})}))
    site.wait_state("up")


@pytest.fixture
def stopped(site: Site) -> Iterator[Site]:
    """A site without processes, before the test and after it."""
    try:
        yield site
    finally:
        site.heal()
        for name in list(site.processes):
            site.kill(name)


@pytest.fixture
def striped(stopped: Site) -> Site:
    """A site whose striped data plane carries in both directions."""
    start(stopped)
    wait_stripe(stopped)
    return stopped


@contextmanager
def dropped(site: Site, what: str) -> Iterator[None]:
    """Drop what matches an nft expression between the ends, in silence."""
    site.run(
        "middle",
        "nft",
        "add table inet part; add chain inet part f { type filter hook forward priority 0; };"
        f" add rule inet part f {what} drop",
    )
    try:
        yield
    finally:
        site.run("middle", "nft", "delete", "table", "inet", "part")


@contextmanager
def transfer(site: Site, target: str = "10.200.9.2") -> Iterator[subprocess.Popen[bytes]]:
    """A TCP transfer from the client's side to the server's that goes on until it is stopped."""
    family = "AF_INET6" if ":" in target else "AF_INET"
    sink = (
        f"import socket; s = socket.create_server(('{target}', 5555), family=socket.{family});"
        "c, _ = s.accept()\nwhile c.recv(1 << 20): pass"
    )
    source = f"import socket; c = socket.create_connection(('{target}', 5555))\nwhile True: c.send(bytes(1 << 16))"
    processes = []
    try:
        for role, program in (("server", sink), ("client", source)):
            full = ["ip", "netns", "exec", site.namespace(role), sys.executable, "-c", program]
            processes.append(subprocess.Popen(full, stderr=subprocess.DEVNULL))
            if role == "server":
                wait_for(lambda: ":5555" in site.run("server", "ss", "-Hltn"), 5, "the sink")
        yield processes[1]
    finally:
        for process in processes:
            process.kill()
            process.wait(5)


class Progress:
    """Watches from a thread what arrives at the server, and remembers the longest standstill in seconds."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._stop = threading.Event()
        self.stall = 0.0
        self.bytes = 0
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        moved_at = time.monotonic()
        while not self._stop.wait(0.03):
            counters = self._site.ask("sv", "counters")
            now = time.monotonic()
            seen = counters["tunnel"]["rx_bytes"] if counters else self.bytes
            # Packets of an idle tunnel don't count: a transfer moves more in the time of one look.
            if seen > self.bytes + 5000:
                self.bytes, moved_at = seen, now
            self.stall = max(self.stall, now - moved_at)


def test_packets_of_both_families_and_any_size_pass_by_the_pipes(striped: Site) -> None:
    before = quic_frames(striped)
    assert striped.ping()
    assert striped.ping(target="fd09::2")
    assert striped.ping(size=1372)
    assert striped.ping(size=4000)
    assert quic_frames(striped) == before
    for name in ("cl", "sv"):
        found = stripe(striped, name)
        assert found["tx_data_shards"] > 0
        assert found["rx_shards"] > 0
        assert found["refused"] == {}
        assert striped.ask(name)["error"] is None
    sockets = striped.run("client", "ss", "-Hun", "dst", "10.77.2.2", "dport", "=", str(PORT))
    assert len(sockets.splitlines()) == PIPES


def test_tcp_runs_both_ways_by_the_pipes(striped: Site) -> None:
    before = quic_frames(striped)
    up, down = striped.iperf(), striped.iperf("-R")
    print(f"striped: {up:.0f} Mbit/s up, {down:.0f} Mbit/s down")
    assert min(up, down) > 20
    assert quic_frames(striped) == before
    for name in ("cl", "sv"):
        found = stripe(striped, name)
        assert found["tx_data_shards"] > 1000
        assert found["oversized_frames"] == 0
        assert set(found["refused"]) <= {"late", "replayed"}
    for name in ("cl", "sv"):
        counters = striped.ask(name, "counters")
        numbers = counters["tunnel"]
        assert all("multicast" in reason for reason in numbers["refused"])
        assert numbers["tx_superframes"] > 100
        assert counters["tun"]["tx_invalid"] == 0


def test_mpquicctl_shows_that_the_stripe_carries(striped: Site) -> None:
    command = [sys.executable, "-m", "mpquic.ctl", "paths", "--instances-dir", str(striped.directory / "instances")]
    done = subprocess.run(command, env=striped.environment, capture_output=True, text=True, check=True)
    head, *rows = [line.split() for line in done.stdout.splitlines()]
    at = head.index("STRIPE")
    assert {(row[0], row[at]) for row in rows} == {("cl", "carries"), ("sv", "carries")}
    done = subprocess.run([*command, "--json"], env=striped.environment, capture_output=True, text=True, check=True)
    assert all(row["stripe"]["carries"] for row in json.loads(done.stdout))


def test_without_striping_at_the_server_quic_carries_and_the_log_says_so(stopped: Site) -> None:
    start(stopped, server={"stripe_enabled": False})
    assert stopped.ping()
    assert stopped.ping(size=4000)
    assert (stripe(stopped), stripe(stopped, "sv")) == ({}, {})
    assert quic_frames(stopped) > 0
    line = next(line for line in stopped.log("cl").splitlines() if "path.no_stripe" in line)
    assert "the server grants none" in line
    assert str(PORT) not in stopped.run("server", "ss", "-Hulpn")


def test_a_client_that_wants_no_striping_has_none(stopped: Site) -> None:
    start(stopped, client={"stripe_enabled": False})
    assert stopped.ping()
    assert stripe(stopped) == {}
    assert tables(stopped)["stripe_sessions"] == 0
    assert "path.no_stripe" not in stopped.log("cl").rpartition("started")[2]


def test_where_the_port_is_blocked_quic_carries_until_it_is_open(stopped: Site) -> None:
    with dropped(stopped, f"udp dport {PORT}"):
        start(stopped)
        assert stopped.wait_ping(3.0) < 3.0
        assert stopped.ping(10)
        found = stripe(stopped)
        assert found["carries"] is False
        assert found["rx_shards"] == 0
        assert quic_frames(stopped) >= 10
    wait_stripe(stopped, 3.0)
    before = quic_frames(stopped)
    assert stopped.ping(10)
    assert quic_frames(stopped) == before


def test_a_port_that_closes_and_opens_again_only_changes_who_carries(striped: Site) -> None:
    assert striped.ping()
    with dropped(striped, f"udp dport {PORT}"):
        wait_for(lambda: not stripe(striped)["carries"] and not stripe(striped, "sv")["carries"], 6, "silent pipes")
        assert striped.wait_ping(2.0) < 2.0
        assert striped.ping(10)
        assert striped.state() == "up"
        assert striped.ask("cl")["reconnects"] == 0
    wait_stripe(striped, 5.0)
    assert striped.ping(10)
    assert tables(striped)["stripe_sessions"] == 1


def test_a_pipe_that_is_blocked_leaves_the_others(striped: Site) -> None:
    first = striped.run("client", "ss", "-Hun", "dport", "=", str(PORT)).split()[2].rpartition(":")[2]
    with dropped(striped, f"udp sport {first}"):
        with transfer(striped), Progress(striped) as progress:
            wait_for(lambda: progress.bytes > 20_000_000, 20, "20 MB")
        assert progress.stall < 2.0
        assert carries(striped)
        # What the connection has left in the queue may yet have CoDel drop the first packet behind it.
        wait_for(lambda: striped.ping(1), 2, "the end of the queue")
        assert striped.ping(10)


def test_a_killed_client_is_back_with_a_session_of_its_own(striped: Site) -> None:
    assert striped.ping(20)
    before = session(striped)
    striped.kill("cl")
    striped.start("client", striped.client_config(transport="stripe", pipes=PIPES))
    assert striped.wait_ping(3.0) < 3.0
    wait_stripe(striped)
    assert tables(striped)["stripe_sessions"] == 1
    assert tables(striped)["registered"] == 1
    assert session(striped) != before
    assert striped.ping(20)
    # Numbers began anew at both ends: what is counted is what has come since.
    assert stripe(striped, "sv")["refused"] == {}
    assert striped.ask("cl", "counters")["tunnel"]["rx_late"] == 0


def test_a_killed_server_is_back_with_a_session_of_its_own(striped: Site) -> None:
    assert striped.ping(20)
    before = session(striped)
    striped.kill("sv")
    striped.start("server", striped.server_config())
    assert striped.wait_ping(6.0) < 6.0
    wait_stripe(striped)
    assert tables(striped)["stripe_sessions"] == 1
    assert session(striped) != before
    assert striped.ping(20)
    assert striped.ask("cl")["reconnects"] == 1
    assert striped.ask("cl", "counters")["tunnel"]["rx_late"] == 0
    assert stripe(striped)["refused"] == {}


def test_a_client_that_stops_takes_its_session_along(striped: Site) -> None:
    assert tables(striped)["stripe_sessions"] == 1
    assert striped.kill("cl", signal.SIGTERM) == 0
    wait_for(lambda: tables(striped)["stripe_sessions"] == 0, 2, "no session")


def test_reconnects_leave_no_session_socket_or_timer_behind(striped: Site) -> None:
    def open_files(name: str) -> int:
        return len(list(Path(f"/proc/{striped.processes[name].pid}/fd").iterdir()))

    before, files = tables(striped), (open_files("cl"), open_files("sv"))
    environment = {**os.environ, **striped.environment}
    for arguments in (["--times", "20"], ["--times", "5", "--silent"]):
        command = [sys.executable, "-m", "mpquic.ctl", "reconnect", "cl", *arguments]
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)
        wait_stripe(striped)
        wait_for(lambda: tables(striped) == before, 5, "the same tables")
        # At most: the baseline may have held our own question's connection.
        wait_for(lambda: open_files("cl") <= files[0] and open_files("sv") <= files[1], 5, "as few open files")
    assert striped.ping(20)


def test_a_path_that_carries_less_all_at_once_stalls_a_transfer_for_a_moment(stopped: Site) -> None:
    # Without segmentation: between namespaces nobody cuts the packets of one send apart, and nft would see their sum.
    start(stopped, client={"udp_gso": "off"}, server={"udp_gso": "off"})
    wait_stripe(stopped)
    wait_for(lambda: stripe(stopped)["datagram_bytes"] > 1440, 5, "the size of the open path")
    with transfer(stopped), Progress(stopped) as progress:
        wait_for(lambda: progress.bytes > 2_000_000, 15, "a transfer")
        # 1400 bytes of IP pass from here on, in both directions, and nobody tells.
        with dropped(stopped, "meta length > 1400"):
            moved = progress.bytes
            wait_for(lambda: progress.bytes > moved + 5_000_000, 20, "more of the transfer")
            sizes = [stripe(stopped, name)["datagram_bytes"] for name in ("cl", "sv")]
        print(f"the longest standstill was {progress.stall:.2f} s; datagrams of {sizes[0]} and {sizes[1]} bytes")
    assert progress.stall < 5.0
    assert sizes[0] <= 1372
    assert stripe(stopped)["black_holes"] >= 1
    assert stopped.state() == "up"


def test_a_path_that_always_carried_less_is_found_out(stopped: Site) -> None:
    with dropped(stopped, "meta length > 1400"):
        start(stopped, client={"udp_gso": "off"}, server={"udp_gso": "off"})
        wait_stripe(stopped)
        for name in ("cl", "sv"):
            wait_for(
                lambda name=name: 1364 < stripe(stopped, name)["datagram_bytes"] <= 1372, 10, f"the size at {name}"
            )
        assert stopped.ping(size=1372)
        assert stopped.ping(target="fd09::2", size=1352)
        with transfer(stopped), Progress(stopped) as progress:
            wait_for(lambda: progress.bytes > 2_000_000, 15, "a transfer")
        assert stripe(stopped)["oversized_frames"] == 0


@pytest.fixture
def ipv6(site: Site) -> Iterator[None]:
    """IPv6 between the ends, beside IPv4."""
    site.run("middle", "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
    for role, device, other, network in (("client", "wan0", "m1", 1), ("server", "eth0", "m2", 2)):
        site.ip("middle", "addr", "add", f"fd77:{network}::1/64", "dev", other, "nodad")
        site.ip(role, "addr", "add", f"fd77:{network}::2/64", "dev", device, "nodad")
        site.ip(role, "route", "add", "default", "via", f"fd77:{network}::1", "dev", device)
    yield
    for role, device, other, network in (("client", "wan0", "m1", 1), ("server", "eth0", "m2", 2)):
        site.ip(role, "route", "del", "default", "via", f"fd77:{network}::1", "dev", device)
        site.ip(role, "addr", "del", f"fd77:{network}::2/64", "dev", device)
        site.ip("middle", "addr", "del", f"fd77:{network}::1/64", "dev", other)


@pytest.mark.usefixtures("ipv6")
@pytest.mark.parametrize("bind", ["::", "fd77:2::2"])
def test_a_tunnel_is_striped_over_ipv6(stopped: Site, bind: str) -> None:
    start(stopped, client={"remote_addr": "fd77:2::2"}, server={"bind_ip": bind})
    wait_stripe(stopped)
    before = quic_frames(stopped)
    assert stopped.ping(10)
    assert stopped.ping(target="fd09::2", size=4000)
    with transfer(stopped, "fd09::2"), Progress(stopped) as progress:
        wait_for(lambda: progress.bytes > 5_000_000, 15, "a transfer")
    assert quic_frames(stopped) == before
    sockets = stopped.run("client", "ss", "-6Hun", "dport", "=", str(PORT))
    assert len(sockets.splitlines()) == PIPES
