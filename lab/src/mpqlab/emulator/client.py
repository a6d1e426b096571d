"""Talking to a running emulator through its control socket."""

import json
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mpqlab.emulator.model import DIRECTIONS, DirectionChoice, parse_pairs


class EmulatorError(Exception):
    """The emulator is not there, or refused; the text is a sentence."""


class EmulatorClient:
    """Requests to the emulator whose control socket is `path`. Each method is one exchange on a connection of its own.

    Raises:
        EmulatorError: from every method.
    """

    def __init__(self, path: Path, timeout: float = 5.0) -> None:
        self._path = path
        self._timeout = timeout

    def get(self) -> dict[str, Any]:
        """Return {"name": ..., "up": {key: value}, "down": {key: value}}."""
        return self._ask({"op": "get"})

    def set(self, values: Mapping[str, str | float | bool], direction: DirectionChoice = "both") -> dict[str, Any]:
        """Change keys of one or both directions at once; return what `get` returns. A wrong key changes nothing."""
        return self._ask({"op": "set", **{name: dict(values) for name in DIRECTIONS if direction in (name, "both")}})

    def set_pairs(self, pairs: Iterable[str]) -> dict[str, Any]:
        """Do what `set` does with key=value, up.key=value and down.key=value, all at once.

        Raises:
            ConfigError: something that isn't such a pair.
        """
        values = parse_pairs(pairs)
        return self._ask({"op": "set", "up": values["up"], "down": values["down"]})

    def cut(self, direction: DirectionChoice = "both") -> dict[str, Any]:
        """Let everything vanish silently, also what is on its way; return what `get` returns."""
        return self._ask({"op": "cut", "direction": direction})

    def heal(self, direction: DirectionChoice = "both") -> dict[str, Any]:
        """End a cut; return what `get` returns."""
        return self._ask({"op": "heal", "direction": direction})

    def counters(self) -> dict[str, Any]:
        """Return {"name": ..., "up": {...}, "down": {...}} with the fields of `counters.Counters`.

        Besides these, `pending` is the number of packets on their way, and `overrun` how many packets the kernel
        dropped since the emulator didn't read them in time: not 0 means that the machine was too slow for the test.
        """
        return self._ask({"op": "counters"})

    def wait_until_ready(self, timeout: float) -> None:
        """Return once the emulator forwards."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                self.get()
            except EmulatorError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return

    def _ask(self, request: dict[str, object]) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(self._timeout)
            try:
                connection.connect(str(self._path))
                connection.sendall(json.dumps(request).encode() + b"\n")
                with connection.makefile("rb") as answers:
                    line = answers.readline()
            except (FileNotFoundError, ConnectionRefusedError):
                raise EmulatorError(f"No emulator answers at {self._path}: is the lab up?") from None
            except OSError as error:
                raise EmulatorError(f"The emulator at {self._path} doesn't answer: {error}.") from error
        if not line.endswith(b"\n"):
            raise EmulatorError(f"The emulator at {self._path} ended before it answered.")
        answer: dict[str, Any] = json.loads(line)
        if not answer.pop("ok"):
            raise EmulatorError(answer["error"])
        return answer
