"""Steps, and running them one after the other, some beside those that follow: a failed one doesn't stop the next."""

from __future__ import annotations

import shlex
import signal
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from testrun import processes, report
from testrun.results import broken, conclude, skipped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from testrun.processes import Interruption
    from testrun.results import Result


@dataclass(frozen=True, slots=True)
class Step:
    """One command of the test run.

    Attributes:
        name: what the table and the log file are called.
        group: the name by which several steps are chosen together.
        command: what is run.
        folder: where it is run.
        environment: the whole environment of the command.
        junit: the file to which it writes its tests' results; None for a command that only passes or fails.
        unavailable: why it can't be run here; empty when it can.
        needs: name of the step without whose success it isn't run.
        background: whether those that follow needn't wait for it. Such steps run one after the other as well.
    """

    name: str
    group: str
    command: Sequence[str]
    folder: Path
    environment: Mapping[str, str]
    junit: Path | None = None
    unavailable: str = ""
    needs: str = ""
    background: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A step that is over, in the table."""

    name: str
    result: Result
    seconds: float = 0.0
    log: Path | None = None


@dataclass(slots=True)
class Runner:
    """Runs steps. Their logs go to the folder `logs`; one that is interrupted is ended by the signals of `ending`."""

    logs: Path
    interruption: Interruption
    ending: Sequence[tuple[signal.Signals, float]] = processes.ENDING
    rows: list[Row] = field(default_factory=list)

    def run(self, steps: Sequence[Step]) -> int:
        """Exit status after all steps: 0, 1 when one failed, 128 and its number after a signal."""
        self.logs.mkdir(parents=True, exist_ok=True)
        rows: dict[str, Row] = {}
        with self.interruption.another() as interruption, ThreadPoolExecutor(1) as thread:
            beside = _run_beside(steps)
            waiting: list[Future[Row]] = []
            try:
                for step in steps:
                    if step in beside:
                        waiting.append(thread.submit(self._row, step, interruption, rows))
                    else:
                        rows[step.name] = self._row(step, self.interruption, rows)
            except BaseException:
                interruption.note(signal.SIGTERM)
                raise
            rows |= {row.name: row for row in (each.result() for each in waiting)}
        self.rows += [rows[step.name] for step in steps]
        if self.interruption.received is not None:
            return 128 + self.interruption.received
        return int(any(row.result.failed for row in self.rows))

    def _row(self, step: Step, interruption: Interruption, rows: Mapping[str, Row]) -> Row:
        background = interruption is not self.interruption
        if interruption.received is not None:
            return Row(step.name, skipped("interrupted before it"))
        if step.unavailable:
            report.say(f"== {step.name}: skipped, {step.unavailable}")
            return Row(step.name, skipped(step.unavailable))
        if step.needs and not (step.needs in rows and rows[step.needs].result.passed):
            return Row(step.name, skipped(f"{step.needs} did not pass"))
        report.say(f"== {step.name}{' (in the background)' if background else ''}: {shlex.join(step.command)}")
        log = self.logs / f"{step.name}.log"
        if step.junit is not None:
            # The results of an earlier run are not this one's.
            step.junit.unlink(missing_ok=True)
        started = time.monotonic()
        try:
            status = processes.run(
                step.command,
                log,
                interruption,
                folder=step.folder,
                environment=step.environment,
                ending=self.ending,
                background=background,
            )
        except OSError as error:
            log.write_text(f"{step.command[0]} can't be started: {error}\n")
            return Row(step.name, broken("it can't be started"), time.monotonic() - started, log)
        result = conclude(status, step.junit)
        if interruption.received is not None:
            # pytest's results then contain the test that was cut short, as if it had passed.
            result = broken("interrupted")
        seconds = time.monotonic() - started
        if background:
            report.say(f"== {step.name} {'failed' if result.failed else 'passed'} after {seconds:.0f} s")
        return Row(step.name, result, seconds, log)


def _run_beside(steps: Sequence[Step]) -> list[Step]:
    """Return the steps that run beside others: not the last ones, which have none that follow."""
    last = max((number for number, step in enumerate(steps) if not step.background), default=0)
    return [step for step in steps[:last] if step.background]
