"""What a server knows of each client that may connect, whether it is there or not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mpquic import held
from mpquic.daemon import server_report
from mpquic.daemon.json_lines import RequestError
from mpquic.daemon.peer_file import PeerFile
from mpquic.daemon.peer_log import PeerLog, told_hold
from mpquic.daemon.period import ago
from mpquic.daemon.wall_timer import WallTimer
from mpquic.proto.control.handover import Claim
from mpquic.proto.path.path import PathState
from mpquic.table import SITE_PREFIX

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from mpquic.config import Peer, ServerConfig
    from mpquic.daemon.journal import Journal
    from mpquic.daemon.peer_log import Key, Record
    from mpquic.daemon.period import Period
    from mpquic.daemon.server_connection import ServerConnection
    from mpquic.proto.control.groups import GroupTable
    from mpquic.proto.control.messages import Held


class Clients:
    """Keeps `log` up to date, over a restart of the server too. `on_change` is called when a row changes."""

    def __init__(
        self,
        config: ServerConfig,
        loop: asyncio.AbstractEventLoop,
        period: Period,
        journal: Journal,
        table: GroupTable[ServerConnection],
        on_change: Callable[[], None],
    ) -> None:
        self._peers = config.peers
        self._loop = loop
        self._period = period
        self._journal = journal
        self._table = table
        self._on_change = on_change
        self._timer = WallTimer(loop, self._look)
        self._file = PeerFile(config.name, loop, journal, self._records)
        self.log = PeerLog(_keys(config.peers), (), now=period.now(), wall=time.time())

    def load(self) -> None:
        """Take over what the former process has left."""
        self.log = PeerLog(_keys(self._peers), self._file.read(), now=self._period.now(), wall=time.time())
        self._wait()

    def configure(self, peers: tuple[Peer, ...]) -> None:
        """Know these clients from now on."""
        self._peers = peers
        self.log.keep(_keys(peers), self._period.now())
        self._file.changed()

    def close(self) -> None:
        """Keep it for the next process."""
        self._timer.set(None)
        for peer in self._peers:
            key = peer.identity, peer.tunnel
            heard = self._heard_at(key)
            if heard is not None:
                self.log[key].heard = heard
        self._file.close()

    def registered(self, connection: ServerConnection) -> None:
        """A client has connected."""
        if self.log.registered(_key(connection), self._period.now()):
            self._changed()

    def note(self, connection: ServerConnection, now: float) -> None:
        """A connection of a client was lost, or is heard again; `now` is the loop's."""
        key, boot = _key(connection), self._period.now()
        group = self._table.get(*key)
        sessions = [member.connection.session for member in group.members.values()] if group is not None else []
        if any(session.path.state is not PathState.DOWN for session in sessions):
            changed = self.log.carries(key, boot)
        else:
            heard = boot - max(0.0, now - connection.session.liveness.heard_at)
            reason = None if sessions or connection.is_silent else _why_ended(connection)
            changed = self.log.lost(key, boot, heard=heard, reason=reason)
        if changed:
            self._changed()

    def told(self, connection: ServerConnection, message: Held, now: float) -> None:
        """A client says that it is put out of service: its own tunnel, and no other."""
        hold = told_hold(message, time.time())
        if self.log.held(_key(connection), hold, self._period.now()):
            identity, tunnel = _key(connection)
            self._journal.limited(
                f"held {identity} {tunnel}",
                now,
                "client.held",
                identity=identity,
                tunnel=tunnel,
                reason=held.words(hold),
            )
            self._file.changed()
            # Of a client that is up nothing else is shown: it may say as much as it likes.
            if self.log[_key(connection)].state != "up":
                self._wait()
                self._on_change()

    def refused(self, key: Key, reason: str) -> bool:
        """A client was refused; return whether the configuration names it with this tunnel."""
        return self.log.refused(key, f"refused at {ago(0.0)}: {reason}")

    def handover_claim(self, key: Key, boot_id: bytes) -> Claim:
        """Return what an operator's handover says of a registration."""
        peer = self.log.get(key)
        return peer.handover.judge(boot_id, self._period.now()) if peer is not None else Claim.NOTHING

    def has_place(self, key: Key, boot_id: bytes, address: str, *, by_operator: bool) -> None:
        """A registration was entered, of a client at an outer address."""
        peer = self.log.get(key)
        if peer is None:
            return
        if by_operator:
            self._journal.warning("client.handed_over", identity=key[0], tunnel=key[1], peer=address)
            peer.second_machine = None
        if peer.handover.registered(boot_id, takes_over=by_operator):
            self._file.changed()

    def second_machine_refused(self, key: Key, address: str) -> None:
        """A second machine at an outer address was refused."""
        if self.log.second_machine_refused(key, address, self._period.now()):
            self._on_change()

    def hand_over(self, who: str, tunnel: str | None, seconds: float, by: str) -> list[dict[str, object]]:
        """Let the next machine that registers as `who` (a site or an identity) take over; return a row for each tunnel.

        RequestError when the configuration names nobody like that, or none of them has ever registered.
        """
        keys = [key for key in _keys(self._peers) if who in (key[0], key[0].removeprefix(SITE_PREFIX))]
        keys = [key for key in keys if tunnel in (None, key[1])]
        if not keys:
            raise RequestError(f"there is no client {who}{'' if tunnel is None else f' with tunnel {tunnel}'} here")
        keys = [key for key in keys if self.log[key].handover.boot_id is not None]
        if not keys:
            raise RequestError(f"{who} has never been connected: there is nothing to hand over")
        rows: list[dict[str, object]] = []
        for key in keys:
            self.log[key].handover.open(self._period.now() + seconds)
            group = self._table.get(*key)
            peer = next((connection.peer for connection in group.connections), None) if group is not None else None
            self._journal.warning("handover.open", identity=key[0], tunnel=key[1], seconds=seconds, by=by, peer=peer)
            rows.append({"identity": key[0], "tunnel": key[1], "for_seconds": seconds, "peer": peer})
        self._on_change()
        return rows

    def rows(self) -> list[dict[str, object]]:
        """Return the rows `peers` of `mpquicctl status --json`, in the order of the configuration."""
        now, wall = self._period.now(), time.time()
        rows = []
        for rule in self._peers:
            key = rule.identity, rule.tunnel
            peer = self.log[key]
            peer.heard = self._heard_at(key) or peer.heard
            rows.append(server_report.peer(rule, peer, self._table.get(*key), now, wall))
        return rows

    def _heard_at(self, key: Key) -> float | None:
        """Return when a client that is connected was heard last."""
        group = self._table.get(*key)
        if group is None or not group.members:
            return None
        latest = max(member.connection.session.liveness.heard_at for member in group.members.values())
        return self._period.now() - max(0.0, self._loop.time() - latest)

    def _changed(self) -> None:
        self._file.changed()
        self._wait()
        self._on_change()

    def _wait(self) -> None:
        self._timer.set(self.log.next_end(time.time()))

    def _look(self) -> None:
        self._wait()
        self._on_change()

    def _records(self) -> list[Record]:
        return self.log.records(self._period.now(), time.time())


def _keys(peers: Iterable[Peer]) -> list[Key]:
    return [(peer.identity, peer.tunnel) for peer in peers]


def _key(connection: ServerConnection) -> Key:
    assert connection.admitted is not None
    return connection.admitted.identity.uri, connection.admitted.register.tunnel


def _why_ended(connection: ServerConnection) -> str:
    if connection.farewell is not None:
        return f"it said goodbye: {connection.farewell}" if connection.farewell else "it said goodbye"
    return connection.ending[1] if connection.ending is not None else "the client closed the connection"
