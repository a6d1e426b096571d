"""What a command's help and man page say beside its options."""

from __future__ import annotations

import argparse
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Manual:
    """Pairs are (what stands in the margin, its explanation)."""

    exit_statuses: tuple[tuple[str, str], ...]
    examples: tuple[tuple[str, str], ...]
    files: tuple[tuple[str, str], ...] = ()
    see_also: tuple[str, ...] = ()


def parser(prog: str, description: str, manual: Manual) -> argparse.ArgumentParser:
    """Return a parser whose help ends with exit statuses and examples."""
    return argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog="\n\n".join((_listed("exit status", manual.exit_statuses), _listed("examples", manual.examples))),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _listed(heading: str, pairs: tuple[tuple[str, str], ...]) -> str:
    width = max((len(left) for left, _ in pairs), default=0)
    return "\n".join([f"{heading}:", *(f"  {left.ljust(width)}  {right}" for left, right in pairs)])
