"""The control socket of linkd: JSON lines (`mpquic.daemon.json_lines`), version 1.

Operations: `get` (instances), `hold` with `name`, `reason` and optionally `for_seconds`, and `release` with `name`.
Who asks is what the kernel says; root may say on whose behalf it does, in `user`, as sudo knows it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from mpquic.daemon.json_lines import JsonLineSocket, RequestError, caller

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

MAX_SECONDS = 10 * 365 * 86400.0
MAX_REASON = 200


class Operations(Protocol):
    """What the control socket needs of linkd; each raises RequestError."""

    def instances(self) -> object:
        """Return what linkd does with each instance."""

    def hold(self, name: str, by: str, reason: str, seconds: float | None) -> object:
        """Take an instance out of service, for so many seconds or until it is released."""

    def release(self, name: str, by: str) -> object:
        """End the hold of an instance."""


class LinkdSocket(JsonLineSocket):
    """Serves the control socket of linkd."""

    def __init__(self, path: Path, operations: Operations) -> None:
        super().__init__(path)
        self._operations = operations

    def _do(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> object:
        operation = request.get("op")
        if operation == "get":
            if request.get("what") != "instances":
                raise RequestError("what: expected instances")
            return self._operations.instances()
        if operation not in ("hold", "release"):
            raise RequestError("op: expected one of get, hold, release")
        name = request.get("name")
        if not isinstance(name, str):
            raise RequestError("name: expected the name of an instance")
        by = caller(writer.get_extra_info("socket"), request.get("user"))
        if operation == "release":
            return self._operations.release(name, by)
        return self._operations.hold(name, by, _reason(request.get("reason")), _seconds(request.get("for_seconds")))


def _reason(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_REASON or not value.isprintable():
        raise RequestError(f"reason: expected one line of 1 to {MAX_REASON} characters that says why")
    return value.strip()


def _seconds(value: object) -> float | None:
    if value is None:
        return None
    if type(value) not in (int, float) or not 1 <= float(str(value)) <= MAX_SECONDS:
        raise RequestError(f"for_seconds: expected seconds from 1 to {MAX_SECONDS:.0f}")
    return float(str(value))
