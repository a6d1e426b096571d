"""Progress on the terminal: what happens now, and how long it took, on standard error."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Progress:
    """Prints one line a step. `quiet` prints nothing."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._started = time.monotonic()

    def say(self, text: str) -> None:
        """Print a line with the seconds since the command started."""
        if not self._quiet:
            print(f"[{time.monotonic() - self._started:6.1f} s] {text}", file=sys.stderr, flush=True)

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Print `text` when the block starts, and how long it took when it has ended well."""
        self.say(f"{text} ...")
        started = time.monotonic()
        yield
        self.say(f"{text}: done in {time.monotonic() - started:.1f} s")
