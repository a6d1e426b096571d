"""The lab with real 802.1Q, and runs of site.yml over ssh."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from mpqlab import testing
from mpqlab.fixtures import lab
from mpqlab.machine_links import FOREIGN_LINKS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mpqlab.testing import Lab, SiteRun

__all__ = ["lab"]

SCENARIO = Path(__file__).resolve().parents[1]
INVENTORY = SCENARIO / "inventory"
SSH = SCENARIO.parent / "hosts/ssh.yml"
PORT = 9000
"""What the Internet sends back."""
COUNT = 20


def run_site(*arguments: str, inventory: Path = INVENTORY) -> SiteRun:
    """Run site.yml with the scenario's inventory, or a copy of it, over ssh."""
    return testing.run_site(*arguments, inventories=[inventory, SSH])


def ask(lab: Lab, vlan: int, target: str) -> int:
    """Replies to `COUNT` requests from the network that uses a VLAN."""
    source = f"fd00:100:{vlan}::2" if ":" in target else f"192.168.{vlan}.2"
    return int(lab.run("host2", f"{sys.executable} -m mpqlab.echo send udp {source} {target} {PORT} {COUNT}"))


@pytest.fixture(scope="session", autouse=True)
def real_vlans() -> None:
    """The tests say nothing about a lab in which cables stand for VLANs."""
    assert json.loads(FOREIGN_LINKS.read_text()) == [], (
        "this lab has no 802.1Q: `mpqlab down`, then `scripts/scenarios --only vlan` starts one that has"
    )


@pytest.fixture(scope="session", autouse=True)
def echo(lab: Lab) -> Iterator[None]:
    with lab.echo("serve", str(PORT)):
        yield


@pytest.fixture
def edited(tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], None]], Path]:
    """A copy of the inventory with other variables of the site.

    Nothing puts the site back: a run of site.yml takes a minute and more under qemu, and the scenario ends here.
    """
    inventory = tmp_path / "inventory"

    def edit(change: Callable[[dict[str, Any]], None]) -> Path:
        shutil.copytree(INVENTORY, inventory)
        path = inventory / "group_vars/site1/site.yml"
        document = yaml.safe_load(path.read_text())
        change(document["site"])
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return inventory

    return edit
