"""aioquic as it comes: its asyncio transport, carrying bytes on one stream, without a TUN device."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from mpqbench import iperf
from mpqbench.authority import SERVER_NAME, Authority
from mpqbench.errors import BenchError
from mpqbench.processes import wait_for
from mpqbench.systems.base import System

if TYPE_CHECKING:
    from mpqbench.topology import Node

PORT = 45010
READY = "listening"


class AioquicStock(System):
    """The baseline of what the library does by itself."""

    name = "aioquic-stock"
    benches = frozenset({"tcp1"})

    def start(self, a: Node, b: Node) -> None:
        """Start the server at `b`."""
        del a
        self._authority = Authority(b.directory.parent / "aioquic-pki")
        certificate, key = map(str, self._authority.server)
        command = [sys.executable, "-m", "mpqbench.stock", "server", b.outer, str(PORT), certificate, key]
        process = b.spawn(self.name, *command)
        self.processes.append(process)

        def listens() -> bool:
            process.check()
            return process.log.read_text().endswith(f"{READY}\n")

        wait_for(listens, 10, f"{self.name}: server")

    def transfer(self, source: Node, target: Node, seconds: float, streams: int) -> iperf.Transfer:
        """Carry bytes on one stream of one connection; the client is at `a`, whatever the direction."""
        if streams != 1:
            raise BenchError(f"{self.name} carries one stream, not {streams}")
        upload = source.role == "a"
        client, server = (source, target) if upload else (target, source)
        answer = client.run(
            sys.executable, "-m", "mpqbench.stock", "client", server.outer, str(PORT), str(self._authority.ca),
            SERVER_NAME, "up" if upload else "down", str(seconds), timeout=seconds + 20,
        )  # fmt: skip
        result = json.loads(answer)
        return iperf.Transfer(int(result["bytes"]), float(result["seconds"]))
