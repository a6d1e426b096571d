"""The striped data plane of a client's path: opened when the server grants one, given up, and requested anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic.daemon import faults
from mpquic.proto.path.path import PathState
from mpquic.proto.stripe.renewal import StripeRenewal

if TYPE_CHECKING:
    from mpquic.config import PathConfig
    from mpquic.daemon.client_connection import ClientConnection
    from mpquic.daemon.client_shared import Shared
    from mpquic.daemon.stripe_plane import ClientStripe
    from mpquic.proto.control.messages import StripeGrant
    from mpquic.proto.path.path import Path

NO_STRIPE_INTERVAL = 3600.0
"""Seconds between two journal lines that no pipe carries."""


def is_striped(connection: ClientConnection) -> bool:
    """Tell whether pipes carry what belongs to a connection."""
    return connection.plane is not None and connection.plane.session.state is PathState.UP


class ClientPathStripe:
    """Acts for the connection that it is given, which is the path's current one."""

    def __init__(self, shared: Shared, settings: PathConfig, path: Path) -> None:
        self._shared = shared
        self._settings = settings
        self._path = path
        self.renewal = StripeRenewal()

    def open(self, connection: ClientConnection, grant: StripeGrant | None, now: float) -> None:
        """Prefer the striped data plane as soon as a pipe replies; until then, and without one, QUIC carries."""
        if self._settings.transport != "stripe":
            return
        self.renewal.granted(now)
        if grant is None:
            self._tell_none("the server grants none", now)
            return
        self.close(connection)
        try:
            plane = connection.open_plane(grant, self._shared.pump)
        except (OSError, ValueError) as error:
            self._tell_none(error, now)
            return
        plane.on_change = lambda: self._on_change(plane)
        plane.on_fault = lambda error: self._on_fault(connection, plane, error)
        self._path.preferred = plane.session
        self._shared.pump.attach(plane)

    def close(self, connection: ClientConnection) -> None:
        """Close the data plane of a connection, if it has one."""
        plane = connection.plane
        if plane is not None:
            self._shared.pump.detach(plane)
            if self._path.preferred is plane.session:
                self._path.preferred = None
            connection.close_plane()

    def renew(self, connection: ClientConnection, now: float) -> None:
        """Give up a striped session that is silent or has used up its keys, and request another when that may help."""
        if self._settings.transport != "stripe":
            return
        plane = connection.plane
        if plane is not None and plane.session.idle(now):
            self.close(connection)
            plane = None
        usable = plane is not None and not plane.session.exhausted
        control = {PathState.UP: True, PathState.DOWN: False}.get(connection.session.path.state)
        rtt = connection.session.liveness.rtt.minimum
        carries = usable and is_striped(connection)
        due = self.renewal.poll(now, control=control, carries=carries, usable=usable, rtt=rtt)
        if due and not connection.stripe_requests.is_open:
            if usable and self.renewal.unanswered:
                self._tell_none("no pipe gets a reply; QUIC carries", now)
            connection.stripe_requests.send(now)

    def _on_change(self, plane: ClientStripe) -> None:
        if not plane.closed and plane.session.state is PathState.UP:
            session = f"{plane.session.session:08x}"
            self._shared.journal.info("path.striped", path=self._path.name, session=session)
        self._shared.iterate()

    def _on_fault(self, connection: ClientConnection, plane: ClientStripe, error: Exception) -> None:
        """Another session is requested, in the pauses of `StripeRenewal`; QUIC carries meanwhile."""
        faults.tell(self._shared.journal, self._shared.loop.time(), "stripe.fault", error, path=self._path.name)
        if connection.plane is plane:
            self.close(connection)
            self._shared.iterate()

    def _tell_none(self, cause: object, now: float) -> None:
        name = self._path.name
        self._shared.journal.limited(
            f"stripe {name} {cause}", now, "path.no_stripe", NO_STRIPE_INTERVAL, path=name, error=cause
        )
