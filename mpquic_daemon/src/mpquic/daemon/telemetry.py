"""Counters as plain data: what `get counters` answers, gathered when asked and never on the fast path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass


def snapshot(counters: object) -> dict[str, object]:
    """Return the fields of a counters dataclass, or the items of a mapping, as JSON data; private ones are left out."""
    if isinstance(counters, Mapping):
        return {str(key): _plain(value) for key, value in counters.items()}
    if is_dataclass(counters):
        return {field.name: _plain(getattr(counters, field.name)) for field in fields(counters) if field.name[0] != "_"}
    raise TypeError(f"{type(counters).__name__} has no counters")


def add(total: dict[str, int], counters: object) -> None:
    """Add the whole numbers of `counters` to `total`: what a closed connection counted isn't lost with it."""
    for key, value in snapshot(counters).items():
        if type(value) is int:
            total[key] = total.get(key, 0) + value


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping) or is_dataclass(value):
        return snapshot(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value)
