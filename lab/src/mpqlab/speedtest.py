"""Throughput from a host behind OpenWrt to the Internet, by iperf3."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpqlab import topology
from mpqlab.errors import LabError
from mpqlab.iperf import fresh_server
from mpqlab.run import inside

if TYPE_CHECKING:
    from mpqlab.topology import Lan

MAX_SECONDS = 600.0
_CONNECT_MS = 3000
_UDP_PAYLOAD = 1200
# What a socket may have without the right to more; iperf3 gives up when it doesn't get what it asks for.
_BUFFER_LIMITS = [Path("/proc/sys/net/core") / name for name in ("rmem_max", "wmem_max")]


@dataclass(frozen=True, slots=True)
class Speedtest:
    """One measurement. `reverse` is a download. With `bytes` the amount ends it, else `seconds`; rate in Mbit/s."""

    lan: Lan
    seconds: float = 10.0
    bytes: int | None = None
    reverse: bool = False
    udp: bool = False
    rate: float = 10.0
    streams: int = 1
    ipv6: bool = False
    source: str | None = None
    """The host's address to send from; None for that of the LAN itself."""

    @property
    def target(self) -> str:
        """The address of the server in the Internet."""
        return topology.INTERNET_ADDRESS6 if self.ipv6 else topology.INTERNET_ADDRESS

    def command(self, port: int) -> list[str]:
        """Return the iperf3 command. CUBIC is pinned: a controller's default may be another one."""
        argv = ["iperf3", "--json", "-c", self.target, "-p", str(port)]
        argv += ["--connect-timeout", str(_CONNECT_MS), "-P", str(self.streams)]
        argv += ["-B", self.source] if self.source is not None else []
        argv += ["-n", str(self.bytes)] if self.bytes is not None else ["-t", f"{self.seconds:g}"]
        if self.udp:
            # Datagrams that come while a busy processor keeps iperf3 waiting must not count as lost by the network.
            buffer = min(int(limit.read_text()) for limit in _BUFFER_LIMITS)
            argv += ["-u", "-b", f"{self.rate:g}M", "-l", str(_UDP_PAYLOAD), "-w", str(buffer)]
        else:
            argv += ["-C", "cubic"]
        return [*argv, "-R"] if self.reverse else argv

    def run(self) -> dict[str, Any]:
        """Measure, and return Mbit/s at the receiver and what iperf3 knows of loss.

        Raises:
            LabError: iperf3 could not connect, or got no answer.
        """
        with fresh_server(self.target) as port:
            return self._measure(port)

    def _measure(self, port: int) -> dict[str, Any]:
        limit = MAX_SECONDS if self.bytes is not None else self.seconds + 30.0
        try:
            done = subprocess.run(
                inside(self.lan.host, self.command(port)), capture_output=True, text=True, timeout=limit, check=False
            )
        except subprocess.TimeoutExpired:
            raise LabError(f"the speed test from {self.lan.host} didn't end within {limit:.0f} s") from None
        return self.result(done.stdout)

    def result(self, output: str) -> dict[str, Any]:
        """Read iperf3's JSON.

        Raises:
            LabError: it reports an error, or isn't JSON.
        """
        try:
            report = json.loads(output)
        except ValueError:
            raise LabError(f"iperf3 in {self.lan.host} printed no result: {output.strip()[:200]}") from None
        if "error" in report:
            raise LabError(f"no speed test from {self.lan.host} to the Internet: iperf3 says {report['error']!r}")
        end = report["end"]
        received = end["sum"] if self.udp else end["sum_received"]
        facts = {
            "lan": self.lan.number,
            "direction": "down" if self.reverse else "up",
            "protocol": "udp" if self.udp else "tcp",
            "seconds": round(received["seconds"], 2),
            "bytes": received["bytes"],
            "mbit": round(received["bits_per_second"] / 1e6, 2),
        }
        if self.udp:
            return facts | {
                "loss_percent": round(received["lost_percent"], 3),
                "jitter_ms": round(received["jitter_ms"], 3),
            }
        return facts | {"retransmits": end["sum_sent"].get("retransmits")}
