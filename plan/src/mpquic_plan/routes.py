"""Routes and routing rules of a link as the roles take them, in the file of which they stand."""

from __future__ import annotations

from typing import Any, Final

from mpquic_plan import classes, tables

DEFAULT_ROUTES: Final = ("0.0.0.0/0", "::/0")


def route(
    destination: str,
    *,
    kind: str = "unicast",
    gateway: str | None = None,
    on_link: bool = False,
    table: int | None = None,
    metric: int | None = None,
) -> dict[str, Any]:
    """Return a route of the link in whose file it stands; `on_link`: its gateway is in no subnet of the link."""
    return {
        "type": kind,
        "destination": destination,
        "gateway": gateway,
        "on_link": on_link,
        "table": table,
        "metric": metric,
    }


def last_routes(kind: str, table: int) -> list[dict[str, Any]]:
    """Return the routes that end a table, of both families, behind all others."""
    return [route(destination, kind=kind, table=table, metric=tables.LAST_METRIC) for destination in DEFAULT_ROUTES]


def rule(
    priority: int,
    table: int,
    *,
    source: str | None = None,
    incoming: str | None = None,
    outgoing: str | None = None,
    mark: int | None = None,
    mask: int = classes.MARK_MASK,
    suppress_prefix_length: int | None = None,
    family: str = "both",
) -> dict[str, Any]:
    """Return a routing rule; of a packet's mark it looks at the bits of `mask` alone, which are ours."""
    return {
        "priority": priority,
        "table": table,
        "from": source,
        "incoming_interface": incoming,
        "outgoing_interface": outgoing,
        "mark": mark,
        "mask": None if mark is None else mask,
        "suppress_prefix_length": suppress_prefix_length,
        "family": family,
    }
