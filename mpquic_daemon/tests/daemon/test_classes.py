"""What a class makes of a tunnel: the DSCP of its outer packets, the transport that its client asks for, its rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ..proto import packets
from .conftest import IDENTITY, Site
from .virtual import CLIENT, INNER_CLIENT, INNER_SERVER, SERVER, Ends

if TYPE_CHECKING:
    from pathlib import Path

OTHER = "10.77.1.3"
KINDS: dict[str, dict[str, Any]] = {
    "stripe": {"transport": "stripe"},
    "quic-datagram": {"transport": "quic"},
    "quic-reliable": {"transport": "quic", "transport_mode": "reliable"},
}
ALLOWED = ["10.200.9.1/32", "fd09::1/128"]
OTHER_ALLOWED = ["10.200.9.5/32"]
EF, AF21 = 46, 18


def peer(tunnel: str, allowed: list[str], **more: object) -> dict[str, object]:
    return {"identity": IDENTITY, "tunnel": tunnel, "allowed": allowed, **more}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_each_client_of_a_shared_port_has_its_own_dscp_and_transport(tmp_path: Path, kind: str, other: str) -> None:
    site = Site(tmp_path)
    peers = [
        peer("cr1", ALLOWED, traffic_class=1, dscp=EF, low_latency=True),
        peer("df1", OTHER_ALLOWED, traffic_class=3, dscp=AF21),
    ]
    first: dict[str, Any] = {"tunnel": "cr1", "traffic_class": 1, "dscp": EF, "low_latency": True}
    ends = Ends(site, probes=False, server={"peers": peers}, **first, **KINDS[kind])
    second = site.client_config(
        "df1", tunnel="df1", bind_ip=OTHER, inner_addresses=OTHER_ALLOWED, traffic_class=3, dscp=AF21, **KINDS[other]
    )
    client = ends.start_other("df1", OTHER, second)
    ends.wait(lambda: ends.state == client.status()["state"] == "up", 5.0, "up")
    if kind == "stripe":
        ends.wait(lambda: ends.session, 5.0, "striped")
    ends.run(2.0)
    modes = {path["tunnel"]: path["transport_mode"] for path in ends.server.paths()}
    assert modes == {
        "cr1": KINDS[kind].get("transport_mode", "datagram"),
        "df1": KINDS[other].get("transport_mode", "datagram"),
    }
    # Before a client has registered, the server doesn't know whose the packets are.
    assert ends.network.dscps[CLIENT, SERVER] == {EF}
    assert ends.network.dscps[OTHER, SERVER] == {AF21}
    ends.network.dscps.clear()
    for _ in range(50):
        ends.tuns["sv"].give(packets.ipv4(253, bytes(500), source=INNER_SERVER, destination=INNER_CLIENT))
        ends.tuns["sv"].give(packets.ipv4(253, bytes(500), source=INNER_SERVER, destination=bytes([10, 200, 9, 5])))
    ends.run(3.0)
    assert len(ends.arrivals("cl")) == len(ends.arrivals("df1")) == 50
    assert ends.network.dscps[SERVER, CLIENT] == {EF}
    assert ends.network.dscps[SERVER, OTHER] == {AF21}
    ends.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("upload", [True, False])
def test_a_tunnel_carries_no_more_than_its_rate(tmp_path: Path, kind: str, upload: bool) -> None:
    rate = 2_000_000
    server = {"peers": [peer("mpq9", ALLOWED, max_rate=rate)]}
    ends = Ends(Site(tmp_path), probes=False, server=server, max_rate=rate, **KINDS[kind])
    ends.wait(lambda: ends.session if kind == "stripe" else ends.state == "up", 5.0, "up")
    ends.run(1.0)
    source, destination = (INNER_CLIENT, INNER_SERVER) if upload else (INNER_SERVER, INNER_CLIENT)
    sender, receiver = ("cl", "sv") if upload else ("sv", "cl")
    packet = packets.ipv4(253, bytes(1000), source=source, destination=destination)
    seconds = 10
    for _ in range(seconds * 100):
        for _ in range(6):  # 4.9 Mbit/s
            ends.tuns[sender].give(packet)
        ends.run(0.01)
    carried = len(ends.arrivals(receiver)) * len(packet) * 8 / seconds
    assert 0.85 * rate < carried < 1.08 * rate
    ends.close()
