"""Packets with any frames in them, encrypted as the peer expects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aioquic.buffer import encode_uint_var
from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.tls import Epoch

if TYPE_CHECKING:
    from aioquic.quic.connection import QuicConnection

TYPES = {
    Epoch.INITIAL: QuicPacketType.INITIAL,
    Epoch.HANDSHAKE: QuicPacketType.HANDSHAKE,
    Epoch.ONE_RTT: QuicPacketType.ONE_RTT,
}


def crypto(offset: int, data: bytes) -> bytes:
    """A CRYPTO frame (RFC 9000 section 19.6)."""
    return b"\x06" + encode_uint_var(offset) + encode_uint_var(len(data)) + data


def stream(stream_id: int, offset: int, data: bytes, *, end: bool = False) -> bytes:
    """A STREAM frame with offset and length (RFC 9000 section 19.8)."""
    head = encode_uint_var(stream_id) + encode_uint_var(offset) + encode_uint_var(len(data))
    return bytes([0x0E | end]) + head + data


def packet(connection: QuicConnection, epoch: Epoch, frames: bytes) -> bytes:
    """A datagram with one packet of a client: its next number, the keys of the epoch, and these frames.

    The connection doesn't know of it: what is lost isn't sent again.
    """
    assert connection._version is not None
    builder = QuicPacketBuilder(
        host_cid=connection.host_cid,
        is_client=True,
        max_datagram_size=1400,
        packet_number=connection._packet_number,
        peer_cid=connection._peer_cid.cid,
        peer_token=connection._peer_token,
        version=connection._version,
    )
    builder.start_packet(TYPES[epoch], connection._cryptos[epoch])
    builder.start_frame(frames[0]).push_bytes(frames[1:])
    datagrams, _ = builder.flush()
    connection._packet_number = builder.packet_number
    assert len(datagrams) == 1
    return bytes(datagrams[0])
