"""Messages to systemd, as in sd_notify(3): readiness, reload, status line, watchdog."""

import os
import socket
import time
from collections.abc import MutableMapping

PINGS_PER_INTERVAL = 10
"""How often a process tells the watchdog that it lives. Time goes on while a machine is frozen, and the manager may be
the first to look at it afterwards: a process survives a freeze of nine tenths of the interval."""


class Notifier:
    """Tells the service manager about this process; does nothing where none listens.

    Takes the socket's name and what concerns the watchdog out of `environment` (default: the process's own), so that no
    child process inherits them and speaks in this one's name. A send that fails is not an error: the manager's timeouts
    decide then.
    """

    def __init__(self, environment: MutableMapping[str, str] | None = None) -> None:
        variables = os.environ if environment is None else environment
        name = variables.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + name[1:] if name.startswith("@") else name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) if name else None
        if self._socket is not None:
            self._socket.setblocking(False)
        self.watchdog_interval = _watchdog_seconds(
            variables.pop("WATCHDOG_USEC", None), variables.pop("WATCHDOG_PID", None)
        )
        """Seconds in which the manager wants to hear of a living process; None without a watchdog."""

    @property
    def active(self) -> bool:
        """Whether a service manager listens."""
        return self._socket is not None

    def ready(self, status: str = "") -> bool:
        """The process is up, or done with reloading."""
        return self._send("READY=1", *([f"STATUS={status}"] if status else []))

    def reloading(self) -> bool:
        """A reload has begun; `ready` ends it."""
        return self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> bool:
        """The process is about to end."""
        return self._send("STOPPING=1")

    def status(self, text: str) -> bool:
        """Set the line that `systemctl status` shows."""
        return self._send(f"STATUS={text}")

    def watchdog(self) -> bool:
        """The main loop still turns."""
        return self._send("WATCHDOG=1")

    def close(self) -> None:
        """Close the socket; further messages go nowhere."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, *lines: str) -> bool:
        if self._socket is None:
            return False
        # A line break in a status would begin another assignment.
        message = "\n".join(line.replace("\n", " ") for line in lines)
        try:
            self._socket.sendto(message.encode(), self._address)
        except OSError:
            return False
        return True


def _watchdog_seconds(interval: str | None, process: str | None) -> float | None:
    if not interval or not interval.isdigit() or int(interval) == 0:
        return None
    if process and process != str(os.getpid()):
        return None  # meant for another process of the unit
    return int(interval) / 1e6
