"""Two namespaces joined by the project's link emulator: a TUN device at each end, a process between them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from mpqlab.emulator.client import EmulatorClient, EmulatorError

from mpqbench.errors import BenchError
from mpqbench.processes import Process
from mpqbench.topology import DEVICE, Topology

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

START = 10.0


class EmulatedTopology(Topology):
    """`values` are the emulator's keys for both directions; `up` is the direction from `a` to `b`."""

    def __init__(self, directory: Path, values: Mapping[str, float]) -> None:
        super().__init__(directory)
        self._directory = directory
        self._values = values
        self._process: Process | None = None
        self.link = EmulatorClient(directory / "link.sock")

    def connect(self) -> None:
        """Start the emulator, which makes both devices."""
        command = [
            sys.executable, "-m", "mpqlab.emulator", "--name", "bench", "--control", str(self._directory / "link.sock"),
            "--up", f"{self.a.namespace}:{DEVICE}", "--down", f"{self.b.namespace}:{DEVICE}",
            *(f"{key}={value:g}" for key, value in self._values.items()),
        ]  # fmt: skip
        self._process = Process("link emulator", command, self._directory / "link.log", None)
        try:
            self.link.wait_until_ready(START)
        except EmulatorError as error:
            self._process.check()
            raise BenchError(str(error)) from error
        for node, other in ((self.a, self.b), (self.b, self.a)):
            node.join(other.outer)

    def set_forward(self, values: Mapping[str, float]) -> None:
        """Change keys of the direction from `a` to `b`."""
        self.link.set(values, "up")

    def delivered(self) -> int:
        """Return the bytes of IP packets that have left the link towards `b` so far."""
        return int(self.link.counters()["up"]["out_bytes"])

    def remove(self) -> None:
        """Stop the emulator, then remove the namespaces."""
        if self._process is not None:
            self._process.stop()
            self._process = None
        super().remove()
