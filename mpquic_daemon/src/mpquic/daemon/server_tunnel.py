"""What a server keeps for each tunnel of a client while it is connected: queues, scheduler, windows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic.proto.control.groups import MAX_PATHS_PER_GROUP
from mpquic.proto.path.path import PathState
from mpquic.proto.path.traffic import Traffic
from mpquic.proto.tunnel.scheduler import FailoverScheduler
from mpquic.proto.tunnel.tunnel import RECEIVE_WINDOW, Counters, TunnelReceiver, TunnelSender

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpquic.daemon.processor_share import Work
    from mpquic.daemon.session import Session
    from mpquic.daemon.stripe_listener import ServerStripe
    from mpquic.quic.link import QuicLink


class ServerTunnel:
    """The way between the server's TUN and the paths of one tunnel. Lives as long as its group's session."""

    def __init__(self, traffic_class: int, permits: Callable[[bytes], bool]) -> None:
        self.counters = Counters()
        self._sessions: list[Session] = []
        self._traffic: dict[str, Traffic] = {}
        """By the name of the path, over all its connections."""
        self.scheduler = FailoverScheduler()
        self.sender = TunnelSender(self.scheduler, traffic_class=traffic_class, counters=self.counters)
        self.receiver = TunnelReceiver(permits=permits, counters=self.counters, window=RECEIVE_WINDOW)
        self.work: Work = self.push
        """What is done when packets have come from the TUN."""
        self.planes: list[ServerStripe] = []
        """Striped data planes of its paths."""

    @property
    def is_carrying(self) -> bool:
        """Whether any path isn't down."""
        return any(member.path.state is not PathState.DOWN for member in self.scheduler)

    def count(self, name: str, link: QuicLink) -> None:
        """Count what a connection sends and receives as that of the path `name`."""
        traffic = self._traffic.pop(name, None) or Traffic()
        link.count_in(traffic)
        self._traffic[name] = traffic
        if len(self._traffic) > 2 * MAX_PATHS_PER_GROUP:  # as the peer may give each connection another name
            del self._traffic[next(iter(self._traffic))]

    def next_allowance(self, now: float) -> float | None:
        """When a path's share of its WAN allows sending again; None when it is not for that that packets wait."""
        times = [session.path.next_allowance(now) for session in self._sessions]
        return min((time for time in times if time is not None), default=None)

    def add(self, session: Session, priority: int, weight: float) -> None:
        """Use a path for what goes to the client."""
        self._sessions.append(session)
        self.scheduler.add(session.path, priority=priority, weight=weight)

    def add_plane(self, plane: ServerStripe, priority: int, weight: float) -> None:
        """Use a striped data plane of a path, rather than its QUIC connection, while a pipe carries."""
        self.planes.append(plane)
        self.scheduler.add(plane.path, priority=priority - 1, weight=weight)

    def remove_plane(self, plane: ServerStripe) -> None:
        """Don't use it any more."""
        self.planes.remove(plane)
        self.scheduler.remove(plane.path)

    def push(self, now: float) -> bool:
        """Let striped data planes take what waits; False when none carries."""
        carried = False
        for plane in self.planes:
            carried |= plane.push(now)
        return carried

    def remove(self, session: Session) -> None:
        """Don't use it any more."""
        if session in self._sessions:
            self._sessions.remove(session)
        self.scheduler.remove(session.path)
