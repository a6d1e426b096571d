"""Daemons that die and a path that goes silent: how long LAN hosts notice it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mpqlab.testing import INTERNET, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpqlab.testing import Lab, Probe


def kill(lab: Lab, node: str, unit: str) -> float:
    """Unix time at which the unit's process was killed by SIGKILL."""
    pid = lab.run(node, f"systemctl show -P MainPID {unit}").strip()
    assert int(pid) > 0
    moment = time.time()
    lab.run(node, f"kill -9 {pid}")
    return moment


def test_killed_client_daemon_carries_again_within_3_s(lab: Lab, probe: Callable[[int], Probe]) -> None:
    traffic = probe(5)
    killed = kill(lab, "client", "mpquic@mpq5")
    traffic.wait_answers(20, within=10, after=killed + 0.3)
    assert traffic.longest_gap(killed) <= 3


def test_killed_server_daemon_has_all_clients_back_within_5_s(lab: Lab, probe: Callable[[int], Probe]) -> None:
    traffic = {lan: probe(lan) for lan in (4, 5, 6)}
    for lan, running in traffic.items():
        killed = kill(lab, "vps", f"mpquic@mpq{lan}")
        running.wait_answers(20, within=15, after=killed + 0.3)
        assert running.longest_gap(killed) <= 5


def test_silent_cut_of_60_s_is_seen_and_survived(lab: Lab) -> None:
    lab.wait_state("mpq5", "up", within=10)
    received = lab.start(
        "host5", "curl", "-sS", "--fail", "--limit-rate", "1M", "-o", "/dev/null", "-w", "%{size_download}\n",
        "--max-time", "170", f"http://{INTERNET}/bytes/40000000",
    )  # fmt: skip
    before = lab.counters("wan5")["down"]["out_bytes"]
    wait_until(lambda: lab.counters("wan5")["down"]["out_bytes"] > before + 2_000_000, 20, "downloading")

    lab.link("cut", "wan5")
    cut = time.monotonic()
    lab.wait_state("mpq5", "down", within=5)
    assert lab.state("mpq4") == "up"
    assert lab.state("mpq6") == "up"
    while (left := cut + 60 - time.monotonic()) > 0:
        time.sleep(min(left, 1))
        assert lab.state("mpq5") != "up"

    lab.link("heal", "wan5")
    lab.wait_state("mpq5", "up", within=3)
    healed = lab.counters("wan5")["down"]["out_bytes"]
    wait_until(lambda: lab.counters("wan5")["down"]["out_bytes"] > healed + 1_000_000, 60, "downloading again")
    output, _ = received.communicate(timeout=120)
    assert received.returncode == 0
    assert int(output) == 40_000_000
