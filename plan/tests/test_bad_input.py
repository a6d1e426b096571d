"""Wrong variables, as the rows of bad_input.yml say, and every line that must be reported for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from mpquic_plan import PlanError, build, validate

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS: list[dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("bad_input.yml").read_text())


@pytest.mark.parametrize("row", [pytest.param(row, id=row["name"]) for row in ROWS])
def test_every_error_is_reported_with_its_path(changed: Callable[..., dict[str, Any]], row: dict[str, Any]) -> None:
    hosts = changed(
        [
            *((host, path, ...) for host, paths in row.get("remove", {}).items() for path in paths),
            *((host, path, value) for host, values in row.get("set", {}).items() for path, value in values.items()),
        ]
    )
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
