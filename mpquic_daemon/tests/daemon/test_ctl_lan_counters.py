"""`mpquicctl counters` without a name: what each LAN has sent and received by each tunnel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic.ctl import lan_counters

from .test_ctl import CLIENT, write

if TYPE_CHECKING:
    from pathlib import Path


def counter(name: str, packets: int) -> dict[str, object]:
    return {"counter": {"family": "inet", "name": name, "table": "mpquic", "packets": packets, "bytes": packets * 100}}


def test_a_row_tells_a_lan_its_tunnel_and_the_class_of_that(tmp_path: Path) -> None:
    (tmp_path / "instances").mkdir()
    write(tmp_path, "cr1", {**CLIENT, "name": "cr1", "wan": "wan4", "traffic_class": 1, "class_name": "critical"})
    listing = {
        "nftables": [
            {"metainfo": {}},
            counter("lan1.11/cr1.up", 3),
            counter("lan1.11/cr1.down", 2),
            counter("lan1.95/enp7s7.up", 7),
            counter("lan1.95/enp7s7.down", 0),
            counter("theirs", 9),
        ]
    }
    rows = lan_counters.rows(listing, [tmp_path / "instances/cr1.yml"])
    assert rows == [
        {
            "lan": "lan1.11",
            "carrier": "cr1",
            "wan": "wan4",
            "class": "critical",
            "tx_packets": 3,
            "tx_bytes": 300,
            "rx_packets": 2,
            "rx_bytes": 200,
        },
        {
            "lan": "lan1.95",
            "carrier": "enp7s7",
            "wan": None,
            "class": None,
            "tx_packets": 7,
            "tx_bytes": 700,
            "rx_packets": 0,
            "rx_bytes": 0,
        },
    ]
