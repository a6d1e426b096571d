"""Throughput from a host behind OpenWrt to the Internet, by iperf3."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mpqlab import topology
from mpqlab.errors import LabError
from mpqlab.run import inside

if TYPE_CHECKING:
    from mpqlab.topology import Lan

MAX_SECONDS = 600.0
_CONNECT_MS = 3000
_UDP_PAYLOAD = 1200
# Between two tests an iperf3 server closes its listening socket and opens another one: a client that comes in that
# moment is reset or refused, and one that comes a little earlier is told that the server is busy.
_BETWEEN_TESTS = ("unable to receive control message", "Connection refused", "the server is busy")
_BETWEEN_TESTS_SECONDS = 3.0
_RETRY_PAUSE = 0.2


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

    def command(self) -> list[str]:
        """Return the iperf3 command. CUBIC is pinned: a controller's default may be another one."""
        target = topology.INTERNET_ADDRESS6 if self.ipv6 else topology.INTERNET_ADDRESS
        argv = ["iperf3", "--json", "-c", target, "-p", str(topology.IPERF_BASE_PORT + self.lan.number)]
        argv += ["--connect-timeout", str(_CONNECT_MS), "-P", str(self.streams)]
        argv += ["-n", str(self.bytes)] if self.bytes is not None else ["-t", f"{self.seconds:g}"]
        argv += ["-u", "-b", f"{self.rate:g}M", "-l", str(_UDP_PAYLOAD)] if self.udp else ["-C", "cubic"]
        return [*argv, "-R"] if self.reverse else argv

    def run(self) -> dict[str, Any]:
        """Measure, and return Mbit/s at the receiver and what iperf3 knows of loss.

        Raises:
            LabError: iperf3 could not connect, or got no answer.
        """
        deadline = time.monotonic() + _BETWEEN_TESTS_SECONDS
        while True:
            try:
                return self._attempt()
            except LabError as error:
                if time.monotonic() > deadline or not any(words in str(error) for words in _BETWEEN_TESTS):
                    raise
            time.sleep(_RETRY_PAUSE)

    def _attempt(self) -> dict[str, Any]:
        limit = MAX_SECONDS if self.bytes is not None else self.seconds + 30.0
        try:
            done = subprocess.run(
                inside(self.lan.host, self.command()), capture_output=True, text=True, timeout=limit, check=False
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
