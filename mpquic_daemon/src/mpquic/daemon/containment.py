"""Ends what belongs to one peer when a defect of this program shows in the work for it, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Containment:
    """Calling it does a piece of work. The first exception goes to `end`, and no more work is done then."""

    def __init__(self, end: Callable[[Exception], object]) -> None:
        self._end = end
        self.failed = False
        """Whether a fault has ended it."""

    def __call__(self, act: Callable[..., object], *arguments: object) -> None:
        """Do something for this peer."""
        if self.failed:
            return
        try:
            act(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is of this peer
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """End it for a fault that has shown elsewhere; the first counts."""
        if not self.failed:
            self.failed = True
            self._end(error)
