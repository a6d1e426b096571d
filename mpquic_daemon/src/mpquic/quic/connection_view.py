"""What can be read of a QUIC connection: its state, sizes, measurements, traffic and the server's certificate."""

import enum

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mpquic.proto.control.identity import certificate_sha256
from mpquic.proto.path.address import Address
from mpquic.proto.path.estimators import PathEstimators
from mpquic.proto.path.traffic import Traffic
from mpquic.quic import aioquic_internals as internals
from mpquic.quic import congestion
from mpquic.quic.aioquic_bounds import BoundedConnection
from mpquic.quic.pmtu import QuicPathMtu


class LinkState(enum.Enum):
    """Where a connection is in its life."""

    HANDSHAKE = "handshake"
    ESTABLISHED = "established"
    CLOSED = "closed"


class ConnectionView:
    """Properties of a connection. `certificate` is that of the server, None as long as a client hasn't accepted it."""

    def __init__(
        self, connection: BoundedConnection, control: congestion.LinkControl, certificate: x509.Certificate | None
    ) -> None:
        self._connection = connection
        self._control = control
        self._server_certificate = certificate
        self._mtu = QuicPathMtu(connection.configuration.max_datagram_size, control.meter)
        self.state = LinkState.HANDSHAKE
        self.traffic = Traffic()
        """What it has sent and received; that of its path as soon as there is one."""
        self._capacity: int | None = None
        """Largest payload of a datagram; None when it has to be found out, which costs more than asking often."""

    def count_in(self, traffic: Traffic) -> None:
        """Count what is sent and received in `traffic` from now on, with what has been counted here so far."""
        traffic.add(self.traffic)
        self.traffic = traffic

    @property
    def meter(self) -> congestion.PathMeter:
        """What it has counted."""
        return self._control.meter

    @property
    def estimators(self) -> PathEstimators:
        """Round-trip time and loss of its path: whoever measures these by other means adds to them."""
        return self._control.estimators

    @property
    def rate(self) -> float:
        """Bytes per second that the congestion window allows; 0.0 before the first RTT sample."""
        return self._control.rate

    @property
    def congestion_window(self) -> int:
        """Congestion window in bytes."""
        return self._control.congestion_window

    @property
    def bytes_in_flight(self) -> int:
        """Bytes sent and neither acknowledged nor lost."""
        return self._control.bytes_in_flight

    @property
    def peer_address(self) -> Address | None:
        """Where packets go now. On a server it follows the client, once a new address has been validated."""
        return self._connection.get_peer_address()

    @property
    def newest_received(self) -> int:
        """Number of the newest packet that the peer has sent with the keys of the connection; -1 before the first."""
        return internals.newest_received(self._connection)

    @property
    def has_decrypted(self) -> bool:
        """Whether any packet of the peer could be decrypted."""
        return internals.has_decrypted(self._connection)

    @property
    def is_closing(self) -> bool:
        """Whether either end has begun to close the connection, although the state may not show it before `flush`."""
        return self.state is LinkState.CLOSED or internals.close_event(self._connection) is not None

    @property
    def connection_id(self) -> bytes:
        """Connection ID that this end chose first."""
        return bytes(self._connection.host_cid)

    @property
    def max_datagram_size(self) -> int:
        """UDP payload in bytes of the largest packet that is sent now."""
        return self._mtu.size

    @property
    def base_fails(self) -> bool:
        """Whether the path doesn't carry packets of `MIN_DATAGRAM_SIZE`, as it must, but smaller ones."""
        return self._mtu.base_fails

    @property
    def black_holes(self) -> int:
        """How often the path was found to have shrunk."""
        return self._mtu.black_holes

    @property
    def datagram_capacity(self) -> int:
        """Largest payload in bytes that `send_datagrams` takes; 0 before the handshake is complete."""
        if self._capacity is None:
            established = self.state is LinkState.ESTABLISHED
            self._capacity = internals.datagram_capacity(self._connection) if established else 0
        return self._capacity

    @property
    def server_certificate(self) -> bytes | None:
        """The server's certificate in DER, to which a registration is bound; None before the client accepted it."""
        certificate = self._server_certificate
        return None if certificate is None else certificate.public_bytes(Encoding.DER)

    @property
    def server_chain(self) -> list[x509.Certificate]:
        """The server's certificate and those that it has sent with it; on a client, once it has accepted them."""
        certificate = self._server_certificate
        return [] if certificate is None else [certificate, *internals.peer_chain(self._connection)]

    @property
    def server_certificate_sha256(self) -> bytes | None:
        """SHA-256 of the server's certificate in DER."""
        certificate = self.server_certificate
        return None if certificate is None else certificate_sha256(certificate)
