"""Files that the roles render are no finding: neither those of the reference site nor those of unusual ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mpquic_plan
import pytest
import yaml
from mpquic_plan.check import addresses

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpquic_plan.check import Fleet, Host

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "molecule/render/golden"
"""Rendered from inventories/prod and from unusual.yml together."""
HOSTS = sorted(path.parent.name for path in GOLDEN.glob("*/etc"))
"""Not the routers, which have no tree of files."""


@pytest.fixture
def plans(inventory: Callable[[str], dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Slices of the plan of the hosts that are rendered."""
    groups = yaml.safe_load((ROOT / "molecule/render/inventory/unusual.yml").read_text())["all"]["children"]
    unusual = {host: variables for group in groups.values() for host, variables in group["hosts"].items()}
    built = mpquic_plan.build({**unusual, **inventory("prod")})
    plain: dict[str, dict[str, Any]] = json.loads(json.dumps(built, default=str))
    return plain


@pytest.mark.parametrize("name", HOSTS)
def test_rendered_files_name_no_address_that_is_strange_to_the_plan(
    plans: dict[str, dict[str, Any]], make_sound: Callable[..., Host], fleet: Fleet, name: str
) -> None:
    tree = GOLDEN / name / "etc"
    host = make_sound(name, plans[name])
    instances = {path.stem: path.read_text() for path in (tree / "mpquic/instances").glob("*.yml")}
    files = {str(path): path.read_text() for path in (tree / "systemd/network").iterdir()}
    resolvers = tree / "resolv.conf"
    look = {
        **host.second,
        "network_files": files,
        "resolv_conf": resolvers.read_text() if resolvers.exists() else None,
        "filter_file": (tree / "mpquic/nftables.nft").read_text(),
        "filter": (tree / "mpquic/nftables.nft").read_text(),
    }
    rendered = replace(host, survey={**host.survey, "instances": instances}, second=look)
    assert instances
    assert files
    for judge in (
        addresses.instances_are_planned,
        addresses.files_name_planned_addresses,
        addresses.loaded_rules_are_the_files,
    ):
        assert list(judge(rendered, fleet)) == []
