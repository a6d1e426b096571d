"""The commands `scripts/run-tests` and `scripts/scenarios`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from testrun import kept, report, steps
from testrun.processes import Interruption
from testrun.runner import Runner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from testrun.runner import Step


def run_tests(arguments: Sequence[str] | None = None) -> int:
    """Run steps; return the exit status: 0, 1 when one failed, 2 for wrong arguments, 128 and a signal's number."""
    parser = argparse.ArgumentParser(prog="scripts/run-tests", description="Run the steps of `make test`.")
    parser.add_argument("names", nargs="*", metavar="STEP", help="steps or groups (default: all)")
    parser.add_argument("--list", action="store_true", help="print the steps and their groups, run none")
    options = parser.parse_args(arguments)
    chosen = known = steps.all_steps()
    try:
        if options.names:
            chosen = steps.choose(known, options.names)
    except ValueError as error:
        parser.error(str(error))
    if options.list:
        for step in chosen:
            report.say(f"{step.name:18} {step.group}")
        return 0
    return _run(chosen)


def run_scenarios(arguments: Sequence[str] | None = None) -> int:
    """Run all scenarios, or one without destroying its machines; return the exit status as `run_tests` does."""
    known = steps.scenarios()
    try:
        options = parse_scenarios(sys.argv[1:] if arguments is None else arguments, known)
    except ValueError as error:
        print(f"scripts/scenarios: {error}", file=sys.stderr)
        return 2
    if options.only is None:
        return _run([steps.scenario(scenario) for scenario in known if not scenario.is_soak])
    scenario = next(scenario for scenario in known if scenario.name == options.only)
    if not scenario.has_tests:
        return _run([steps.scenario(scenario, "--destroy=never")])
    missing = ""
    if scenario.has_lab:
        try:
            missing = "--converge was given" if options.converge else kept.missing(steps.environment())
        except OSError as error:
            print(f"scripts/scenarios: mpqlab can't be started, run `make bootstrap`: {error}", file=sys.stderr)
            return 1
        report.say(f"site.yml is run first: {missing}" if missing else kept.REUSED)
    chosen = kept.steps_of(scenario, options.expression, provision=options.converge or bool(missing))
    return _run(chosen, kept.NOTE if scenario.has_lab else "")


def parse_scenarios(arguments: Sequence[str], known: Sequence[steps.Scenario]) -> argparse.Namespace:
    """Read the command line of `scripts/scenarios`.

    Raises:
        ValueError: the arguments don't fit the scenarios.
    """
    parser = argparse.ArgumentParser(prog="scripts/scenarios", description="Run all molecule scenarios, or one.")
    parser.add_argument("--only", metavar="NAME", help="this scenario; its machines are kept for the next call")
    parser.add_argument("-k", dest="expression", metavar="EXPRESSION", help="only tests that match, as pytest reads it")
    parser.add_argument("--converge", action="store_true", help="run site.yml even if the machines are provisioned")
    options = parser.parse_args(arguments)
    if options.only is None:
        if options.expression is not None or options.converge:
            raise ValueError("-k and --converge go with --only NAME")
        return options
    scenario = next((scenario for scenario in known if scenario.name == options.only), None)
    if scenario is None:
        names = ", ".join(scenario.name for scenario in known)
        raise ValueError(f"there is no scenario {options.only!r}; there are {names}")
    if options.expression is not None and not scenario.has_tests:
        raise ValueError(f"-k chooses among pytest's tests, and {scenario.name} has none: it consists of playbooks")
    return options


def _run(chosen: Sequence[Step], note: str = "") -> int:
    with Interruption() as interruption:
        runner = Runner(steps.LOGS, interruption)
        status = runner.run(chosen)
        report.show(runner.rows, steps.ROOT, note)
    return status
