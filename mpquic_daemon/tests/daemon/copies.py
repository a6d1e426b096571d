"""Registers with one certificate many times, as copies of a machine would, each by a boot id of its own.

`copies.py CONFIG COUNT AT_ONCE` prints how the attempts ended, as JSON: names of `Failure`, or `registered`.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections import Counter
from pathlib import Path

from mpquic.config import ClientConfig, load
from mpquic.daemon import credentials
from mpquic.daemon.client_connection import ClientConnection, Phase


def main(file: str, count: int, at_once: int) -> None:
    config = load(Path(file))
    assert isinstance(config, ClientConfig)
    identity = credentials.load_client(config.tls)
    outcomes: Counter[str] = Counter()
    running: list[ClientConnection] = []
    while outcomes.total() < count:
        now = time.monotonic()
        while len(running) < min(at_once, count - outcomes.total()):
            boot_id = os.urandom(16)
            running.append(ClientConnection(config, config.paths[0], identity, boot_id=boot_id, epoch=1, now=now))
        select.select([each.socket for each in running], [], [], 0.02)
        now = time.monotonic()
        for each in list(running):
            each.read(now)
            each.advance(now)
            each.flush(now)
            if each.ending is not None or each.phase is Phase.REGISTERED:
                outcomes[each.ending.failure.name if each.ending is not None else "registered"] += 1
                each.release()
                running.remove(each)
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
