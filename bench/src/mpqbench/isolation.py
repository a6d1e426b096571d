"""A mount namespace of the bench's own: its network namespaces have names that nobody else sees.

So several benches run at the same time on one machine, though they use the same names, and nothing that `ip netns`
has mounted outlives a bench that was killed.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from mpqbench.errors import BenchError
from mpqbench.processes import run

NETNS = Path("/run/netns")
CLONE_NEWNS = 0x00020000
"""unshare(2), <linux/sched.h>; Python has it from 3.12 on."""


def isolate() -> None:
    """Give this process, and all that it starts, a mount namespace with an empty /run/netns.

    Raises:
        BenchError: the kernel refuses that.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        raise BenchError(f"no mount namespace of its own: {os.strerror(ctypes.get_errno())}")
    # Else what is mounted here would appear in the machine's own mount namespace, too.
    run(["mount", "--make-rprivate", "/"])
    NETNS.mkdir(exist_ok=True)
    run(["mount", "-t", "tmpfs", "-o", "mode=755", "mpqbench", str(NETNS)])
