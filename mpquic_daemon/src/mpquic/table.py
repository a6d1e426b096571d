"""Rows of `mpquicctl` as aligned columns for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mpquic.proto.control.printable import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OPTIONAL = frozenset({"error", "identity"})
"""Columns that are left out where every row has nothing in them."""
SITE_PREFIX = "urn:mpquic:site:"


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """Return `rows` under the headings `columns` (key to heading)."""
    shown = [key for key in columns if key not in OPTIONAL or any(row.get(key) for row in rows)]
    lines = [[columns[key] for key in shown]]
    lines += [[printable(_cell(key, row.get(key))) for key in shown] for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(shown))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _cell(key: str, value: object) -> str:
    if value is None:
        return "-"
    if (key == "duration_seconds" or key.endswith("_age_seconds")) and isinstance(value, int | float):
        return _duration(value)
    if key.endswith("loss_ratio") and isinstance(value, int | float):
        return f"{value * 100:.1f}%"
    if key.endswith("_bytes") and isinstance(value, int):
        return _amount(value)
    if key == "stripe" and isinstance(value, dict):
        return "carries" if value.get("carries") else "silent"
    if key == "rtt_seconds" and isinstance(value, int | float):
        return f"{value * 1000:.1f}"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return str(value).removeprefix(SITE_PREFIX) if key == "identity" else str(value)


def _duration(seconds: float) -> str:
    """Return the two largest units, each with its letter."""
    whole = max(0, int(seconds))
    for size, unit, smaller, letter in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            return f"{whole // size}{unit} {whole % size // smaller}{letter}"
    return f"{whole}s"


def _amount(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f}{unit}" if unit == "B" else f"{size:.1f}{unit}"
        size /= 1000
    return f"{size:.1f}TB"
