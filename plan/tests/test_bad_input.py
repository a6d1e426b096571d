"""Wrong variables, as rows of bad_*.yml say, and every line that must be reported for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from mpquic_plan import PlanError, build, checks, validate
from mpquic_plan.parse import read_fleet

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS: list[dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("bad_input.yml").read_text())
CLASS_ROWS: list[dict[str, Any]] = [
    row
    for name in ("bad_classes.yml", "bad_multipath.yml", "bad_openwrt.yml")
    for row in yaml.safe_load(Path(__file__).with_name(name).read_text())
]
"""Rows of the reference site with its class tunnels, VLANs, tunnel over several WANs and router."""


def _changes(row: dict[str, Any]) -> list[tuple[str, str, Any]]:
    return [
        *((host, path, ...) for host, paths in row.get("remove", {}).items() for path in paths),
        *((host, path, value) for host, values in row.get("set", {}).items() for path, value in values.items()),
    ]


@pytest.mark.parametrize("row", [pytest.param(row, id=row["name"]) for row in ROWS])
def test_every_error_is_reported_with_its_path(changed: Callable[..., dict[str, Any]], row: dict[str, Any]) -> None:
    hosts = changed(_changes(row))
    assert [str(problem) for problem in validate(hosts)] == row["expect"]
    with pytest.raises(PlanError) as raised:
        build(hosts)
    assert str(raised.value).splitlines() == row["expect"]


@pytest.mark.parametrize("row", [pytest.param(row, id=row["name"]) for row in CLASS_ROWS])
def test_every_error_of_classes_and_routers_is_reported_with_its_path(
    whole: dict[str, Any], put: Callable[..., None], row: dict[str, Any]
) -> None:
    put(whole, _changes(row))
    assert [str(problem) for problem in validate(whole)] == row["expect"]
    with pytest.raises(PlanError):
        build(whole)


@pytest.mark.parametrize("environment", ["prod", "lab"])
def test_the_inventories_of_the_repository_have_no_error(
    inventory: Callable[[str], dict[str, Any]], environment: str
) -> None:
    assert validate(inventory(environment)) == []


def test_each_row_is_a_case_of_its_own() -> None:
    rows = ROWS + CLASS_ROWS
    assert len({row["name"] for row in rows}) == len(rows) >= 30
    assert len({tuple(row["expect"]) for row in rows}) >= len(rows) - 2


def test_every_check_has_a_row(inventory: Callable[[str], dict[str, Any]], put: Callable[..., None]) -> None:
    silent = {check.__name__ for check in checks.CHECKS}
    for row in ROWS + CLASS_ROWS:
        hosts = inventory("prod")
        put(hosts, _changes(row))
        fleet, _ = read_fleet(hosts)
        silent -= {check.__name__ for check in checks.CHECKS if list(check(fleet))}
    assert silent == set()
