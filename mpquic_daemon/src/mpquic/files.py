"""Reading the files that a configuration names, without waiting for what isn't a file."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def read(path: Path | str) -> bytes:
    """Return the content of a regular file; OSError, also for a FIFO, a device or a directory."""
    # Without O_NONBLOCK the opening of a FIFO waits for somebody who writes.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        return file.read()
