"""Locks that vanish with their holder and leave no file: an abstract unix socket is bound by one process at a time."""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import TYPE_CHECKING

from mpqlab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WAIT_SECONDS = 1200.0


@contextlib.contextmanager
def locked(name: str, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock `name` for a block; `on_wait` is called once when somebody else holds it.

    Raises:
        LabError: somebody else holds it for `WAIT_SECONDS`.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as holder:

        def take() -> bool:
            try:
                holder.bind(f"\0mpqlab/{name}")
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                return False
            return True

        if not take():
            on_wait()
            wait_for(take, WAIT_SECONDS, f"another command that holds the lock of {name} ends")
        yield
