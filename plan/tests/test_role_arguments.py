"""What a role documents in meta/argument_specs.yml is what its defaults set, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
KINDS: dict[type, set[str]] = {bool: {"bool"}, int: {"int"}, str: {"str", "path"}, list: {"list"}, dict: {"dict"}}


def read(role: str, file: str) -> Any:
    return yaml.safe_load((ROOT / "roles" / role / file).read_text())


def documented(role: str) -> dict[str, dict[str, Any]]:
    """The options of all entry points of a role."""
    specs = read(role, "meta/argument_specs.yml")["argument_specs"]
    return {name: option for spec in specs.values() for name, option in spec["options"].items()}


def defaults(role: str) -> dict[str, Any]:
    return dict(read(role, "defaults/main.yml") or {})


@pytest.mark.parametrize("role", ROLES)
def test_every_default_is_documented(role: str) -> None:
    assert sorted(defaults(role).keys() - documented(role).keys()) == []


@pytest.mark.parametrize("role", ROLES)
def test_every_option_has_a_default_or_is_required(role: str) -> None:
    known = defaults(role)
    assert [name for name, option in documented(role).items() if name not in known and not option.get("required")] == []


@pytest.mark.parametrize("role", ROLES)
def test_a_default_is_of_the_documented_type(role: str) -> None:
    options = documented(role)
    for name, value in defaults(role).items():
        if not (isinstance(value, str) and "{{" in value):
            assert options[name]["type"] in KINDS[type(value)], name


@pytest.mark.parametrize("role", ROLES)
def test_variables_of_a_role_begin_with_its_name_and_have_a_description(role: str) -> None:
    for name, option in documented(role).items():
        assert name.startswith(f"{role}_")
        assert len(option["description"]) > 10, name


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_of_a_role_that_a_file_uses_is_documented(role: str) -> None:
    options = documented(role)
    for path in (ROOT / "roles" / role).rglob("*"):
        if path.suffix not in (".yml", ".j2") or path.parent.name in ("meta", "defaults"):
            continue
        for expression in re.findall(r"\{[{%].*?[%}]\}", path.read_text(), re.DOTALL):
            for name in re.findall(rf"(?<![\w.'/-]){role}_[a-z0-9_]+", expression):
                assert name in options, f"{path.relative_to(ROOT)}: {name}"
