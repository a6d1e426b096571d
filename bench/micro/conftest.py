"""What the micro-benchmarks work on: a TCP superframe as the kernel hands it over, and the bodies of full datagrams."""

from __future__ import annotations

import struct

import pytest
from mpquic.proto.packet import ip, vnet

MSS = 1348
"""Payload of a TCP segment with timestamps in an MTU of 1400."""
SEGMENTS = 47
"""As many as fit into 64 KiB."""
TIMESTAMPS = bytes([1, 1, 8, 10]) + bytes(8)
BODY = 1420
"""Octets in a shard of an outer MTU of 1500."""
BATCH = 40


@pytest.fixture(scope="session")
def superframe() -> bytes:
    """A read of the TUN: virtio header, IPv4, TCP with timestamps, `SEGMENTS` segments."""
    payload = bytes(range(256)) * (MSS * SEGMENTS // 256 + 1)
    body = payload[: MSS * SEGMENTS]
    header = 20 + 20 + len(TIMESTAMPS)
    addresses = bytes([10, 200, 5, 1, 192, 0, 2, 80])
    head = bytearray(struct.pack("!BBHHHBBH", 0x45, 0, header + len(body), 7, 0x4000, 64, ip.TCP, 0) + addresses)
    head[10:12] = ip.internet_checksum(head).to_bytes(2, "big")
    words = (20 + len(TIMESTAMPS)) // 4
    head += struct.pack("!HHIIBBHHH", 40000, 443, 1000, 2000, words << 4, 0x10, 500, 0, 0) + TIMESTAMPS
    head[36:38] = ip.pseudo_header_sum(head, ip.TCP, len(head) + len(body) - 20).to_bytes(2, "big")
    return vnet.tcp_superframe_header(4, header, MSS, 20) + bytes(head) + body


@pytest.fixture(scope="session")
def bodies() -> list[bytes]:
    """Bodies of full shards, none of which begins with a zero."""
    return [bytes([0x10 + number]) + bytes([number]) * (BODY - 1) for number in range(BATCH)]
