"""Many idle clients in one process: `python -m mpqbench.swarm SPECIFICATION`.

Each is the daemon's own client with everything that it has, but for a TUN device: it connects, registers, keeps its
path alive, and comes back when it is lost. SPECIFICATION is a JSON file: a list of instances as in their files.
"registered N" is written to standard output once all N are up at the same time.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any, cast

import yaml
from mpquic import config
from mpquic.daemon import client
from mpquic.daemon.journal import Journal
from mpquic.net.kernel import Kernel

AT_ONCE = 24
"""Clients that connect at the same time: fewer than the server takes for an attack."""
READY = "registered"


class NoTun:
    """What a client asks of a TUN device, without one: nothing ever comes in, what goes out is dropped."""

    counters = None
    gone = False
    carrier = False

    uso = False

    def __init__(self, name: str, *, uso: bool) -> None:
        del uso
        self.name = name
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        """Return a descriptor that never becomes readable."""
        return self._descriptor

    def read_batch(self, limit: int) -> list[bytes]:
        """Return nothing."""
        del limit
        return []

    def write(self, buffers: object) -> None:
        """Drop what the peer sent."""

    def set_carrier(self, carrier: bool) -> None:
        """Have none."""

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)


KERNEL = Kernel(tun=cast("Any", NoTun))


async def _run(instances: list[config.ClientConfig]) -> None:
    stop, changed = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def end() -> None:
        stop.set()
        changed.set()

    loop.add_signal_handler(signal.SIGTERM, end)
    logger = logging.getLogger("swarm")
    logger.setLevel(logging.ERROR)
    journal = Journal(logger)
    clients: list[client.Client] = []

    async def at_most(limit: int) -> None:
        """Return when no more than `limit` clients are on their way, or all are to stop."""
        while not stop.is_set() and sum(map(_is_down, clients)) > limit:
            changed.clear()
            await changed.wait()

    for instance in instances:
        await at_most(AT_ONCE - 1)
        if stop.is_set():
            break
        each = client.Client(instance, journal, changed.set, lambda reason: print(reason, file=sys.stderr), KERNEL)
        each.start()
        clients.append(each)
    await at_most(0)
    # So many connections are a large heap, and none of it is garbage.
    gc.collect()
    gc.freeze()
    print(f"{READY} {len(clients)}", flush=True)
    await stop.wait()
    await asyncio.gather(*(each.stop() for each in clients))


def _is_down(each: client.Client) -> bool:
    return each.brief()["state"] != "up"  # unlike `status` that counts as no look, for which a path is kept lively


def _client_config(keys: object) -> config.ClientConfig:
    instance = config.parse(yaml.safe_dump(keys))
    if not isinstance(instance, config.ClientConfig):
        raise TypeError(f"{instance.name} is no client")
    return instance


def main(arguments: list[str]) -> None:
    """Run the clients of the file named by the only argument until SIGTERM."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    instances = [_client_config(keys) for keys in json.loads(Path(arguments[0]).read_text())]
    asyncio.run(_run(instances))


if __name__ == "__main__":
    main(sys.argv[1:])
