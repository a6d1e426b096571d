"""Under which conditions was measured: kept beside the results, and told in the document."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mpqbench.interpreter import DEBIAN_PYTHON
from mpqbench.processes import run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PACKAGES = ("openvpn", "fastd", "tinc", "iperf3")

KINDS = ("AMD", "Intel")
"""Kinds of processors that are measured: figures of one say little of another."""

Pair = tuple[str, str]
"""A bench and a system."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """A machine, its software, and how long was measured."""

    date: str
    system: str
    kernel: str
    processor: str
    processors: int
    python: str
    """Of the daemons."""
    packages: dict[str, str]
    runs: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was measured under the same conditions."""

    conditions: Conditions
    pairs: tuple[Pair, ...]


def save(kept: Mapping[str, Iterable[Measurement]], file: Path) -> None:
    """Write as JSON: a list for each processor model."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lists = {processor: [asdict(each) for each in kept[processor]] for processor in sorted(kept)}
    file.write_text(json.dumps(lists, indent=2) + "\n")


def load(file: Path) -> dict[str, list[Measurement]]:
    """Read what `save` has written."""
    return {
        processor: [
            Measurement(Conditions(**row["conditions"]), tuple((bench, system) for bench, system in row["pairs"]))
            for row in rows
        ]
        for processor, rows in json.loads(file.read_text()).items()
    }


def kind(processor: str) -> str:
    """Return the kind that a processor model belongs to: one of `KINDS`, or the model itself."""
    return next((kind for kind in KINDS if kind.lower() in processor.lower()), processor)


def unmeasured(processors: Iterable[str]) -> list[str]:
    """Return the kinds of which none of the models was measured."""
    measured = {kind(processor) for processor in processors}
    return [each for each in KINDS if each not in measured]


def merge(kept: Sequence[Measurement], new: Measurement) -> list[Measurement]:
    """Return `kept` with `new` in place of what it measured again; what has nothing left is gone."""
    merged: list[Measurement] = []
    for each in kept:
        pairs = tuple(pair for pair in each.pairs if pair not in new.pairs)
        if each.conditions == new.conditions:
            new = replace(new, pairs=pairs + new.pairs)
        elif pairs:
            merged.append(replace(each, pairs=pairs))
    return [*merged, new]


def observe(runs: int, seconds: float) -> Conditions:
    """Look at the machine."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    query = ["dpkg-query", "-W", "-f=${Package} ${Version}\n", *PACKAGES]
    version = [DEBIAN_PYTHON, "-c", "import platform; print(platform.python_version())"]
    known = subprocess.run(query, check=False, capture_output=True, text=True, timeout=10).stdout
    return Conditions(
        date=datetime.now(UTC).date().isoformat(),
        system=platform.freedesktop_os_release().get("PRETTY_NAME", "unknown"),
        kernel=platform.release(),
        processor=model.group(1) if model else "unknown",
        processors=len(os.sched_getaffinity(0)),
        python=run(version, timeout=30).strip(),
        packages=dict(line.split() for line in known.splitlines() if len(line.split()) == 2),
        runs=runs,
        seconds=seconds,
    )
