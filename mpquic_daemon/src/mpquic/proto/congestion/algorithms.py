"""Congestion controllers by the names that `congestion_algorithm` may have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic.proto.congestion.bbr import Bbr
from mpquic.proto.congestion.cubic import Cubic
from mpquic.proto.congestion.newreno import NewReno

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpquic.proto.congestion.controller import Controller

AUTO = "auto"
"""What suits the data plane: bbr for stripe, cubic for QUIC."""
ALGORITHMS = ("bbr", "cubic", "reno")


def controller_class(algorithm: str, default: str) -> Callable[[int, float], Controller]:
    """Return what makes a controller of (packet size in bytes, now); `default` stands for `auto`.

    Raises:
        ValueError: no algorithm has this name.
    """
    name = default if algorithm == AUTO else algorithm
    if name == "bbr":
        return Bbr
    if name == "cubic":
        return Cubic
    if name == "reno":
        return NewReno
    raise ValueError(f"congestion_algorithm: {algorithm} is unknown; use {AUTO}, {', '.join(ALGORITHMS)}")
