"""One scenario's tests against machines that stay: made and provisioned when they aren't, left running afterwards."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

from testrun import steps
from testrun.runner import Step

if TYPE_CHECKING:
    from collections.abc import Mapping

REUSED = (
    "the lab is up and provisioned; --converge runs site.yml on it, which is needed after a change of what it deploys"
)
NOTE = "the lab is kept for the next call; `make lab-down` removes it"
RUNNING = ("running", "degraded", "up")


def missing(environment: Mapping[str, str]) -> str:
    """Return what the lab lacks before tests can run in it, by what its machines say; empty when nothing does."""
    status = _mpqlab("status", environment)
    if not status.get("up"):
        return "the lab isn't up"
    down = [node["name"] for node in status["nodes"] if node["state"] not in RUNNING]
    if down or status["stopped"]:
        return f"parts of the lab don't run: {', '.join(down + status['stopped'])}"
    if not any(tunnel["state"] == "up" for tunnel in _mpqlab("table", environment).get("tunnels", [])):
        return "no tunnel is up in the lab"
    return ""


def _mpqlab(command: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the JSON of a command of mpqlab; nothing when it prints none, as for a lab that isn't up."""
    done = subprocess.run(
        ["mpqlab", command, "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    return dict(json.loads(done.stdout)) if done.stdout.strip() else {}


def steps_of(scenario: steps.Scenario, expression: str | None, *, provision: bool) -> list[Step]:
    """Return the steps: converge if `provision` says so, then the tests as molecule's verifier calls them.

    Molecule's own state is dropped before it converges: it may say that machines are there which `make lab-down` has
    removed, and would then not make them. Making them again changes nothing where they run.
    """
    name, folder = f"scenario-{scenario.name}", steps.ROOT
    environment = steps.environment()
    results = steps.LOGS / f"{name}.xml"
    reset, converge = f"{name}-reset", f"{name}-converge"
    molecule = {**environment, "COLUMNS": "200"}
    tests = ["pytest", "-p", "no:cacheprovider", "-v", "--durations=15", f"--junitxml={results}", "tests"]
    if expression is not None:
        tests += ["-k", expression]
    chosen = []
    if provision:
        chosen += [
            Step(reset, "scenarios", ["molecule", "reset", "--scenario-name", scenario.name], folder, molecule),
            Step(
                converge,
                "scenarios",
                ["molecule", "converge", "--scenario-name", scenario.name],
                folder,
                molecule,
                needs=reset,
            ),
        ]
    needs = converge if provision else ""
    return [*chosen, Step(name, "scenarios", tests, scenario.folder, environment, results, needs=needs)]
