"""What a server keeps for each tunnel of a client while it is connected: queues, paths, windows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic.daemon.pump import Pump
from mpquic.proto.control.groups import MAX_PATHS_PER_GROUP
from mpquic.proto.path.path import Path, PathState
from mpquic.proto.path.traffic import Traffic
from mpquic.proto.tunnel.counters import Counters
from mpquic.proto.tunnel.receiver import RECEIVE_WINDOW, TunnelReceiver
from mpquic.proto.tunnel.scheduler import FailoverScheduler
from mpquic.proto.tunnel.sender import TunnelSender

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpquic.daemon.processor_share import Work
    from mpquic.daemon.session import Session
    from mpquic.daemon.stripe_listener import ServerStripe
    from mpquic.proto.control.groups import Registration
    from mpquic.proto.packet.coalescer import Write
    from mpquic.proto.path.memory import MemoryBudget
    from mpquic.quic.link import QuicLink


class ServerTunnel:
    """The way between the server's TUN and the paths of one tunnel. Lives as long as its group's session.

    `memory` is the budget of the client, which all its tunnels share.
    `write` takes what is for the TUN; `on_quic` is called when QUIC is to be flushed soon.
    """

    def __init__(
        self,
        traffic_class: int,
        permits: Callable[[bytes], bool],
        write: Callable[[Write], object],
        on_quic: Callable[[], object],
        memory: MemoryBudget,
    ) -> None:
        self.counters = Counters()
        self._traffic: dict[str, Traffic] = {}
        """By the name of the path, over all its connections."""
        self.scheduler = FailoverScheduler()
        self.sender = TunnelSender(self.scheduler, traffic_class=traffic_class, counters=self.counters)
        self.receiver = TunnelReceiver(permits=permits, counters=self.counters, window=RECEIVE_WINDOW, memory=memory)
        self.pump = Pump(self.scheduler, self.sender, self.receiver, write, on_quic)
        self.work: Work = self.push
        """What is done when packets have come from the TUN."""
        self._paths: dict[Session, Path] = {}

    @property
    def is_carrying(self) -> bool:
        """Whether any path isn't down."""
        return any(path.state is not PathState.DOWN for path in self._paths.values())

    def _count(self, name: str, link: QuicLink) -> None:
        """Count what a connection sends and receives as that of the path `name`."""
        traffic = self._traffic.pop(name, None) or Traffic()
        link.count_in(traffic)
        self._traffic[name] = traffic
        if len(self._traffic) > 2 * MAX_PATHS_PER_GROUP:  # as the peer may give each connection another name
            del self._traffic[next(iter(self._traffic))]

    def next_allowance(self, now: float) -> float | None:
        """When a path's share of its WAN allows sending again; None when it is not for that that packets wait."""
        times = [session.path.next_allowance(now) for session in self._paths]
        return min((time for time in times if time is not None), default=None)

    def add(self, session: Session, registration: Registration) -> None:
        """Begin a path: `use` and `add_plane` say by what it sends."""
        path = Path(registration.path, priority=registration.priority, weight=registration.weight)
        self._paths[session] = path
        self.scheduler.add(path)
        self._note_others()
        self._count(registration.path, session.link)

    def use(self, session: Session) -> bool:
        """Send by the connection of a path, too; False when that was so already, or the path has gone."""
        path = self._paths.get(session)
        if path is None or path.control is not None:
            return False
        path.control = session.path
        return True

    def add_plane(self, session: Session, plane: ServerStripe) -> None:
        """Use a striped data plane of a path, rather than its QUIC connection, while a pipe carries."""
        self._paths[session].preferred = plane.session
        self.pump.attach(plane)

    def remove_plane(self, session: Session, plane: ServerStripe) -> None:
        """Don't use it any more."""
        self.pump.detach(plane)
        path = self._paths.get(session)
        if path is not None and path.preferred is plane.session:
            path.preferred = None

    def push(self, now: float) -> bool:
        """Send what waits by pipes; False when QUIC is to be given it."""
        if not self.pump.is_striped:
            return False
        self.pump.send(now)
        return True

    def remove(self, session: Session) -> None:
        """Don't use a path any more."""
        path = self._paths.pop(session, None)
        if path is not None:
            self.scheduler.remove(path)
            self._note_others()

    def _note_others(self) -> None:
        """Have paths keep what they send where there are others that may have to send it again."""
        for session in self._paths:
            session.path.keeps_sent = len(self._paths) > 1
