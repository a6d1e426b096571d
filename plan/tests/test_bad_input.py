"""Wrong variables, as the rows of bad_input.yml say, and every line that must be reported for them."""

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


@pytest.mark.parametrize("environment", ["prod", "lab"])
def test_the_inventories_of_the_repository_have_no_error(
    inventory: Callable[[str], dict[str, Any]], environment: str
) -> None:
    assert validate(inventory(environment)) == []


def test_each_row_is_a_case_of_its_own() -> None:
    assert len({row["name"] for row in ROWS}) == len(ROWS) >= 30
    assert len({tuple(row["expect"]) for row in ROWS}) >= len(ROWS) - 2


def test_more_vlans_than_rule_priorities_are_refused(changed: Callable[..., dict[str, Any]]) -> None:
    vlans = [
        {"id": 1000 + n, "address": f"172.{18 + n // 250}.{n % 250}.1/30", "device": f"v{n}", "tunnel": "mpq1"}
        for n in range(391)
    ]
    hosts = changed([("site1-client", "site.lans[0].vlans", vlans)])
    assert [str(problem) for problem in validate(hosts)] == [
        "site1-client: site.lans: 391 VLANs; a site has at most 390"
    ]
    hosts["site1-client"]["site"]["lans"][0]["vlans"].pop()
    lans = build(hosts)["site1-client"]["lans"]
    assert max(lan["rules"][0]["priority"] for lan in lans) < 2500


def test_every_check_has_a_row(inventory: Callable[[str], dict[str, Any]], put: Callable[..., None]) -> None:
    silent = {check.__name__ for check in checks.CHECKS} - {"vlans_are_few_enough"}
    for row in ROWS:
        hosts = inventory("prod")
        put(hosts, _changes(row))
        fleet, _ = read_fleet(hosts)
        silent -= {check.__name__ for check in checks.CHECKS if list(check(fleet))}
    assert silent == set()
