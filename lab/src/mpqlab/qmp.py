"""Commands to a running qemu by its machine protocol, QMP: JSON lines on a socket."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

from mpqlab.errors import LabError

if TYPE_CHECKING:
    from pathlib import Path

_SECONDS = 10.0


def execute(path: Path, command: str, **arguments: object) -> Any:
    """Run one command of the qemu whose socket is `path`; return what it returns.

    Raises:
        LabError: qemu isn't there, or refuses.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_SECONDS)
            connection.connect(str(path))
            with connection.makefile("rwb") as stream:
                stream.readline()
                # A session begins with its greeting and this.
                answers = [_ask(stream, "qmp_capabilities", {}), _ask(stream, command, arguments)]
    except (OSError, ValueError) as error:
        raise LabError(f"qemu doesn't answer on {path}: {error}") from error
    for answer in answers:
        if "error" in answer:
            raise LabError(f"qemu refuses {command}: {answer['error'].get('desc')}")
    return answers[-1].get("return")


def _ask(stream: Any, command: str, arguments: dict[str, object]) -> dict[str, Any]:
    stream.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
    stream.flush()
    # Events come between a command and its answer.
    while line := stream.readline():
        answer: dict[str, Any] = json.loads(line)
        if "return" in answer or "error" in answer:
            return answer
    raise ValueError(f"it has closed the connection after {command}")
