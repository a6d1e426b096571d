"""UDP datagrams of one flow become one write where the kernel takes it, and are the same datagrams then."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from mpquic.proto.packet.coalescer import MAX_UDP_SEGMENTS, Coalescer
from mpquic.proto.packet.frame import Frame, FrameFlag
from mpquic.proto.packet.superframe import cut, parse_vnet

from .packets import ipv4, ipv6

CHECKSUM = int(FrameFlag.CHECKSUM)


def udp(size: int, *, version: int = 4, source: int = 5000, identification: int = 7, tos: int = 0) -> bytes:
    body = source.to_bytes(2, "big") + (6000).to_bytes(2, "big") + (8 + size).to_bytes(2, "big") + b"\0\0"
    body += bytes((size + place) & 255 for place in range(size))
    if version == 4:
        return ipv4(17, body, identification=identification, fragment=0, tos=tos)
    return ipv6(17, body)


def frames(packets: list[bytes], flags: int = CHECKSUM) -> list[Frame]:
    return [Frame(packet, 1, place, flags) for place, packet in enumerate(packets)]


def without_checksum(packet: bytes) -> bytes:
    field = 26 if packet[0] >> 4 == 4 else 46
    return packet[:field] + b"\0\0" + packet[field + 2 :]


def carried(writes: list[list[bytes | memoryview]]) -> list[bytes]:
    """What a kernel makes of the writes, checksums apart."""
    return [without_checksum(packet) for write in writes for packet in cut(parse_vnet(b"".join(write)))]


def coalescer() -> Coalescer:
    made = Coalescer()
    made.uso = True
    return made


@given(st.lists(st.tuples(st.sampled_from([1, 60, 200]), st.sampled_from([4, 6]), st.integers(0, 1)), max_size=40))
def test_each_flow_keeps_its_datagrams_and_their_order(made: list[tuple[int, int, int]]) -> None:
    packets = [
        udp(size, version=version, source=5000 + flow, identification=place)
        for place, (size, version, flow) in enumerate(made)
    ]
    arrived = carried(coalescer().rebuild(frames(packets)))
    for version in (4, 6):
        for flow in (5000, 5001):
            port = flow.to_bytes(2, "big")
            start = 20 if version == 4 else 40

            def mine(packet: bytes, version: int = version, start: int = start, port: bytes = port) -> bool:
                return packet[0] >> 4 == version and packet[start : start + 2] == port

            assert [one for one in arrived if mine(one)] == [without_checksum(one) for one in packets if mine(one)]


def test_a_run_is_one_write_and_as_long_as_the_kernel_takes() -> None:
    made = coalescer()
    packets = [udp(200, identification=number) for number in range(MAX_UDP_SEGMENTS + 3)]
    assert len(made.rebuild(frames(packets))) == 2
    assert made.coalesced == MAX_UDP_SEGMENTS + 1


def test_what_does_not_fit_together_stays_apart() -> None:
    one = udp(200, identification=1)
    for other in (
        udp(201, identification=2),  # longer than the first
        udp(200, identification=9),  # a gap in the identification, and no DF
        udp(200, identification=2, tos=4),
        udp(200, identification=2, source=5001),
    ):
        assert len(coalescer().rebuild(frames([one, other]))) == 2
    assert len(coalescer().rebuild(frames([one, udp(200, identification=2)], flags=0))) == 2
    assert len(Coalescer().rebuild(frames([one, udp(200, identification=2)]))) == 2


def test_a_short_datagram_ends_a_run() -> None:
    packets = [udp(size, identification=place) for place, size in enumerate((200, 200, 50, 50))]
    assert len(coalescer().rebuild(frames(packets))) == 2


def test_a_wrong_length_is_refused() -> None:
    packet = bytearray(udp(200))
    packet[24] = 1
    made = coalescer()
    assert made.rebuild(frames([bytes(packet)])) == []
    assert made.refused == {"udp_length": 1}
