"""JSON lines over a Unix stream socket: what the control sockets of instances and of linkd have in common.

Request  {"v": 1, "id": 7, "op": "get", "what": "status"}
Answer   {"v": 1, "id": 7, "ok": true, "result": {...}} or {"v": 1, "id": 7, "ok": false, "error": "..."}

Whoever may open the socket (its group) may use it; what arrives is still bounded and checked, since a client
that hangs or has a fault must not harm the process that serves it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import pwd
import re
import socket
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

VERSION = 1
MAX_LINE = 16 * 1024
MAX_CLIENTS = 32
MAX_PENDING = 256 * 1024
READ_TIMEOUT = 60.0
MAX_USER = 64
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")
_UNMAPPED = 65534
"""/proc/sys/kernel/overflowuid, as every distribution has it."""
_UCRED = struct.Struct("=iII")  # struct ucred of include/linux/socket.h


class RequestError(Exception):
    """A request can't be done; the text is for the person who sent it."""


class JsonLineSocket:
    """Serves one socket. A subclass does what is asked, in `_do`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._watchers: dict[asyncio.StreamWriter, object] = {}

    async def open(self) -> None:
        """Listen; OSError when the directory is missing or another process answers on the path."""
        if self._path.exists():
            if await asyncio.to_thread(_answers, self._path):
                raise OSError(f"another process serves {self._path}")
            self._path.unlink()
        self._server = await asyncio.start_unix_server(self._serve, self._path, limit=MAX_LINE)
        self._path.chmod(0o660)

    async def close(self) -> None:
        """Stop listening, drop every client, remove the socket."""
        if self._server is None:
            return
        self._server.close()
        for writer in list(self._writers):
            writer.close()
        self._server = None
        self._path.unlink(missing_ok=True)

    @property
    def is_watched(self) -> bool:
        """Whether anybody wants to hear of changes."""
        return bool(self._watchers)

    def publish(self, event: dict[str, object]) -> None:
        """Send `event` to every watcher; one that doesn't read is dropped instead of growing our memory."""
        for writer, identifier in list(self._watchers.items()):
            if writer.transport.get_write_buffer_size() > MAX_PENDING:
                writer.transport.abort()
                self._watchers.pop(writer, None)
                continue
            writer.write(_line({"v": VERSION, "id": identifier, "event": event}))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._writers) >= MAX_CLIENTS:
            writer.write(_line(_failure(None, "too many clients of this control socket")))
            writer.close()
            return
        self._writers.add(writer)
        try:
            await self._converse(reader, writer)
        except (ConnectionError, TimeoutError):
            return  # The client has gone, or stays silent; it holds nothing here.
        finally:
            self._writers.discard(writer)
            self._watchers.pop(writer, None)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            timeout = None if writer in self._watchers else READ_TIMEOUT
            try:
                line = await asyncio.wait_for(reader.readline(), timeout)
            except ValueError:  # StreamReader's word for a line beyond its limit.
                writer.write(_line(_failure(None, f"a request is at most {MAX_LINE} bytes long")))
                await asyncio.wait_for(writer.drain(), READ_TIMEOUT)
                return
            if not line.endswith(b"\n"):
                return
            writer.write(_line(self._answer(line, writer)))
            await asyncio.wait_for(writer.drain(), READ_TIMEOUT)

    def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> dict[str, object]:
        identifier: object = None
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            return _failure(identifier, "not valid JSON")
        try:
            if not isinstance(request, dict):
                return _failure(None, "expected a JSON object")
            identifier = request.get("id")
            if identifier is not None and not isinstance(identifier, int | str):
                return _failure(None, "id: expected a number or a text")
            if type(request.get("v")) is not int or request["v"] != VERSION:
                return _failure(identifier, f"v: expected {VERSION}, the version of this protocol")
            result = self._do(request, writer)
        except RequestError as error:
            return _failure(identifier, str(error))
        return {"v": VERSION, "id": identifier, "ok": True, "result": result}

    def _do(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> object:
        """Return the result of a request; RequestError."""
        raise NotImplementedError


def caller(connection: socket.socket, user: object) -> str:
    """Return the name of the user at the other end: what the kernel says, or for root the `user` that it names.

    In a user namespace (PrivateUsers=) the kernel knows root and this process's own user alone; others name themselves.
    """
    _pid, uid, _gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    if uid == 0 and isinstance(user, str) and _USER.fullmatch(user):
        return user
    if uid == _UNMAPPED and isinstance(user, str) and _USER.fullmatch(user):
        return f"{user} (as it says)"
    try:
        return pwd.getpwuid(uid).pw_name[:MAX_USER]
    except KeyError:
        return f"uid {uid}"


def _failure(identifier: object, error: str) -> dict[str, object]:
    return {"v": VERSION, "id": identifier, "ok": False, "error": error}


def _line(message: dict[str, object]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def _answers(path: Path) -> bool:
    """Tell whether a process listens on `path`; a socket file that a killed process left behind doesn't count."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        with contextlib.suppress(OSError):
            probe.connect(str(path))
            return True
    return False
