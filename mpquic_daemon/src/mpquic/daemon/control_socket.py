"""The control socket of an instance: JSON lines (`mpquic.daemon.json_lines`), version 1.

Operations: `get` (status, paths, config, counters, version), `set` (policy of run time), `reload`, `reconnect` (a new
connection of a client, now), `handover` (at a server: an identity to another machine), and `watch`, whose answer is
followed by {"v": 1, "id": 7, "event": {...}} at each change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from mpquic.daemon.json_lines import JsonLineSocket, RequestError, caller

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

SUBJECTS = ("status", "paths", "config", "counters", "version")
MAX_NAME = 300
LONGEST_HANDOVER = 86400
"""Seconds for which a handover may stay open."""


class Instance(Protocol):
    """What the control socket needs of a client or a server."""

    def get(self, what: str) -> object:
        """Return one of SUBJECTS as plain data."""

    def set(self, key: str, value: object, owner: str, ttl: float | None) -> object:
        """Set run-time policy; RequestError when the key isn't policy or the value is wrong."""

    def reload(self) -> object:
        """Read the configuration again and tell what was applied."""

    def reconnect(self, *, silent: bool) -> object:
        """Begin a new connection; RequestError when this instance makes none."""

    def hand_over(self, who: str, tunnel: str | None, seconds: float, by: str) -> object:
        """Let another machine take the place of a client; RequestError when this instance has none of that name."""


class ControlSocket(JsonLineSocket):
    """Serves one instance's control socket."""

    def __init__(self, path: Path, instance: Instance) -> None:
        super().__init__(path)
        self._instance = instance

    def _do(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> object:
        match request.get("op"):
            case "get":
                what = request.get("what")
                if what not in SUBJECTS:
                    raise RequestError(f"what: expected one of {', '.join(SUBJECTS)}")
                return self._instance.get(what)
            case "watch":
                self._watchers[writer] = request.get("id")
                return self._instance.get("status")
            case "set":
                key, owner, ttl = request.get("key"), request.get("owner"), request.get("ttl_seconds")
                if not isinstance(key, str):
                    raise RequestError("key: expected the name of a key")
                if not isinstance(owner, str) or not 1 <= len(owner) <= 64:
                    raise RequestError("owner: expected a text of 1 to 64 characters that says who sets this")
                if ttl is not None and (type(ttl) not in (int, float) or not 1 <= ttl <= 7 * 86400):
                    raise RequestError("ttl_seconds: expected seconds from 1 to 604800")
                return self._instance.set(key, request.get("value"), owner, ttl)
            case "reload":
                return self._instance.reload()
            case "reconnect":
                silent = request.get("silent", False)
                if not isinstance(silent, bool):
                    raise RequestError("silent: expected true or false")
                return self._instance.reconnect(silent=silent)
            case "handover":
                return self._hand_over(request, writer)
        raise RequestError("op: expected one of get, watch, set, reload, reconnect, handover")

    def _hand_over(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> object:
        who, tunnel, seconds = request.get("who"), request.get("tunnel"), request.get("for_seconds", 0)
        if not isinstance(who, str) or not 1 <= len(who) <= MAX_NAME:
            raise RequestError("who: expected the name of a site, or an identity")
        if tunnel is not None and (not isinstance(tunnel, str) or not 1 <= len(tunnel) <= MAX_NAME):
            raise RequestError("tunnel: expected the name of a tunnel")
        if type(seconds) not in (int, float) or not 1 <= seconds <= LONGEST_HANDOVER:
            raise RequestError(f"for_seconds: expected seconds from 1 to {LONGEST_HANDOVER}")
        by = caller(writer.get_extra_info("socket"), request.get("user"))
        return self._instance.hand_over(who, tunnel, float(seconds), by)
