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

RECENT = 30.0
"""Seconds after the client has left an address in which it may return there without proof (RFC 9000 section 9.3)."""
PATIENCE = 3.0
"""Seconds in which an address that isn't used any more may still prove itself."""
MAX_PROVEN = 3
"""Proven addresses that are kept beside the one in use; with unproven ones there are MAX_NETWORK_PATHS at most."""
STILL_REACHED = 1.0
"""Seconds after an address has proven itself in which it takes what may not be sent to a newer, unproven one."""
CHALLENGE_INTERVAL = 0.5
"""Least seconds between two challenges to one address, but for those that were lost."""


class PeerAddress(QuicNetworkPath):
    """A network path with the times that decide how long it is kept, in seconds."""

    def __init__(self, address: NetworkAddress, now: float) -> None:
        super().__init__(address)
        self.used_at = now
        """When it was found, proven, or left."""
        self.proven_at: float | None = None
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
            if path.is_validated and path.proven_at is None:
                path.proven_at = path.used_at = now
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
        if not self._is_client:
            self._use_proven_address(now)
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
        After a single rebinding it is, and what is sent to the old address would be lost: hence `STILL_REACHED`.
        """
        active = self._network_paths[0]
        if active.is_validated or not active.local_challenge_sent or active.can_send(self._max_datagram_size):
            return
        recent = [path for path in self._peer_addresses[1:] if path.proven_at is not None]
        recent = [path for path in recent if now - _proven_at(path) < STILL_REACHED]
        if recent:
            newest = max(recent, key=_proven_at)
            self._network_paths.remove(newest)
            self._network_paths.insert(0, newest)


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


def _proven_at(path: PeerAddress) -> float:
    return path.proven_at if path.proven_at is not None else float("-inf")
