"""Run systems in alternation, so that what drifts on the machine hits all of them alike."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from mpqbench.cases import CASES
from mpqbench.errors import BenchError
from mpqbench.results import BENCHES, Result, Sample, summarise
from mpqbench.systems import SYSTEMS
from mpqbench.table import number
from mpqbench.topology import Topology

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mpqbench.systems.base import System


class Runner:
    """Measures; what fails is reported and left out of that run, and the others go on."""

    def __init__(self, cache: Path, seconds: float, report: Callable[[str], None]) -> None:
        self.cache = cache
        self.seconds = seconds
        self.report = report
        self.failures: list[str] = []

    def run(self, systems: Sequence[str], benches: Sequence[str], runs: int) -> list[Result]:
        """Measure each system `runs` times in each bench; the results come in the order of `BENCHES`."""
        ready = [system for system in map(self._installed, systems) if system is not None]
        samples: list[tuple[str, Sample]] = []
        for turn in range(1, runs + 1):
            for system in ready:
                self.report(f"run {turn} of {runs}: {system.name}")
                samples += [(system.name, sample) for sample in self._measure(system, benches)]
        return sorted(summarise(samples), key=lambda result: BENCHES.index(result.bench))

    def _installed(self, name: str) -> System | None:
        system = SYSTEMS[name]()
        try:
            system.install(self.cache)
        except BenchError as error:
            self._fail(f"{name}: {error}")
            return None
        return system

    def _measure(self, system: System, benches: Sequence[str]) -> list[Sample]:
        samples: list[Sample] = []
        with tempfile.TemporaryDirectory(prefix="mpqbench-") as directory:
            # The daemon under test is another user, and reads its files below this folder.
            Path(directory).chmod(0o755)
            with Topology(Path(directory)) as topology:
                try:
                    system.start(topology.a, topology.b)
                    for bench in benches:
                        if bench in system.benches:
                            try:
                                measured = CASES[bench](system, topology, self.seconds)
                            except BenchError as error:
                                self._fail(f"{system.name}, {bench}: {error}")
                            else:
                                samples += measured
                                self._tell(measured)
                except BenchError as error:
                    self._fail(f"{system.name}: {error}")
                finally:
                    system.stop()
        return samples

    def _tell(self, samples: Sequence[Sample]) -> None:
        for sample in samples:
            self.report(f"  {sample.bench} {sample.case} {sample.metric}: {number(sample.value)} {sample.unit}")

    def _fail(self, text: str) -> None:
        self.failures.append(text)
        self.report(f"FAILED {text}")
