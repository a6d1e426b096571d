"""What networkd is told to do costs only the links that were named: elsewhere no packet, no rule and no floor.

For some 20 ms the rules and floors of a link that is configured anew are away; the filter lets nothing out meanwhile.
"""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from ipaddress import IPv4Interface
from typing import TYPE_CHECKING

import pytest
from mpqlab import topology
from mpqlab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mpqlab.testing import Lab

    from .conftest import Call

WHAT = "rule", "route show table all type unreachable", "route show table all type blackhole"
LISTING = "; ".join(f"printf '%s\\n' {' '.join(map(repr, WHAT))} | ip {family} -batch -" for family in ("-4", "-6"))
SAMPLE_INTERVAL = 0.2
SECONDS = 2.0
"""How long calls go on after what was done."""
INNER_SOURCES = " or ".join(
    f"src net {network}"
    for network in (
        *("172.16.0.0/16", "10.200.0.0/16", "fd00:100::/32", "fd00:16::/32", "fd6d:7071:ac8::/48"),
        *sorted({str(IPv4Interface(each.router).network) for each in (*topology.LANS, *topology.VLANS)}),
    )
)
"""Networks behind OpenWrt, those of LANs and VLANs, and of the tunnels: packets of theirs leave in tunnels alone."""


@dataclass(frozen=True)
class Named:
    """A link of the client, the tunnels whose packets go over it, and tables that networkd makes with it."""

    device: str
    tunnels: frozenset[str]
    table: str

    def owns(self, line: str) -> bool:
        """Whether a rule or a floor is in the link's own `.network` file."""
        words = line.split()
        if "lookup" not in words:
            return self.table in words
        return self.device in words or (words[-3] == self.table and words[0] == "1700:")


def _links() -> Iterator[Named]:
    for management in topology.MANAGEMENT[:1]:
        yield Named(management.device, frozenset(), "mgmt1")
    for wan in topology.WANS[3:]:
        tunnels = {tunnel for tunnel in topology.CLASS_VLANS if tunnel.endswith(str(wan.number - 3))}
        yield Named(wan.device, frozenset(tunnels), wan.name)
    for lan in topology.LANS:
        yield Named(lan.device, frozenset(), f"lan{lan.number}")
    for tunnel, vlan in topology.CLASS_VLANS.items():
        yield Named(vlan.device, frozenset({tunnel}), f"lan{vlan.lan.number}.{vlan.id}")
        yield Named(tunnel, frozenset({tunnel}), tunnel)


LINKS = {link.device: link for link in _links()}


def start(command: str) -> subprocess.Popen[str]:
    """A command of bash in the client, which ends when it has read a line."""
    argv = ["mpqlab", "exec", topology.CLIENT, "--", "/bin/bash", "-c", command]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


class Watch:
    """Samples the client's rules and floors five times a second; looks on WANs for what should be in tunnels."""

    def __init__(self) -> None:
        # Kept there, as a pipe that nobody reads fills up.
        loop = f"until read -t {SAMPLE_INTERVAL}; do {LISTING}; echo END; done"
        self._sampler = start(f'file=$(mktemp); ({loop}) > "$file"; cat "$file"; rm "$file"')
        self._captures = {
            wan.device: start(
                f"tcpdump -nlpq --immediate-mode -Q out -i {wan.device} {INNER_SOURCES} 2>&1 & read; kill $!; wait $!"
            )
            for wan in topology.WANS[3:]
        }
        for capture in self._captures.values():
            assert capture.stdout is not None
            while "listening on" not in (line := capture.stdout.readline()):
                assert line, "tcpdump ended"

    def end(self) -> tuple[list[set[str]], list[str]]:
        """Return all samples, and the packets that were seen."""
        *samples, rest = self._sampler.communicate("\n", timeout=10)[0].split("END\n")
        assert rest == ""
        seen = {device: capture.communicate("\n", timeout=10)[0] for device, capture in self._captures.items()}
        return (
            [{" ".join(line.split()) for line in sample.splitlines()} for sample in samples],
            [f"{device}: {line}" for device, lines in seen.items() for line in lines.splitlines() if "IP" in line],
        )

    def close(self) -> None:
        """End the processes, whatever they do."""
        for process in (self._sampler, *self._captures.values()):
            if process.returncode is None:
                process.communicate("\n", timeout=10)


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Sampled from here on."""
    running = Watch()
    yield running
    running.close()


def check(calls: dict[str, Call], watch: Watch, began: float, link: Named) -> None:
    """Nothing was lost, missing or seen but what `link` explains."""
    deadline = time.monotonic() + SECONDS
    wait_for(lambda: time.monotonic() > deadline, SECONDS + 1, "the time over")
    seconds = time.monotonic() - began
    samples, seen = watch.end()
    ends = {tunnel: call.end() for tunnel, call in calls.items()}
    assert all(end["sent"] > 45 * seconds for end in ends.values())
    assert {tunnel for tunnel, end in ends.items() if end["lost"]} <= link.tunnels
    assert len(samples) > 3 * seconds
    expected = {line for line in samples[0] if not link.owns(line)}
    assert len(expected) > 80
    assert [sorted(expected - sample) for sample in samples if expected - sample] == []
    assert seen == []


@pytest.mark.parametrize("device", LINKS)
def test_a_link_that_is_configured_anew(lab: Lab, calls: dict[str, Call], watch: Watch, device: str) -> None:
    link = LINKS[device]
    began = time.monotonic()
    before = sorted(lab.run("client", LISTING).splitlines())
    lab.run("client", f"networkctl reconfigure {device}")
    wait_for(lambda: sorted(lab.run("client", LISTING).splitlines()) == before, 10, "all rules and floors back")
    for tunnel in link.tunnels:
        lab.wait_state(tunnel, "up", within=20)
    check(calls, watch, began, link)


NOTHING = Named("-", frozenset(), "-")


@pytest.mark.parametrize("command", ["networkctl reload", "systemctl restart systemd-networkd"])
def test_networkd_itself(lab: Lab, calls: dict[str, Call], watch: Watch, command: str) -> None:
    began = time.monotonic()
    for _ in range(3):
        lab.run("client", command)
        lab.run("client", "networkctl status")  # it answers again
    check(calls, watch, began, NOTHING)


def test_the_watch_sees_what_leaves_outside_a_tunnel(lab: Lab, watch: Watch) -> None:
    device = topology.WANS[4].device
    source = topology.CLASS_VLANS["cr2"].host_address.partition("/")[0]
    frame = f"bytes(12)+bytes((8,0,0x45,0,0,20,0,0,0,0,9,17,0,0))+socket.inet_aton({source!r})+bytes((192,0,2,80))"
    send = f"import socket; s=socket.socket(17,3); s.bind(({device!r},0x800)); s.send({frame})"
    lab.run("client", f'python3 -c "{send}"')
    _, seen = watch.end()
    assert [line.partition(":")[0] for line in seen] == [device]
    assert source in seen[0]
