"""The addresses of the peer of a QuicConnection: which are kept, and which one is sent to (RFC 9000 section 9).

aioquic 1.7 follows a client to another address and has it proven there. What it leaves open is done here: it keeps an
address for as long as the connection lasts, and takes it for proven hours after the client has left it; it evicts
addresses before the reply to their challenge can come, when each packet comes from another one (load-balancing NAT);
and while the newest address is unproven it sends three times what came from there and no more, though another one may
have been proven a moment ago.

Written against aioquic 1.7, whose private attributes are used; see `aioquic_internals`. Only servers have peers that
move.
"""

from typing import cast

from aioquic.quic.connection import MAX_NETWORK_PATHS, NetworkAddress, QuicConnection, QuicNetworkPath
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.tls import Epoch

RECENT = 30.0
"""Seconds after the client has left an address in which it may return there without proof (RFC 9000 section 9.3)."""
PATIENCE = 3.0
"""Seconds in which an address that isn't used any more may still prove itself."""
MAX_PROVEN = 3
"""Proven addresses that are kept beside the one in use; with unproven ones there are MAX_NETWORK_PATHS at most."""
STILL_REACHED = 1.0
"""Seconds after an address has proven itself, though another one was in use by then, in which it takes what may not be
sent to a newer, unproven one."""
MAX_CHALLENGES = 2
"""Addresses that are asked for a proof at a time while there is one that takes what is sent. A challenge is a packet of
full size if three times what has come allows it (RFC 9000 section 8.2.1), and counts for congestion control."""
ACK_RANGES = 4
"""Ranges of an acknowledgement that goes with a challenge, at most: both fit into three times the smallest datagram."""
CHALLENGE_INTERVAL = 0.5
"""Least seconds between two challenges to one address, but for those that were lost."""


class PeerAddress(QuicNetworkPath):
    """A network path with the times that decide how long it is kept, in seconds."""

    def __init__(self, address: NetworkAddress, now: float) -> None:
        super().__init__(address)
        self.used_at = now
        """When it was found, proven, or left."""
        self.is_proven = False
        self.reached_at = float("-inf")
        """When it was proven although another one was in use by then."""
        self.challenged_at = float("-inf")


