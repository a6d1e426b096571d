"""`python -m mpqbench`: measure, print the tables, write the results and the document."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mpqbench import against, class_loss, conditions, document, pairing, plots, results
from mpqbench.conditions import Measurement
from mpqbench.errors import BenchError
from mpqbench.isolation import isolate
from mpqbench.results import BENCHES
from mpqbench.runner import Runner
from mpqbench.systems import SYSTEMS
from mpqbench.systems.mpquic import CHECKOUT, Mpquic
from mpqbench.table import screen, tables

if TYPE_CHECKING:
    from mpqbench.conditions import Conditions
    from mpqbench.results import Result


def _names(known: dict[str, object]) -> type[argparse.Action]:
    class Names(argparse.Action):
        def __call__(
            self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: object, option: object = None
        ) -> None:
            del option
            chosen = str(values).split(",")
            unknown = [name for name in chosen if name not in known]
            if unknown:
                parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
            setattr(namespace, self.dest, chosen)

    return Names


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the status is 1 when anything couldn't be measured."""
    parser = argparse.ArgumentParser(prog="python -m mpqbench", description="Measure tunnels side by side.")
    parser.add_argument(
        "--systems", action=_names(dict(SYSTEMS)), default=list(SYSTEMS), metavar="A,B", help=", ".join(SYSTEMS)
    )
    parser.add_argument(
        "--benches",
        action=_names(dict.fromkeys(BENCHES)),
        default=list(BENCHES),
        metavar="A,B",
        help=", ".join(BENCHES),
    )
    parser.add_argument(
        "--runs", type=int, default=3, help="runs of each system, in alternation; long cases take fewer (default 3)"
    )
    parser.add_argument("--seconds", type=float, default=4, help="length of a measurement (default 4)")
    parser.add_argument(
        "--merge",
        action="store_true",
        help="keep what the file has of other benches and systems; other processors' results always stay",
    )
    parser.add_argument("--results", type=Path, default=Path("bench/results/latest.json"), metavar="FILE")
    parser.add_argument("--document", type=Path, default=Path("docs/performance.md"), metavar="FILE")
    parser.add_argument("--cache", type=Path, default=Path(".cache/bench"), metavar="DIR", help="unpacked programs")
    parser.add_argument("--only-document", action="store_true", help="make the document from kept results")
    parser.add_argument(
        "--against",
        metavar="REV",
        help="compare this project's systems with those of another commit, in alternation, --runs pairs of each; "
        "what looks worse is measured in 15 more pairs; the results file and the document stay as they are",
    )
    options = parser.parse_args(arguments)
    if options.runs < 1 or not 1 <= options.seconds <= 600:
        parser.error("expected at least one run, of 1 to 600 seconds")
    if options.only_document:
        _publish(options.results, options.document)
        return 0
    if os.geteuid() != 0:
        parser.error("root is needed for namespaces and packages")
    # As with Ctrl-C: leave by way of everything that ends processes and removes namespaces.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    isolate()
    if options.against is not None:
        return _compare(options)
    runner = Runner(options.cache.resolve(), options.seconds, _report)
    measured = runner.run(options.systems, options.benches, options.runs)
    for bench, rows in tables(measured).items():
        print(f"\n{bench}\n{screen(rows)}")
    if measured:
        _keep(measured, conditions.observe(options.runs, options.seconds), options.results, merge=options.merge)
        _publish(options.results, options.document)
    for failure in runner.failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if runner.failures or not measured else 0


def _report(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _compare(options: argparse.Namespace) -> int:
    """Compare with another commit; the status is 1 when something is worse, or couldn't be measured here."""
    systems = {name: SYSTEMS[name]() for name in options.systems}
    subjects = [
        (name, bench)
        for bench in options.benches
        for name, system in systems.items()
        if isinstance(system, Mpquic) and bench in system.benches
    ]
    try:
        name = against.commit(CHECKOUT, options.against)
        other = against.check_out(CHECKOUT, name, options.cache.resolve())
    except BenchError as error:
        _report(f"{options.against}: {error}")
        return 1
    sides = against.Sides({"present": against.present(CHECKOUT), "other": other}, options.seconds, _report)
    comparisons, worse = against.judge(sides.measure, subjects, options.runs, _report)
    print(screen(pairing.rows(comparisons, worse, name[:12])))
    return against.status(comparisons, worse)


def _about(file: Path) -> Path:
    return file.with_name("conditions.json")


def _keep(measured: list[Result], seen: Conditions, file: Path, *, merge: bool) -> None:
    """Replace what the file has of this processor, or part of it; what it has of others stays."""
    new = Measurement(seen, tuple(results.pairs(measured)))
    rows, known = (results.load(file), conditions.load(_about(file))) if file.exists() else ({}, {})
    processor = seen.processor
    known[processor] = conditions.merge(known.get(processor, []), new) if merge else [new]
    measured = results.merge(rows.get(processor, []), measured) if merge else measured
    rows[processor] = results.ordered(measured, list(SYSTEMS))
    results.save(rows, file)
    conditions.save(known, _about(file))


def _publish(file: Path, target: Path) -> None:
    """Write plots and document, from the file, so that they are the same whether they are made now or later."""
    measured = results.load(file)
    drawn = {
        processor: plots.draw(rows, file.parent / plots.folder_name(processor)) for processor, rows in measured.items()
    }
    classes = class_loss.load(file.with_name(class_loss.FILE))
    target.write_text(document.compose(measured, conditions.load(_about(file)), drawn, classes))


if __name__ == "__main__":
    sys.exit(main())
