"""The steps of this project, in their order. Nothing else defines what they run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from testrun.runner import Step

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]
LOGS = ROOT / ".cache/test"
# The daemon's unit tests run on these too, but for long simulations; it is deployed on Debian 12 and 13.
PYTHONS = ("3.12", "3.13")
# Scenarios that take too long for every test run.
SOAK = ("soak", "vlan")
# How many tests that mostly wait run at a time.
WAITING = 4


@dataclass(frozen=True, slots=True)
class Scenario:
    """A molecule scenario."""

    name: str
    folder: Path

    @property
    def is_soak(self) -> bool:
        """Whether it takes too long for every test run, and has to be asked for."""
        return self.name in SOAK

    @property
    def has_tests(self) -> bool:
        """Whether its verifier is pytest."""
        return (self.folder / "tests").is_dir()

    @property
    def has_lab(self) -> bool:
        """Whether it makes machines before it provisions anything."""
        return (self.folder / "create.yml").exists()


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a step: this one, the virtual environment first in PATH, the project's ansible.cfg."""
    path = f"{ROOT / '.venv/bin'}:{os.environ.get('PATH', os.defpath)}"
    return {**os.environ, "PATH": path, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), **changes}


def all_steps() -> list[Step]:
    """Return every step of `make test`."""
    return [*lint(), *unit(), *(scenario(each) for each in scenarios() if not each.is_soak)]


def lint() -> list[Step]:
    """Return the linters, a step each."""
    commands = {
        "ruff-format": ["ruff", "format", "--check", "."],
        "ruff-check": ["ruff", "check", "."],
        "mypy": ["mypy"],
        "yamllint": ["yamllint", "--strict", "."],
        "shellcheck": ["shellcheck", *shell_scripts()],
        "ansible-lint": ["ansible-lint", "--offline", "--strict", "--profile", "production"],
    }
    return [Step(name, "lint", command, ROOT, environment()) for name, command in commands.items()]


def shell_scripts(root: Path = ROOT) -> list[str]:
    """Return the project's shell scripts: files in scripts/, .ci/ and of roles whose first line names a shell."""
    candidates = [path for name in ("scripts", ".ci") for path in (root / name).iterdir() if path.is_file()]
    candidates += root.glob("roles/*/files/*.sh")
    first = re.compile(rb"#!.*\b(ba)?sh\b|# shellcheck shell=")
    return [str(path.relative_to(root)) for path in sorted(candidates) if first.match(path.read_bytes())]


def unit() -> list[Step]:
    """Return the unit and property tests on the virtual environment's Python, and the daemon's on the others.

    Tests in network namespaces measure time and rates: they run one after the other. Those that mostly wait run beside
    each other: WAITING at a time, more than there are processors. The others take what processors the scenarios leave,
    which wait much of their time.
    """
    parts = {
        "unit-root": ["-m", "root and not waits"],
        "unit-waits": ["-m", "root and waits", "-q", "-n", str(WAITING)],
        "unit-venv": ["-m", "not root", "-q", "-n", "auto"],
    }
    steps = []
    for name, options in parts.items():
        results = LOGS / f"{name}.xml"
        command = ["pytest", *options, f"--junitxml={results}"]
        steps.append(Step(name, "unit", command, ROOT, environment(), results, background=name == "unit-venv"))
    for version in PYTHONS:
        name = f"unit-{version}"
        results = LOGS / f"{name}.xml"
        python = find_python(version, os.environ)
        unavailable = "" if python else f"Python {version} is not installed here"
        command = ["scripts/test-python", version, str(python), f"--junitxml={results}"]
        steps.append(Step(name, "unit", command, ROOT, environment(), results, unavailable, background=True))
    return steps


def find_python(version: str, variables: Mapping[str, str]) -> Path | None:
    """Return an interpreter that runs: from PATH, else from pyenv's versions (its shims refuse inactive ones)."""
    folders = [Path(folder) for folder in variables.get("PATH", "").split(":") if folder]
    pyenv = Path(variables.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates = [folder / f"python{version}" for folder in folders]
    candidates += [folder / "bin/python" for folder in sorted(pyenv.glob(f"{version}.*"))]
    return next((path for path in candidates if os.access(path, os.X_OK) and _runs(path, version)), None)


def _runs(python: Path, version: str) -> bool:
    script = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return done.returncode == 0 and done.stdout.strip() == version


def scenarios(root: Path = ROOT) -> list[Scenario]:
    """Return molecule's scenarios, by name."""
    return [Scenario(path.parent.name, path.parent) for path in sorted(root.glob("molecule/*/molecule.yml"))]


def scenario(which: Scenario, *options: str) -> Step:
    """Return the step that runs a whole scenario, with further options of `molecule test`."""
    name = f"scenario-{which.name}"
    command = ["molecule", "test", "--scenario-name", which.name, *options]
    # Molecule gives messages a frame of this width and breaks longer ones.
    changes = {"COLUMNS": "200"}
    results = None
    if which.has_tests:
        results = LOGS / f"{name}.xml"
        given = os.environ.get("PYTEST_ADDOPTS", "")
        changes["PYTEST_ADDOPTS"] = f"{given} --junitxml={shlex.quote(str(results))}".strip()
    return Step(name, "scenarios", command, ROOT, environment(**changes), results)


def choose(steps: Sequence[Step], names: Iterable[str]) -> list[Step]:
    """Return the steps with these names or of these groups, in the order of all steps.

    Raises:
        ValueError: there is none of that name.
    """
    wanted = set(names)
    known = {name for step in steps for name in (step.name, step.group)}
    if unknown := sorted(wanted - known):
        raise ValueError(f"no step or group is called {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return [step for step in steps if step.name in wanted or step.group in wanted]