class RoamingConnection(QuicConnection):
    """See above."""

    _now = 0.0
    """Time of the call that is being made."""

    def receive_datagram(self, data: bytes, addr: NetworkAddress, now: float) -> None:
        """Take a datagram, which may be the first one from another address."""
        self._now = now
        if self._is_client:
            super().receive_datagram(data, addr, now)
            return
        if len(self._network_paths) > 1:
            self._forget_addresses(now)
        before = self._peer_addresses[:1]
        deadlines = {path.addr: path.validation_deadline for path in self._network_paths}
        super().receive_datagram(data, addr, now)
        paths = self._peer_addresses
        for path in paths:
            if path.is_validated and not path.is_proven:
                path.is_proven, path.used_at = True, now
                if before and before[0] is not path:
                    path.reached_at = now
        if not before or before[0] is paths[0]:
            return
        if before[0].is_validated:
            before[0].used_at = now
        active = paths[0]
        if not active.is_validated and now - active.challenged_at < CHALLENGE_INTERVAL:
            # Only the last few challenges are remembered: the reply to one that is under way must find its own.
            active.local_challenge_sent = True
            active.validation_deadline = deadlines.get(active.addr)

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, NetworkAddress]]:
        """Return what is to be sent, with its destinations."""
        self._now = now
        if not self._is_client and not self._network_paths[0].is_validated:
            self._hold_challenge(now)
            self._use_proven_address(now)
            self._acknowledge_with_challenge(now)
        return super().datagrams_to_send(now)

    @property
    def _peer_addresses(self) -> list[PeerAddress]:
        return cast("list[PeerAddress]", self._network_paths)  # at a server: see `_find_network_path`

    def _find_network_path(self, addr: NetworkAddress) -> QuicNetworkPath:
        path = super()._find_network_path(addr)
        return path if path in self._network_paths else PeerAddress(addr, self._now)

    def _add_network_path(self, network_path: QuicNetworkPath) -> None:
        """Add an address. The unproven ones that were found first stay: the replies to their challenges come first."""
        if len(self._network_paths) >= MAX_NETWORK_PATHS:
            unproven = [path for path in self._peer_addresses[1:] if not path.is_validated]
            if unproven:
                self._forget(max(unproven, key=_used_at))
        super()._add_network_path(network_path)

    def _write_path_challenge_frame(self, builder: QuicPacketBuilder, network_path: QuicNetworkPath) -> None:
        super()._write_path_challenge_frame(builder, network_path)
        if isinstance(network_path, PeerAddress):
            network_path.challenged_at = self._now

    def _forget_addresses(self, now: float) -> None:
        """Forget what has no claim any more to be sent to without a proof."""
        proven = 0
        for path in self._peer_addresses[1:]:
            proven += path.is_validated
            limit = RECENT if path.is_validated and proven <= MAX_PROVEN else PATIENCE
            if now - path.used_at >= limit:
                self._forget(path)

    def _forget(self, path: PeerAddress) -> None:
        self._network_paths.remove(path)
        if path.peer_cid is not None:
            self._retire_peer_cid(path.peer_cid)

    def _use_proven_address(self, now: float) -> None:
        """Send to an address that was proven a moment ago, once the newest one may get no full packet any more.

        Where a NAT gives each packet another port, or one of many, no address is the newest for a whole round trip.
        After a single rebinding it is, and what is sent to the old address would be lost.
        """
        active = self._network_paths[0]
        if active.local_challenge_sent and not active.can_send(self._max_datagram_size):
            reached = self._still_reached(now)
            if reached is not None:
                self._network_paths.remove(reached)
                self._network_paths.insert(0, reached)

    def _hold_challenge(self, now: float) -> None:
        """Send no challenge to the newest address while others are under way and one that is proven is in reach."""
        active = self._peer_addresses[0]
        if active.challenged_at == float("-inf"):
            recent = [path for path in self._peer_addresses if now - path.challenged_at < CHALLENGE_INTERVAL]
            under_way = sum(not path.is_validated for path in recent)
            active.local_challenge_sent = under_way >= MAX_CHALLENGES and self._still_reached(now) is not None

    def _acknowledge_with_challenge(self, now: float) -> None:
        """Send an acknowledgement that is due in a moment together with the challenge to the newest address.

        A client that is rebound as soon as it has replied would else never get one, until its window is full of what
        was sent to the server, and it can't reply any more. It must leave room for the challenge in the little that may
        be sent.
        """
        space = self._spaces[Epoch.ONE_RTT]
        if space.ack_at is None or self._network_paths[0].local_challenge_sent:
            return
        if len(space.ack_queue) <= ACK_RANGES:
            space.ack_at = min(space.ack_at, now)

    def _still_reached(self, now: float) -> PeerAddress | None:
        """Return the address beside the one in use that has proven itself last, if that was a moment ago."""
        newest = max(self._peer_addresses[1:], key=_reached_at, default=None)
        return newest if newest is not None and now - newest.reached_at < STILL_REACHED else None


def is_idle(connection: QuicConnection, path: QuicNetworkPath) -> bool:
    """Whether nothing can be sent to an address beside the one in use: no reply and no challenge."""
    if path.remote_challenges:
        return False
    if path.is_validated or path.local_challenge_sent:
        return True
    # It needs a connection ID of its own (RFC 9000 section 9.5).
    return path.peer_cid is None and not connection._peer_cid_available


def _used_at(path: PeerAddress) -> float:
    return path.used_at


def _reached_at(path: PeerAddress) -> float:
    return path.reached_at
