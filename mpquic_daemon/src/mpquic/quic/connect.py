"""Begins QUIC connections of a client."""

import datetime as dt
from collections.abc import Callable

from mpquic.proto.path.address import Address
from mpquic.quic.aioquic_bounds import BoundedConnection
from mpquic.quic.configuration import LinkOptions, quic_configuration
from mpquic.quic.link import QuicLink


def connect(
    address: Address,
    *,
    ca_data: bytes,
    server_name: str,
    options: LinkOptions,
    now: float,
    wall_clock: Callable[[], dt.datetime],
) -> QuicLink:
    """Begin a connection to a server; `flush` gives its first packets.

    The chain up to a certificate of `ca_data` (PEM), the name (DNS or IP), the dates and the extended key usage of the
    server's certificate are always verified; `wall_clock` is asked what is wrong with the dates of one that is refused.
    `address` is the form in which the socket shows the peer (UdpSocket.peer_address).
    """
    configuration = quic_configuration(options, is_client=True)
    configuration.server_name = server_name
    configuration.load_verify_locations(cadata=ca_data)
    link = QuicLink(lambda: BoundedConnection(configuration=configuration), options, now=now, wall_clock=wall_clock)
    link.start(address, now)
    return link
