"""The lab, its machines, and runs of site.yml over ssh, for every test of the scenario."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from mpqlab import testing
from mpqlab.fixtures import client, healed, lab, vps
from mpqlab.topology import BARE, REFUSING_ADDRESS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mpqlab.testing import Lab, SiteRun

__all__ = ["client", "healed", "lab", "vps"]

SCENARIO = Path(__file__).resolve().parents[1]
INVENTORY = SCENARIO / "inventory"
SSH = SCENARIO / "ssh.yml"
CARRYING = ("mpq4", "mpq5", "mpq6")
FLEET = "fleet"
REFUSING = {"ansible_connection": "ssh", "ansible_host": REFUSING_ADDRESS}
"""A site that is off: its address refuses the connection."""
BARE_NODE = {"ansible_connection": "mpqlab_node", "mpqlab_node": BARE}
"""A host with Python and root, on which no systemd runs."""


class Site:
    """Runs site.yml over ssh. `differs` says that the last run that changed anything used another inventory."""

    def __init__(self) -> None:
        self.differs = False

    def __call__(self, *arguments: str, inventory: Path = INVENTORY) -> SiteRun:
        """Run it with the scenario's inventory or a copy of it, behind which stands how the hosts are reached."""
        done = testing.run_site(*arguments, inventories=[inventory, SSH])
        if any(counts["changed"] for counts in done.recap.values()):
            self.differs = inventory != INVENTORY
        return done


@pytest.fixture(scope="session")
def run_site() -> Site:
    return Site()


@dataclass
class Variables:
    """What a test edits in a copy of the inventory: `site`, `vps`, and the document of hosts.yml."""

    site: dict[str, Any]
    vps: dict[str, Any]
    hosts: dict[str, Any]

    def add_site(self, number: int, **connection: str) -> str:
        """Add site `number` (2 to 63) with one tunnel to a listener that such sites share; return its host's name.

        `connection` are its host's connection variables: `REFUSING`, `BARE_NODE`, or a machine's.
        """
        name = f"site{number}"
        if all(listener["name"] != FLEET for listener in self.vps["listeners"]):
            self.vps["listeners"].append({"name": FLEET, "port": 45010, "subnet": "10.230.0.0/16"})
        site = {
            "name": name,
            "site_id": number,
            "vps": "vps1",
            "management": [{"name": "mgmt1", "device": "ens3", "address": f"10.10.11.{100 + number}/24"}],
            "wans": [{"name": "wan4", "device": "ens14"}],
            "lans": [{"name": "lan4", "device": "ens8", "tunnel": f"{name}a"}],
            "tunnels": [{"name": f"{name}a", "wan": "wan4", "listener": FLEET}],
        }
        hosts = self.hosts["all"]["children"]["sites"].setdefault("hosts", {})
        hosts[f"{name}-client"] = {"ansible_python_interpreter": "/usr/bin/python3", **connection, "site": site}
        return f"{name}-client"


@pytest.fixture
def edited(lab: Lab, run_site: Site, tmp_path: Path) -> Iterator[Callable[[Callable[[Variables], None]], Path]]:
    """A copy of the scenario's inventory with edited variables; the lab is put back where a run with it changed it."""
    inventory = tmp_path / "inventory"

    def edit(change: Callable[[Variables], None]) -> Path:
        shutil.copytree(INVENTORY, inventory, dirs_exist_ok=True)
        paths = {
            "site": inventory / "group_vars/site1/site.yml",
            "vps": inventory / "group_vars/vps/vps.yml",
            "hosts": inventory / "hosts.yml",
        }
        documents = {name: yaml.safe_load(path.read_text()) for name, path in paths.items()}
        change(Variables(documents["site"]["site"], documents["vps"]["vps"], documents["hosts"]))
        for name, path in paths.items():
            path.write_text(yaml.safe_dump(documents[name], sort_keys=False))
        return inventory

    yield edit
    if run_site.differs:
        done = run_site()
        assert done.status == 0, done.output[-9000:]
        for tunnel in CARRYING:
            lab.wait_state(tunnel, "up", within=30)
