"""The control protocol of an emulator: one JSON object a line, each answered by one line.

Requests: {"op": "get"}, {"op": "counters"}, {"op": "set", "up": {key: value}, "down": {key: value}} (either may be left
out), {"op": "cut", "direction": "up|down|both"}, {"op": "heal", "direction": "up|down|both"} (both if it is left out).
Answers: {"ok": true, ...} or {"ok": false, "error": "a sentence"}. A wrong request changes nothing.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from mpqlab.emulator.direction import Direction
from mpqlab.emulator.model import DIRECTIONS, ConfigError, DirectionConfig, DirectionName

MAX_LINE = 65_536
"""Longest request in bytes."""


class Control:
    """Answers requests; pure but for what `overrun` reads from the kernel."""

    def __init__(
        self,
        name: str,
        directions: Mapping[DirectionName, Direction],
        overrun: Callable[[DirectionName], int],
    ) -> None:
        self._name = name
        self._directions = directions
        self._overrun = overrun

    def answer(self, line: bytes, now: float) -> bytes:
        """Do what a line asks for and return the line that answers it."""
        try:
            reply = {"ok": True, **self._do(_parse(line), now)}
        except ConfigError as error:
            reply = {"ok": False, "error": str(error)}
        return json.dumps(reply).encode() + b"\n"

    def _do(self, request: dict[str, Any], now: float) -> dict[str, object]:
        match request.get("op"):
            case "get":
                return self._configs()
            case "counters":
                return self._counters()
            case "set":
                self._change(_values(request), now)
                return self._configs()
            case "cut":
                self._change({name: {"blackhole": True} for name in _directions(request)}, now)
                return self._configs()
            case "heal":
                self._change({name: {"blackhole": False} for name in _directions(request)}, now)
                return self._configs()
            case other:
                raise ConfigError([f"Unknown op {other}: expected get, set, cut, heal or counters."])

    def _change(self, values: Mapping[DirectionName, dict[str, object]], now: float) -> None:
        # All or nothing: a value that is wrong for one direction must not leave the other one changed.
        changed: dict[DirectionName, DirectionConfig] = {
            name: self._directions[name].config.changed(values[name]) for name in values
        }
        for name, config in changed.items():
            self._directions[name].configure(config, now, reseed="seed" in values[name])

    def _configs(self) -> dict[str, object]:
        return {"name": self._name, **{name: self._directions[name].config.as_dict() for name in DIRECTIONS}}

    def _counters(self) -> dict[str, object]:
        return {
            "name": self._name,
            **{
                name: {
                    **self._directions[name].counters.as_dict(),
                    "pending": self._directions[name].pending(),
                    "overrun": self._overrun(name),
                }
                for name in DIRECTIONS
            },
        }


def _parse(line: bytes) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        request = None
    if not isinstance(request, dict):
        raise ConfigError(["The request is not a JSON object on one line."])
    return request


def _values(request: dict[str, Any]) -> dict[DirectionName, dict[str, object]]:
    values: dict[DirectionName, dict[str, object]] = {name: request[name] for name in DIRECTIONS if name in request}
    if not values or not all(isinstance(each, dict) for each in values.values()):
        raise ConfigError(["set needs up, down or both of them, each an object of key: value."])
    return values


def _directions(request: dict[str, Any]) -> tuple[DirectionName, ...]:
    wanted = request.get("direction", "both")
    if wanted == "both":
        return DIRECTIONS
    for name in DIRECTIONS:
        if wanted == name:
            return (name,)
    raise ConfigError([f"Unknown direction {wanted}: expected up, down or both."])
