"""Who gets the place of an identity and tunnel at a server: the machine that has it keeps it as long as it replies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from mpquic.daemon.session import CloseCode
from mpquic.proto.control.groups import RegistrationRefusedError
from mpquic.proto.control.handover import Claim
from mpquic.proto.control.messages import RefuseCode
from mpquic.proto.control.takeover import Outcome, Presence, Takeovers
from mpquic.proto.path.path import PathState

if TYPE_CHECKING:
    from mpquic.daemon.clients import Clients
    from mpquic.daemon.server_connection import ServerConnection
    from mpquic.proto.control.groups import Group, GroupTable, Joined, Registration
    from mpquic.proto.control.takeover import Key

RETRY_AFTER = 4.0
"""Seconds after which a machine that was refused for another one may try again."""
HANDED_OVER_RETRY = 30.0
"""The same for a machine from which an operator has taken the identity."""


@dataclass(frozen=True, slots=True)
class Place:
    """A registration may be entered. `replaces` and `by_operator` say how it gets its place."""

    replaces: bool = False
    by_operator: bool = False

    def ending(self, peer: str) -> tuple[CloseCode, str]:
        """Return what the connections that are replaced by that of the address `peer` are told."""
        if self.by_operator:
            return CloseCode.HANDED_OVER, f"an operator has handed the identity over to another machine at {peer}"
        if self.replaces:
            return CloseCode.REPLACED, f"another machine at {peer}, or a restarted client, has registered instead"
        return CloseCode.REPLACED, "replaced by a newer connection"


class Admission:
    """Decides about registrations of the clients that `table` holds. Times are those of the event loop."""

    def __init__(self, table: GroupTable[ServerConnection], clients: Clients) -> None:
        self._table = table
        self._clients = clients
        self._takeovers: Takeovers[ServerConnection] = Takeovers()
        self._last_peer: dict[Key, str] = {}
        """Where a client was that has left a moment ago."""

    @property
    def waiting(self) -> int:
        """Number of registrations that aren't decided yet."""
        return len(self._takeovers)

    @property
    def due(self) -> float:
        """When `poll` has something to do."""
        return self._takeovers.due

    def judge(self, registration: Registration, connection: ServerConnection, now: float) -> Place | None:
        """Return how a registration may be entered, None where it has to wait; RegistrationRefusedError."""
        key = registration.identity, registration.tunnel
        group = self._table.contested(registration, now)
        match self._clients.handover_claim(key, registration.boot_id):
            case Claim.TAKES_OVER:
                return Place(replaces=True, by_operator=True)
            case Claim.FORMER:
                peer = _address(self._table.get(*key)) or self._last_peer.get(key, "")
                where = f" at {peer}" if peer else ""
                reason = f"an operator has handed this identity over to another machine{where}"
                raise RegistrationRefusedError(RefuseCode.HANDED_OVER, reason, HANDED_OVER_RETRY, peer)
        if group is None:
            if self._takeovers.is_early(key, registration.boot_id, now):
                self._refuse(key, connection, self._last_peer.get(key, ""), "had this identity a moment ago")
            return Place()
        outcome = self._takeovers.claim(
            key, registration.boot_id, connection, now, is_foreign=registration.boot_id != group.boot_id
        )
        if outcome is Outcome.WAIT:
            return None
        if outcome is Outcome.REFUSE:
            self._refuse(key, connection, _address(group), "has this identity")
        return Place(replaces=True)

    def entered(
        self, registration: Registration, connection: ServerConnection, place: Place, joined: Joined[ServerConnection]
    ) -> None:
        """A registration was entered."""
        key = registration.identity, registration.tunnel
        self._takeovers.abandon(connection)
        self._takeovers.registered(key, registration.boot_id)
        if joined.new_session:
            self._takeovers.changed_hands(key)
        self._last_peer.pop(key, None)
        self._clients.has_place(key, registration.boot_id, connection.peer, by_operator=place.by_operator)

    def poll(self, now: float) -> list[ServerConnection]:
        """Probe the clients that have to show that they are there; return the connections that are to be judged."""
        if now < self._takeovers.due:
            return []
        probes, decided = self._takeovers.poll(self._look, now)
        for key in probes:
            group = self._table.get(*key)
            for connection in group.connections if group is not None else ():
                connection.ask(now)
        return decided

    def gone(self, group: Group[ServerConnection], connection: ServerConnection, now: float) -> None:
        """A registered connection has ended, of the group that it belonged to."""
        if not group.members:
            key = group.identity, group.tunnel
            self._last_peer[key] = connection.peer
            self._takeovers.left(key, now)

    def abandon(self, connection: ServerConnection) -> None:
        """A connection that may wait for its decision has ended."""
        self._takeovers.abandon(connection)

    def _refuse(self, key: Key, connection: ServerConnection, peer: str, why: str) -> NoReturn:
        self._clients.second_machine_refused(key, connection.peer)
        where = f" at {peer}" if peer else ""
        raise RegistrationRefusedError(RefuseCode.IN_USE, f"another machine{where} {why}", RETRY_AFTER, peer)

    def _look(self, key: Key) -> Presence | None:
        group = self._table.get(*key)
        if group is None or not group.members:
            return None
        connections = group.connections
        times = [connection.round_trips() for connection in connections]
        return Presence(
            heard={connection: connection.received for connection in connections},
            rtt=max(rtt for rtt, _ in times),
            lowest_rtt=min(lowest for _, lowest in times),
            down=all(connection.session.path.state is PathState.DOWN for connection in connections),
        )


def _address(group: Group[ServerConnection] | None) -> str:
    return next((connection.peer for connection in group.connections), "") if group is not None else ""
