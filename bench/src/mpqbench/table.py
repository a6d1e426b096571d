"""Results as text: one table for each bench, on a screen or in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mpqbench.results import Result


def number(value: float) -> str:
    """Format with three significant digits, and thousands separated: 0.123, 4.56, 78.9, 1,234."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3}f}"


def cell(result: Result) -> str:
    """Format the median, with the spread of the runs in parentheses when there are several."""
    if len(result.runs) == 1:
        return number(result.value)
    low, high = result.spread
    return f"{number(result.value)} ({number(low)} - {number(high)})"


def tables(results: Iterable[Result]) -> dict[str, list[list[str]]]:
    """Return, for each bench, rows of cells: a heading row, then one row for each system in order of appearance."""
    benches: dict[str, list[Result]] = {}
    for result in results:
        benches.setdefault(result.bench, []).append(result)
    made = {}
    for bench, members in benches.items():
        columns = list(dict.fromkeys((result.case, result.metric, result.unit) for result in members))
        rows = [["system", *(f"{case}: {metric}, {unit}" for case, metric, unit in columns)]]
        for system in dict.fromkeys(result.system for result in members):
            cells = {(r.case, r.metric, r.unit): cell(r) for r in members if r.system == system}
            rows.append([system, *(cells.get(column, "-") for column in columns)])
        made[bench] = rows
    return made


def screen(rows: Sequence[Sequence[str]]) -> str:
    """Align columns with spaces; the first to the left, values to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) if index == 0 else text.rjust(width)
                  for index, (text, width) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    )  # fmt: skip


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|---" + "|---:" * (len(rows[0]) - 1) + "|")
    return "\n".join(lines)
