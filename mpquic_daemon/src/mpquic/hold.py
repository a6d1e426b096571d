"""Tunnels that are out of service on purpose: who said so, why, and until when.

`mpquic-linkd` alone writes the holds of its host, one file for each instance; instances and `mpquicctl` read them. What
an instance is told by its peer comes in the same form (`from_plain`), so sizes are bounded here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from mpquic import files

HOLDS_DIR = Path("/var/lib/mpquic-linkd/holds")
DIRECTORY_VARIABLE = "MPQUIC_HOLDS_DIR"
UNFINISHED = ".new"
"""What a record's name ends with until it is whole."""

Origin = Literal["operator", "mask", "variables"]
"""A command of `mpquicctl`, `systemctl mask`, or `enabled: false` in the variables."""


class Hold(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One tunnel's. Times are seconds of the wall clock, since they outlive a boot."""

    by: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    reason: Annotated[str, msgspec.Meta(max_length=200)]
    since: float
    until: float | None = None
    origin: Origin = "operator"

    def is_over(self, now: float) -> bool:
        """Whether its time has come to an end."""
        return self.until is not None and self.until <= now

    def plain(self) -> dict[str, object]:
        """Return it as plain data, for JSON and for the peer."""
        return {"by": self.by, "reason": self.reason, "since": self.since, "until": self.until, "origin": self.origin}


def from_plain(data: object) -> Hold:
    """Return the hold that plain data describes; ValueError when they don't, or are longer than is allowed."""
    try:
        return msgspec.convert(data, Hold)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error


def directory() -> Path:
    """Return the folder of the holds: $MPQUIC_HOLDS_DIR or HOLDS_DIR."""
    return Path(os.environ.get(DIRECTORY_VARIABLE, HOLDS_DIR))


def read(name: str) -> Hold | None:
    """Return the hold of the instance `name`, None where there is none or it can't be read."""
    try:
        return msgspec.json.decode(files.read(directory() / f"{name}.json"), type=Hold)
    except (OSError, msgspec.MsgspecError):
        return None


def write(name: str, hold: Hold) -> None:
    """Keep the hold of the instance `name`, whole or not at all; OSError."""
    path = directory() / f"{name}.json"
    temporary = path.with_suffix(UNFINISHED)
    with temporary.open("wb") as file:
        file.write(msgspec.json.encode(hold))
        file.flush()
        os.fsync(file.fileno())
    # Everybody may read it, whatever the umask is.
    temporary.chmod(0o644)
    temporary.replace(path)
    _keep(path.parent)


def remove(name: str) -> None:
    """End the hold of the instance `name`; OSError."""
    path = directory() / f"{name}.json"
    path.unlink(missing_ok=True)
    _keep(path.parent)


def _keep(folder: Path) -> None:
    """Have the names in a folder outlive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
