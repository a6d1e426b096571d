"""Run systems in alternation, so that what drifts on the machine hits all of them alike."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mpqbench.cases import ALONE, STARTED
from mpqbench.errors import BenchError
from mpqbench.results import BENCHES, Result, Sample, summarise
from mpqbench.systems import SYSTEMS
from mpqbench.table import number
from mpqbench.topology import Topology

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mpqbench.cases import Alone, Case
    from mpqbench.systems.base import System


class Runner:
    """Measures; what fails is reported and left out of that run, and the others go on.

    The runs are as many as are asked for, but for cases that say that fewer are enough.
    """

    def __init__(self, cache: Path, seconds: float, report: Callable[[str], None]) -> None:
        self.cache = cache
        self.seconds = seconds
        self.report = report
        self.failures: list[str] = []

    def run(self, systems: Sequence[str], benches: Sequence[str], runs: int) -> list[Result]:
        """Measure each system in each bench; the results come in the order of `BENCHES`."""
        alone = {bench: (make(), most) for bench, (make, most) in ALONE.items() if bench in benches}
        ready = [system for system in map(self._installed, systems) if system is not None]
        samples: list[tuple[str, Sample]] = []
        for repetition in range(1, runs + 1):
            started = [case for case in STARTED if case.bench in benches and repetition <= case.runs]
            now_alone = {bench: measured for bench, (measured, most) in alone.items() if repetition <= most}
            for system in ready:
                self.report(f"run {repetition} of {runs}: {system.name}")
                found = self._measure_started(system, started) + self._measure_alone(system, now_alone, repetition)
                samples += [(system.name, sample) for sample in found]
        return sorted(summarise(samples), key=lambda result: BENCHES.index(result.bench))

    def _installed(self, name: str) -> System | None:
        system = SYSTEMS[name]()
        try:
            system.install(self.cache)
        except BenchError as error:
            self._fail(f"{name}: {error}")
            return None
        return system

    def _measure_started(self, system: System, cases: Sequence[Case]) -> list[Sample]:
        cases = [case for case in cases if case.bench in system.benches and case.only in (None, system.name)]
        samples: list[Sample] = []
        if not cases:
            return samples
        with _workplace() as directory, Topology(directory) as topology:
            try:
                system.start(topology.a, topology.b)
                for case in cases:
                    try:
                        measured = case.measure(system, topology, self.seconds)
                    except BenchError as error:
                        self._fail(f"{system.name}, {case.bench}: {error}")
                    else:
                        samples += measured
                        self._tell(measured)
            except BenchError as error:
                self._fail(f"{system.name}: {error}")
            finally:
                system.stop()
        return samples

    def _measure_alone(self, system: System, benches: Mapping[str, Alone], repetition: int) -> list[Sample]:
        samples: list[Sample] = []
        for bench, measured in benches.items():
            if bench in system.benches:
                try:
                    with _workplace() as directory:
                        found = measured.measure(system, directory, self.seconds, repetition)
                except BenchError as error:
                    self._fail(f"{system.name}, {bench}: {error}")
                else:
                    samples += found
                    self._tell(found)
        return samples

    def _tell(self, samples: Sequence[Sample]) -> None:
        for sample in samples:
            self.report(f"  {sample.bench} {sample.case} {sample.metric}: {number(sample.value)} {sample.unit}")

    def _fail(self, text: str) -> None:
        self.failures.append(text)
        self.report(f"FAILED {text}")


@contextmanager
def _workplace() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mpqbench-") as directory:
        # The daemon under test is another user, and reads its files below this folder.
        Path(directory).chmod(0o755)
        yield Path(directory)
