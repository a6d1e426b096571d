"""Settings of QUIC connections: what both ends share, and what may differ."""

from dataclasses import dataclass

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import QuicProtocolVersion
from aioquic.tls import CipherSuite

from mpquic.quic import aioquic_internals as internals
from mpquic.quic import congestion
from mpquic.quic.aioquic_receive import CONNECTION_ID_BYTES
from mpquic.quic.pmtu import MIN_DATAGRAM_SIZE

ALPN = "mpquic/1"
HANDSHAKE_PAUSE = 0.8
"""Longest pause in seconds before a handshake goes on over a path that heals, unless its round trip is long."""
ACK_DELAY = 0.004
WINDOW_BEFORE_ADMISSION = 64 << 10
"""Bytes that a peer may send on streams before it has proved who it is: enough for the registration."""
WINDOW = 16 << 20
"""Flow control window in bytes: 500 Mbit/s at 250 ms."""
_UNLIMITED = 1 << 50  # streams are limited by the connection's window alone


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """What may differ between connections. Sizes in bytes, times in seconds."""

    congestion_algorithm: str = "auto"
    """auto (which is cubic here), bbr, cubic or reno."""
    max_datagram_size: int = 1452
    """UDP payload that the local link takes, without IP and UDP headers; what the path takes is found out."""
    idle_timeout: float = 30.0
    handshake_timeout: float = 5.0


def quic_configuration(options: LinkOptions, *, is_client: bool) -> QuicConfiguration:
    """Settings that both ends share.

    ChaCha20-Poly1305 is the only suite: AES-GCM is limited to 2^23 packets a key (RFC 9001 section 6.6), which aioquic
    neither counts nor acts on. QUIC version 1 is the only version.
    """
    configuration = QuicConfiguration(
        alpn_protocols=[ALPN],
        congestion_control_algorithm=congestion.registered_name(options.congestion_algorithm),
        connection_id_length=CONNECTION_ID_BYTES,
        idle_timeout=options.idle_timeout,
        is_client=is_client,
        max_data=WINDOW_BEFORE_ADMISSION,
        max_datagram_size=max(MIN_DATAGRAM_SIZE, options.max_datagram_size),
        max_stream_data=_UNLIMITED,
    )
    return internals.restrict(
        configuration,
        cipher_suites=[CipherSuite.CHACHA20_POLY1305_SHA256],
        max_datagram_frame_size=65535,
        supported_versions=[QuicProtocolVersion.VERSION_1],
    )
