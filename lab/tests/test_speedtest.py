"""iperf3's command line and its answers."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from mpqlab import speedtest
from mpqlab.errors import LabError
from mpqlab.speedtest import Speedtest
from mpqlab.topology import find_lan

if TYPE_CHECKING:
    from collections.abc import Iterator

LAN5 = find_lan(5)
TCP = {
    "end": {
        "sum_sent": {"seconds": 2.0, "bytes": 13000000, "bits_per_second": 52e6, "retransmits": 7},
        "sum_received": {"seconds": 2.08, "bytes": 12332616, "bits_per_second": 47.36e6},
    }
}
UDP = {"end": {"sum": {"seconds": 2, "bytes": 5e6, "bits_per_second": 2e7, "lost_percent": 1.25, "jitter_ms": 0.1781}}}


def test_cubic_is_pinned_and_the_port_is_that_of_the_server() -> None:
    command = Speedtest(LAN5, seconds=2.5).command(5601)
    assert command[command.index("-C") + 1] == "cubic"
    assert command[command.index("-p") + 1] == "5601"
    assert command[command.index("-t") + 1] == "2.5"
    assert "-R" not in command


def test_an_amount_replaces_the_duration() -> None:
    command = Speedtest(LAN5, bytes=5_000_000, reverse=True).command(5601)
    assert command[command.index("-n") + 1] == "5000000"
    assert "-t" not in command
    assert command[-1] == "-R"


def test_udp_has_a_rate_and_no_congestion_control() -> None:
    command = Speedtest(LAN5, udp=True, rate=20).command(5601)
    assert command[command.index("-b") + 1] == "20M"
    assert "-C" not in command


def test_throughput_is_what_arrived() -> None:
    result = Speedtest(LAN5).result(json.dumps(TCP))
    assert result["mbit"] == 47.36
    assert result["bytes"] == 12332616
    assert result["retransmits"] == 7


def test_udp_shows_loss_and_jitter() -> None:
    result = Speedtest(LAN5, udp=True).result(json.dumps(UDP))
    assert (result["loss_percent"], result["jitter_ms"]) == (1.25, 0.178)


def test_the_reason_of_iperf3_is_passed_on() -> None:
    with pytest.raises(LabError, match="no speed test from host5 to the Internet: iperf3 says 'the server is busy'"):
        Speedtest(LAN5).result('{"error": "the server is busy"}')


def test_output_that_is_no_json_is_an_error() -> None:
    with pytest.raises(LabError, match="printed no result"):
        Speedtest(LAN5).result("Segmentation fault")


def test_a_run_has_a_server_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[int] = []

    @contextmanager
    def server(address: str) -> Iterator[int]:
        assert address == "192.0.2.80"
        served.append(5600 + len(served))
        yield served[-1]

    asked: list[str] = []

    def measure(argv: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(argv[argv.index("-p") + 1])
        return subprocess.CompletedProcess(argv, 0, stdout=json.dumps(TCP))

    monkeypatch.setattr(speedtest, "fresh_server", server)
    monkeypatch.setattr(speedtest.subprocess, "run", measure)
    assert [Speedtest(LAN5).run()["mbit"] for _ in range(2)] == [47.36, 47.36]
    assert asked == ["5600", "5601"]
