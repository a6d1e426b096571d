"""Measured values: single samples, and their medians over several runs as they are kept in a file."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

BENCHES = ("tcp1", "tcp8", "small", "ping", "cpu", "lossy", "flowcap", "sessions", "fairness", "clean", "browsing")
KEYS = {"bench": str, "case": str, "system": str, "metric": str, "value": float, "unit": str, "runs": list}


class ResultError(ValueError):
    """A results file doesn't have the form that this module writes."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of one run."""

    bench: str
    case: str
    metric: str
    value: float
    unit: str


@dataclass(frozen=True, slots=True)
class Result:
    """The median of a value over all runs; `runs` holds the value of each."""

    bench: str
    case: str
    system: str
    metric: str
    value: float
    unit: str
    runs: tuple[float, ...]

    @property
    def spread(self) -> tuple[float, float]:
        """Lowest and highest of the runs."""
        return min(self.runs), max(self.runs)


def summarise(samples: Iterable[tuple[str, Sample]]) -> list[Result]:
    """Group (system, sample) of all runs by what was measured, in the order of first appearance."""
    groups: dict[tuple[str, str, str, str, str], list[float]] = {}
    for system, sample in samples:
        groups.setdefault((sample.bench, sample.case, system, sample.metric, sample.unit), []).append(sample.value)
    return [
        Result(bench, case, system, metric, statistics.median(values), unit, tuple(values))
        for (bench, case, system, metric, unit), values in groups.items()
    ]


def pairs(results: Iterable[Result]) -> list[tuple[str, str]]:
    """Return the (bench, system) of the results, each once."""
    return list(dict.fromkeys((result.bench, result.system) for result in results))


def merge(kept: Iterable[Result], new: Sequence[Result]) -> list[Result]:
    """Return `kept` with `new` in place of all rows of a bench and system that `new` has any of."""
    measured = set(pairs(new))
    return [result for result in kept if (result.bench, result.system) not in measured] + list(new)


def ordered(results: Iterable[Result], systems: Sequence[str]) -> list[Result]:
    """Sort by bench, then by system in the order of `systems`; rows of the same two keep their order."""
    return sorted(results, key=lambda result: (BENCHES.index(result.bench), systems.index(result.system)))


def percentile(values: Iterable[float], share: float) -> float:
    """Return the smallest of the values that at least `share` (0..1) of them do not exceed (nearest rank)."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values")
    # Rounded first: 0.99 * 100 must be 99, not the next float above it.
    return ordered[max(1, math.ceil(round(share * len(ordered), 6))) - 1]


def save(kept: Mapping[str, Iterable[Result]], file: Path) -> None:
    """Write the results of each processor model: JSON lists of objects with the keys of `KEYS`.

    Numbers have six significant digits.
    """
    parts = []
    for processor in sorted(kept):
        rows = []
        for result in kept[processor]:
            row = asdict(result)
            row["value"] = _rounded(result.value)
            row["runs"] = [_rounded(value) for value in result.runs]
            rows.append(json.dumps(row))
        parts.append(json.dumps(processor) + ": [\n" + ",\n".join(rows) + "\n]")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def load(file: Path) -> dict[str, list[Result]]:
    """Read what `save` has written; ResultError says what is wrong in which entry."""
    try:
        kept = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise ResultError(f"{file}: not JSON: {error}") from error
    if not isinstance(kept, dict):
        raise ResultError(f"{file}: expected an object with a list for each processor")
    found = {}
    for processor, rows in kept.items():
        if not isinstance(rows, list):
            raise ResultError(f"{file}.{processor}: expected a list")
        found[processor] = [_result(row, f"{file}.{processor}[{index}]") for index, row in enumerate(rows)]
    return found


def _result(row: Any, where: str) -> Result:
    if not isinstance(row, dict) or set(row) != set(KEYS):
        raise ResultError(f"{where}: expected an object with the keys {', '.join(KEYS)}")
    for key, kind in KEYS.items():
        value = row[key]
        if kind is float:
            _number(value, f"{where}.{key}")
        elif not isinstance(value, kind):
            raise ResultError(f"{where}.{key}: expected {kind.__name__}, not {value!r}")
    if row["bench"] not in BENCHES:
        raise ResultError(f"{where}.bench: expected one of {', '.join(BENCHES)}, not {row['bench']!r}")
    if not row["runs"]:
        raise ResultError(f"{where}.runs: expected at least one value")
    runs = tuple(_number(value, f"{where}.runs") for value in row["runs"])
    return Result(**{**row, "value": float(row["value"]), "runs": runs})


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ResultError(f"{where}: expected a number, not {value!r}")
    return float(value)
