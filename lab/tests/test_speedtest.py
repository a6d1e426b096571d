"""iperf3's command line and its answers."""

from __future__ import annotations

import json
import subprocess

import pytest
from mpqlab import speedtest
from mpqlab.errors import LabError
from mpqlab.speedtest import Speedtest
from mpqlab.topology import find_lan

LAN5 = find_lan(5)
TCP = {
    "end": {
        "sum_sent": {"seconds": 2.0, "bytes": 13000000, "bits_per_second": 52e6, "retransmits": 7},
        "sum_received": {"seconds": 2.08, "bytes": 12332616, "bits_per_second": 47.36e6},
    }
}
UDP = {"end": {"sum": {"seconds": 2, "bytes": 5e6, "bits_per_second": 2e7, "lost_percent": 1.25, "jitter_ms": 0.1781}}}


def test_cubic_is_pinned_and_the_port_is_that_of_the_lan() -> None:
    command = Speedtest(LAN5, seconds=2.5).command()
    assert command[command.index("-C") + 1] == "cubic"
    assert command[command.index("-p") + 1] == "5205"
    assert command[command.index("-t") + 1] == "2.5"
    assert "-R" not in command


def test_an_amount_replaces_the_duration() -> None:
    command = Speedtest(LAN5, bytes=5_000_000, reverse=True).command()
    assert command[command.index("-n") + 1] == "5000000"
    assert "-t" not in command
    assert command[-1] == "-R"


def test_udp_has_a_rate_and_no_congestion_control() -> None:
    command = Speedtest(LAN5, udp=True, rate=20).command()
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


def answers(monkeypatch: pytest.MonkeyPatch, *outputs: str) -> list[str]:
    """Let iperf3 print `outputs` one after the other; return what it hasn't printed yet."""
    waiting = list(outputs)
    monkeypatch.setattr(
        speedtest.subprocess, "run", lambda *_a, **_k: subprocess.CompletedProcess([], 0, stdout=waiting.pop(0))
    )
    monkeypatch.setattr(speedtest, "_RETRY_PAUSE", 0.0)
    return waiting


def test_a_server_that_is_between_two_tests_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    reset = '{"error": "unable to receive control message: Connection reset by peer"}'
    waiting = answers(monkeypatch, reset, '{"error": "the server is busy running a test"}', json.dumps(TCP))
    assert Speedtest(LAN5).run()["mbit"] == 47.36
    assert waiting == []


def test_a_server_that_stays_away_is_not_asked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = '{"error": "unable to connect to server: Connection refused"}'
    monkeypatch.setattr(speedtest, "_BETWEEN_TESTS_SECONDS", 0.0)
    answers(monkeypatch, refused)
    with pytest.raises(LabError, match="Connection refused"):
        Speedtest(LAN5).run()


def test_another_failure_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = answers(monkeypatch, '{"error": "unable to connect to server: No route to host"}', json.dumps(TCP))
    with pytest.raises(LabError, match="No route to host"):
        Speedtest(LAN5).run()
    assert len(waiting) == 1
