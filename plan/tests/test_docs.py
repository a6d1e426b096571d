"""The page on site variables is the schemas' and true."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from mpquic_plan import build
from mpquic_plan.docs import main, page
from mpquic_plan.schema import ROOTS, load

ROOT = Path(__file__).parents[2]


def test_the_page_in_the_repository_is_up_to_date() -> None:
    assert (ROOT / "docs/site-variables.md").read_text(encoding="utf-8") == page(), (
        "run python -m mpquic_plan.docs docs/site-variables.md"
    )


def test_the_page_names_every_key() -> None:
    def keys(schema: Any) -> set[str]:
        if isinstance(schema, list):
            return {key for item in schema for key in keys(item)}
        if not isinstance(schema, dict):
            return set()
        own = set(schema["properties"]) if isinstance(schema.get("properties"), dict) else set()
        return own | {key for value in schema.values() for key in keys(value)}

    text = page()
    assert {key for root in ROOTS for key in keys(load(root)) if f"`{key}`" not in text} == set()


def test_the_shortest_site_of_the_page_is_planned() -> None:
    example = re.search(r"```yaml\n(.*?)```", page(), re.DOTALL)
    assert example is not None
    vps = {"address": "203.0.113.10", "listeners": [{"name": "mpq5", "subnet": "10.200.5.0/24"}]}
    client = build({"farm-client": yaml.safe_load(example[1]), "vps1": {"vps": vps}})["farm-client"]
    assert [(lan["device"], lan["addresses"]) for lan in client["lans"]] == [("enp7s1", ["172.16.5.1/30"])]
    assert [wan["device"] for wan in client["wans"]] == ["enp7s7"]
    assert client["instances"][0]["config"]["remote_port"] == 45005


@pytest.mark.parametrize("root", ROOTS)
def test_a_schema_is_one_and_editors_find_it(root: str) -> None:
    Draft202012Validator.check_schema(load(root))
    assert (ROOT / f"schemas/{root}.schema.json").resolve() == (
        ROOT / f"plan/src/mpquic_plan/schemas/{root}.schema.json"
    )


def test_the_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "page.md")]) == 0
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == page()
    assert main([]) == 0
    assert capsys.readouterr().out == page()
    assert main(["a", "b"]) == 2
