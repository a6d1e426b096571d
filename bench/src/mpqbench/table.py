"""Results as text: one table for each bench, on a screen or in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from mpqbench.results import Result

WIDE = 6


def number(value: float) -> str:
    """Format with three significant digits, and thousands separated: 0.123, 4.56, 78.9, 1,234."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3}f}"


def heading(metric: str, unit: str) -> str:
    """Name a metric with its unit; a share has none."""
    return metric if unit == "share" else f"{metric}, {unit}"


def cell(result: Result) -> str:
    """Format the median, with the spread of the runs in parentheses when there are several."""
    if len(result.runs) == 1:
        return number(result.value)
    low, high = result.spread
    return f"{number(result.value)} ({number(low)} - {number(high)})"


def tables(results: Iterable[Result]) -> dict[str, list[list[str]]]:
    """Return, for each bench, rows of cells: a heading row, then rows for each system in order of appearance.

    A system has one row, with a column for each value; where that were more than `WIDE` columns, it has a row for each
    metric, with a column for each case.
    """
    benches: dict[str, list[Result]] = {}
    for result in results:
        benches.setdefault(result.bench, []).append(result)
    return {bench: _narrow(members) or _tall(members) for bench, members in benches.items()}


def _narrow(members: list[Result]) -> list[list[str]] | None:
    columns = _columns(members, lambda result: (result.case, result.metric, result.unit))
    if len(columns) > WIDE:
        return None
    rows = [["system", *(f"{case}: {heading(metric, unit)}" for case, metric, unit in columns)]]
    for system in dict.fromkeys(result.system for result in members):
        cells: dict[tuple[str, ...], str] = {(r.case, r.metric, r.unit): cell(r) for r in members if r.system == system}
        rows.append([system, *(cells.get(column, "-") for column in columns)])
    return rows


def _tall(members: list[Result]) -> list[list[str]]:
    columns = _columns(members, lambda result: (result.case,))
    rows = [["system", "metric", *(case for (case,) in columns)]]
    for system, metric, unit in dict.fromkeys((result.system, result.metric, result.unit) for result in members):
        cells = {r.case: cell(r) for r in members if (r.system, r.metric, r.unit) == (system, metric, unit)}
        rows.append([system, heading(metric, unit), *(cells.get(case, "-") for (case,) in columns)])
    return rows


def _columns(members: list[Result], key: Callable[[Result], tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return all keys; the order is that of the system that has most of them, since others may leave some out."""
    systems: dict[str, dict[tuple[str, ...], None]] = {}
    for result in members:
        systems.setdefault(result.system, {})[key(result)] = None
    return list(dict.fromkeys(column for keys in sorted(systems.values(), key=len, reverse=True) for column in keys))


def screen(rows: Sequence[Sequence[str]]) -> str:
    """Align columns with spaces; the first to the left, values to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) if index == 0 else text.rjust(width)
                  for index, (text, width) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    )  # fmt: skip


def markdown(rows: Sequence[Sequence[str]], numbers_from: int = 1) -> str:
    """Return a Markdown table; cells are aligned right from the column `numbers_from` on."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|---" * numbers_from + "|---:" * (len(rows[0]) - numbers_from) + "|")
    return "\n".join(lines)
