"""`python -m mpqbench`: measure, print the tables, write the results and the document."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from mpqbench import conditions, document, results
from mpqbench.cases import CASES
from mpqbench.runner import Runner
from mpqbench.systems import SYSTEMS
from mpqbench.table import screen, tables


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
        "--benches", action=_names(dict(CASES)), default=list(CASES), metavar="A,B", help=", ".join(CASES)
    )
    parser.add_argument("--runs", type=int, default=3, help="runs of each system, in alternation (default 3)")
    parser.add_argument("--seconds", type=float, default=5, help="length of a measurement (default 5)")
    parser.add_argument("--results", type=Path, default=Path("bench/results/latest.json"), metavar="FILE")
    parser.add_argument("--document", type=Path, default=Path("docs/performance.md"), metavar="FILE")
    parser.add_argument("--cache", type=Path, default=Path(".cache/bench"), metavar="DIR", help="unpacked programs")
    parser.add_argument("--only-document", action="store_true", help="make the document from kept results")
    options = parser.parse_args(arguments)
    if options.runs < 1 or not 1 <= options.seconds <= 600:
        parser.error("expected at least one run, of 1 to 600 seconds")
    about = options.results.with_name("conditions.json")
    if options.only_document:
        options.document.write_text(document.compose(results.load(options.results), conditions.Conditions.load(about)))
        return 0
    if os.geteuid() != 0:
        parser.error("root is needed for namespaces and packages")
    # As with Ctrl-C: leave by way of everything that ends processes and removes namespaces.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    runner = Runner(options.cache.resolve(), options.seconds, lambda text: print(text, file=sys.stderr, flush=True))
    measured = runner.run(options.systems, options.benches, options.runs)
    for bench, rows in tables(measured).items():
        print(f"\n{bench}\n{screen(rows)}")
    if measured:
        results.save(measured, options.results)
        conditions.observe(options.runs, options.seconds).save(about)
        # From the file, so that the document is the same whether it is made now or later.
        options.document.write_text(document.compose(results.load(options.results), conditions.Conditions.load(about)))
    for failure in runner.failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if runner.failures or not measured else 0


if __name__ == "__main__":
    sys.exit(main())
