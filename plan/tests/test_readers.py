"""What the plan says, a role reads: a key that nobody reads is a promise that nobody keeps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from mpquic_plan import build

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
FREE = ("config", "sysctl", "sysctl_minimums", "forwarding")
"""Passed on as they are, whatever keys they have."""
OF_MATCHES = ("host", "kind", "path")
"""What the roles don't read of a card that is known by its MAC address: it's for the messages of `matching.resolve`."""


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, below in value.items():
            yield key
            if key not in FREE:
                yield from _keys(below)
    elif isinstance(value, list):
        for item in value:
            yield from _keys(item)


def _unusual() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load((ROOT / "molecule/render/inventory/unusual.yml").read_text())["all"]["children"]
    return {host: variables for group in groups.values() for host, variables in group["hosts"].items()}


@pytest.mark.parametrize("fleet", ["reference", "unusual"])
def test_every_key_of_the_plan_is_read(fleet: str, reference: dict[str, dict[str, Any]]) -> None:
    files = [path for path in ROOT.glob("roles/*/*/*") if path.parent.name in ("defaults", "tasks", "templates")]
    text = "\n".join(path.read_text() for path in [*files, ROOT / "site.yml", *ROOT.glob("plugins/filter/*.py")])
    words = set(re.findall(r"""(?:\.|\['|\["|attribute='|selectattr\(')(\w+)""", text))
    hosts = reference if fleet == "reference" else _unusual()
    assert sorted({*_keys(build(hosts))} - words - {*hosts} - {*OF_MATCHES}) == []
