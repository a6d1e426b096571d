"""Another commit's daemon beside the present one, each measured by its own commit's bench."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from mpqbench.errors import BenchError
from mpqbench.pairing import Comparison, Key, Side, Values, compare, order, rows
from mpqbench.processes import run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

REPEATED = 15
"""Pairs of what looks worse, before it is believed."""
BUILD_SECONDS = 1800
RUN_SECONDS = 3600.0
END_SECONDS = 30.0
"""For a bench that was told to end, before it is killed."""
FIELDS: dict[str, type | tuple[type, ...]] = {
    "bench": str,
    "case": str,
    "system": str,
    "metric": str,
    "unit": str,
    "value": (int, float),
}


@dataclass(frozen=True, slots=True)
class Checkout:
    """A commit's files, and the interpreter that has its bench and what that needs."""

    folder: Path
    python: Path

    def command(self, system: str, bench: str, seconds: float, folder: Path) -> list[str]:
        """Return what measures one system in one bench once; the options are as old as the bench."""
        return [
            str(self.python), "-m", "mpqbench", "--systems", system, "--benches", bench, "--runs", "1",
            "--seconds", f"{seconds:g}", "--results", str(folder / "results.json"),
            "--document", str(folder / "document.md"),
        ]  # fmt: skip


def commit(repository: Path, revision: str) -> str:
    """Return the full name of a commit; BenchError when there is none of that name."""
    command = ["git", "-C", str(repository), "rev-parse", "--verify", "--quiet", "--end-of-options"]
    try:
        return run([*command, f"{revision}^{{commit}}"], timeout=30).strip()
    except BenchError as error:
        raise BenchError(f"{revision}: no such commit in {repository}") from error


def place(cache: Path, name: str) -> Path:
    """Return the folder of a commit's files below the cache."""
    return cache / "against" / name


def check_out(repository: Path, name: str, cache: Path) -> Checkout:
    """Unpack a commit below the cache and let it make its own environment from its own locks; what is there is reused.

    The files come from `git archive`, so that neither the checkout that is in use nor the repository's list of
    worktrees is touched.
    """
    folder = place(cache, name)
    if not (folder / ".unpacked").exists():
        folder.mkdir(parents=True, exist_ok=True)
        archive = ["git", "-C", str(repository), "archive", "--format=tar", name]
        packed = subprocess.run(archive, check=True, capture_output=True, timeout=120).stdout
        subprocess.run(["tar", "-x", "-C", str(folder)], check=True, input=packed, timeout=120)
        (folder / ".unpacked").touch()
    if not (folder / "scripts" / "bootstrap").exists():
        raise BenchError(f"{name[:12]} has no scripts/bootstrap: it is too old to be built here")
    run([str(folder / "scripts" / "bootstrap")], timeout=BUILD_SECONDS)
    return Checkout(folder, folder / ".venv" / "bin" / "python")


def values(text: str) -> Values:
    """Read the file of results of any commit's bench; fields that aren't known here are ignored.

    Raises:
        BenchError: it isn't a list of objects with what is needed here, or one for each processor.
    """
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise BenchError(f"results are not JSON: {error}") from error
    # By processor, of which a run has one; older commits write the list alone.
    lists = list(found.values()) if isinstance(found, dict) else [found]
    if not all(isinstance(rows, list) for rows in lists):
        raise BenchError("results are not lists")
    measured: Values = {}
    for row in itertools.chain.from_iterable(lists):
        if not isinstance(row, dict) or not all(isinstance(row.get(key), kind) for key, kind in FIELDS.items()):
            raise BenchError(f"a result lacks one of {', '.join(FIELDS)}: {row!r}")
        measured[Key(row["bench"], row["case"], row["system"], row["metric"], row["unit"])] = float(row["value"])
    return measured


Measure: TypeAlias = "Callable[[Side, str, str], Values]"
"""Measures a side's system in a bench."""


class Sides:
    """Measures either side, in a process of its own bench."""

    def __init__(self, checkouts: Mapping[Side, Checkout], seconds: float, report: Callable[[str], None]) -> None:
        self._checkouts = checkouts
        self._seconds = seconds
        self._report = report
        self._unknown: set[tuple[Side, str, str]] = set()

    def measure(self, side: Side, system: str, bench: str) -> Values:
        """Measure a system in a bench once; what this side can't measure is reported and missing in the result."""
        if (side, system, bench) in self._unknown:
            return {}
        checkout = self._checkouts[side]
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        with tempfile.TemporaryDirectory(prefix="mpqbench-against-") as directory:
            folder = Path(directory)
            status, errors = _run(checkout.command(system, bench, self._seconds, folder), checkout.folder, environment)
            if status:
                reason = (errors.strip().splitlines() or ["no reason given"])[-1]
                self._report(f"{side}, {system}, {bench}: status {status}: {reason}")
            if status == 2:  # argparse: this bench or system isn't known there
                self._unknown.add((side, system, bench))
            file = folder / "results.json"
            try:
                return values(file.read_text()) if file.exists() else {}
            except BenchError as error:
                self._report(f"{side}, {system}, {bench}: {error}")
                return {}


def _run(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    """Run a bench to its end; return its status and what it wrote to stderr.

    When this process is to end first, the bench is told so and ends what it has started: daemons of a bench that is
    killed would stay.
    """
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as bench:
        try:
            _, errors = bench.communicate(timeout=RUN_SECONDS)
        except BaseException:
            bench.terminate()
            try:
                bench.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                bench.kill()
            raise
        return bench.returncode, errors


def judge(
    measure: Measure, subjects: Sequence[tuple[str, str]], pairs: int, report: Callable[[str], None]
) -> tuple[list[Comparison], frozenset[Key]]:
    """Measure (system, bench) in pairs; return all comparisons, and what is worse.

    What looks worse is measured again, in `REPEATED` pairs of their own that alone decide.
    """
    comparisons: list[Comparison] = []
    believed: set[Key] = set()
    for system, bench in subjects:
        found = compare(_pairs(measure, system, bench, pairs, report))
        suspect = {each.key for each in found if each.worse}
        if suspect:
            report(f"{system}, {bench} looks worse: again, with {REPEATED} pairs")
            again = {each.key: each for each in compare(_pairs(measure, system, bench, REPEATED, report))}
            believed |= {key for key in suspect if key not in again or again[key].worse}
            found = [again.get(each.key, each) for each in found]
        found = found or [_nothing(system, bench)]
        comparisons += found
        # A run of all benches takes hours: what it has found so far isn't lost when it is ended.
        for row in rows(found, frozenset(believed), "other")[1:]:
            report("; ".join(row))
    return comparisons, frozenset(believed)


def _nothing(system: str, bench: str) -> Comparison:
    return Comparison(Key(bench, "-", system, "-", "share"), (), "present")


def _pairs(
    measure: Measure, system: str, bench: str, pairs: int, report: Callable[[str], None]
) -> list[dict[Side, Values]]:
    found = []
    for pair in range(pairs):
        report(f"pair {pair + 1} of {pairs}: {system}, {bench}")
        found.append({side: measure(side, system, bench) for side in order(pair)})
    return found


def present(repository: Path) -> Checkout:
    """Return the checkout that this bench belongs to."""
    return Checkout(repository, Path(sys.executable))


def status(comparisons: Sequence[Comparison], believed: frozenset[Key]) -> int:
    """Return the exit status: 1 when something is worse, or the present commit couldn't measure it."""
    return 1 if believed or not comparisons or any(each.missing == "present" for each in comparisons) else 0
