"""What a client remembers of its server's hold: from the message until it connects again, or until the hold ends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mpquic import held
from mpquic.daemon.peer_file import PeerFile
from mpquic.daemon.peer_log import LEAVES_WITHIN, Record, told_hold
from mpquic.daemon.wall_timer import WallTimer

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from mpquic.config import ClientConfig
    from mpquic.daemon.journal import Journal
    from mpquic.hold import Hold
    from mpquic.proto.control.messages import Held


class ServerHold:
    """Survives a restart of the client. `on_end` is called when its time has come to an end."""

    def __init__(
        self, config: ClientConfig, loop: asyncio.AbstractEventLoop, journal: Journal, on_end: Callable[[], None]
    ) -> None:
        self._identity, self._tunnel = config.tls.server_name, config.tunnel_name
        self._journal = journal
        self._on_end = on_end
        self._hold: Hold | None = None
        self._told_at = float("-inf")
        self._timer = WallTimer(loop, self._look)
        self._file = PeerFile(config.name, loop, journal, self._records)

    @property
    def in_force(self) -> Hold | None:
        """The hold, None when there is none or its time is over."""
        if self._hold is None or self._hold.is_over(time.time()):
            return None
        return self._hold

    def load(self) -> None:
        """Take over what the former process has left."""
        for record in self._file.read():
            if (record.identity, record.tunnel) == (self._identity, self._tunnel):
                self._hold = record.hold
        self._wait()

    def told(self, message: Held, now: float) -> None:
        """The server says that it is put out of service."""
        hold = told_hold(message, time.time())
        self._told_at = now
        if hold == self._hold:
            return
        self._hold = hold
        self._journal.limited("server held", now, "server.held", reason=held.words(hold))
        self._file.changed()
        self._wait()

    def lost(self, now: float) -> None:
        """The tunnel doesn't carry any more: drop the hold of a server that stayed up after it had told of it."""
        if now - self._told_at > LEAVES_WITHIN:
            self.end()

    def end(self) -> None:
        """The server accepts connections again."""
        if self._hold is not None:
            self._hold = None
            self._file.changed()
            self._wait()

    def close(self) -> None:
        """Keep it for the next process."""
        self._timer.set(None)
        self._file.close()

    def _wait(self) -> None:
        hold = self.in_force
        self._timer.set(hold.until if hold is not None else None)

    def _look(self) -> None:
        self._wait()
        if not self._timer.is_set:
            self._on_end()

    def _records(self) -> list[Record]:
        hold = self.in_force
        if hold is None:
            return []
        return [Record(identity=self._identity, tunnel=self._tunnel, state="down", since=hold.since, hold=hold)]
