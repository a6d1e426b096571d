"""Links that lose packets, or the large ones: what a striped tunnel makes of them."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from mpqlab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpqlab.testing import Download, Lab


def download_rate(lab: Lab, lan: int) -> float:
    """What one TCP connection brings to a LAN host in 6 s, in Mbit/s."""
    return float(
        json.loads(lab.mpqlab("speedtest", "--lan", str(lan), "--reverse", "--seconds", "6", "--json"))["mbit"]
    )


def test_a_link_that_loses_5_percent_takes_little_from_a_striped_tunnel(
    lab: Lab, download: Callable[..., Download]
) -> None:
    lab.wait_striping("mpq6", within=10)
    lab.wait_state("mpq5", "up", within=10)
    lossless = download_rate(lab, 6)
    for wan in ("wan5", "wan6"):
        lab.link("set", wan, "loss_percent=5")
    learning = download(6, 1_000_000_000)
    wait_for(lambda: lab.stripe("mpq6", "vps")["loss_ratio"] > 0.03, 20, "aware of the loss")
    learning.close()
    plain, striped = download_rate(lab, 5), download_rate(lab, 6)
    print(f"lossless {lossless}, striped {striped}, QUIC {plain} Mbit/s")
    assert striped >= lossless / 2
    # Loss alone makes the difference: the other tunnel's link has the higher rate and the shorter way.
    assert plain <= striped / 4
    assert lab.stripe("mpq6")["rx_repaired_shards"] > 0


def test_a_path_that_silently_loses_large_packets_stalls_a_transfer_for_5_s_at_most(
    lab: Lab, download: Callable[..., Download]
) -> None:
    session = lab.wait_striping("mpq6", within=10)
    wait_for(lambda: lab.stripe("mpq6", "vps")["path_mtu_state"] == "search_complete", 30, "search complete")
    assert lab.stripe("mpq6", "vps")["datagram_bytes"] > 1400
    transfer = download(6, 120_000_000)
    transfer.wait_bytes(4_000_000, within=20)
    lab.link("set", "wan6", "mtu=1280", "mtu_icmp=off")
    shrunk = time.monotonic()
    transfer.wait_bytes(8_000_000, within=20)
    transfer.finish(within=60)
    print(f"longest stall {transfer.longest_gap(shrunk):.2f} s")
    assert transfer.longest_gap(shrunk) <= 5
    assert lab.striping("mpq6") == session
    assert lab.stripe("mpq6", "vps")["datagram_bytes"] <= 1280 - 28
