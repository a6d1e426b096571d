"""Under which conditions was measured: kept beside the results, and told in the document."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

PACKAGES = ("openvpn", "fastd", "tinc", "iperf3")


@dataclass(frozen=True, slots=True)
class Conditions:
    """A machine, its software, and how long was measured."""

    date: str
    system: str
    kernel: str
    processor: str
    processors: int
    python: str
    packages: dict[str, str]
    runs: int
    seconds: float

    def save(self, file: Path) -> None:
        """Write as JSON."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, file: Path) -> Conditions:
        """Read what `save` has written."""
        return cls(**json.loads(file.read_text()))


def observe(runs: int, seconds: float) -> Conditions:
    """Look at the machine."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    query = ["dpkg-query", "-W", "-f=${Package} ${Version}\n", *PACKAGES]
    known = subprocess.run(query, check=False, capture_output=True, text=True, timeout=10).stdout
    return Conditions(
        date=datetime.now(UTC).date().isoformat(),
        system=platform.freedesktop_os_release().get("PRETTY_NAME", "unknown"),
        kernel=platform.release(),
        processor=model.group(1) if model else "unknown",
        processors=len(os.sched_getaffinity(0)),
        python=platform.python_version(),
        packages=dict(line.split() for line in known.splitlines() if len(line.split()) == 2),
        runs=runs,
        seconds=seconds,
    )
