"""A TUN that can tell whether it is still the device that its name means."""

from __future__ import annotations

import socket

from mpquic.net.tun import TunDevice


class WatchedTun(TunDevice):
    """The kernel reports an attached TUN that was deleted as readable for ever, with nothing to read (tun_chr_poll)."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._index = socket.if_nametoindex(name)

    def is_alive(self) -> bool:
        """Whether the device exists and wasn't made anew under its name."""
        try:
            return socket.if_nametoindex(self.name) == self._index
        except OSError:
            return False
