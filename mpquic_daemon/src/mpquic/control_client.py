"""Asks a control socket, an instance's or linkd's; the other end is `mpquic.daemon.json_lines`."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

VERSION = 1
MAX_ANSWER = 8 * 1024 * 1024
RUNTIME_DIR_VARIABLE = "MPQUIC_RUNTIME_DIR"


class NotRunning(Exception):  # noqa: N818 - it is a state of the world, not a fault
    """No process serves the control socket."""


class ControlError(Exception):
    """The process answers, but with an error or not in our protocol; the text is for people."""


def runtime_dir() -> Path:
    """Return the directory of the control sockets: $MPQUIC_RUNTIME_DIR or /run/mpquic."""
    return Path(os.environ.get(RUNTIME_DIR_VARIABLE, "/run/mpquic"))


def socket_path(name: str) -> Path:
    """Return the control socket of the instance `name`."""
    return runtime_dir() / f"{name}.sock"


def call(name: str, request: dict[str, object], timeout: float = 2.0) -> Any:
    """Send one request to the instance `name` and return its result; see `call_socket`."""
    return call_socket(socket_path(name), request, timeout)


def call_socket(path: Path, request: dict[str, object], timeout: float = 2.0) -> Any:
    """Send one request to whoever serves the control socket `path`, and return its result.

    Raises NotRunning when nobody listens, PermissionError when this user may not use it, and ControlError when the
    answer is an error, doesn't come in `timeout` seconds, or can't be understood.
    """
    deadline = time.monotonic() + timeout
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(str(path))
            connection.sendall(json.dumps({"v": VERSION, "id": 1, **request}).encode() + b"\n")
            line = _read_line(connection, deadline)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
        raise NotRunning(path.stem) from error
    except TimeoutError as error:
        raise ControlError(f"no answer in {timeout:g} s; the process hangs or the machine is overloaded") from error
    except (ConnectionError, BrokenPipeError) as error:
        raise ControlError("the process went away while answering") from error
    try:
        answer = json.loads(line)
    except ValueError as error:
        raise ControlError("the answer is not JSON") from error
    if not isinstance(answer, dict) or answer.get("v") != VERSION:
        raise ControlError(f"the answer is not of version {VERSION} of the protocol; upgrade both")
    if answer.get("ok") is not True:
        raise ControlError(str(answer.get("error", "refused without a reason")))
    return answer.get("result")


def _read_line(connection: socket.socket, deadline: float) -> bytes:
    data = bytearray()
    while not data.endswith(b"\n"):
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        connection.settimeout(remaining)
        chunk = connection.recv(65536)
        if not chunk:
            raise ConnectionResetError
        data += chunk
        if len(data) > MAX_ANSWER:
            raise ControlError("the answer is too long")
    return bytes(data)
