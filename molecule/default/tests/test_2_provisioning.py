"""site.yml on a provisioned site: nothing to do, and after an edit just what the edit says."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from mpqlab.testing import INTERNET, PROJECT, VPS_ADDRESS, VPS_ADDRESS6, changed_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mpqlab.testing import Lab


def test_check_mode_after_it_finds_nothing_to_change(lab: Lab) -> None:
    assert changed_tasks(lab.playbook("--check", "--diff")) == []


@pytest.fixture
def edited(lab: Lab, tmp_path: Path) -> Iterator[Callable[[Callable[[dict[str, Any]], None]], Path]]:
    """An inventory like the lab's with an edited site; the lab is put back afterwards."""

    def edit(change: Callable[[dict[str, Any]], None]) -> Path:
        inventory = tmp_path / "lab"
        shutil.copytree(PROJECT / "inventories/lab", inventory, symlinks=True)
        variables = inventory / "group_vars/site1/site.yml"
        document = yaml.safe_load(variables.read_text())
        change(document["site"])
        variables.write_text(yaml.safe_dump(document))
        return inventory

    yield edit
    lab.playbook()
    lab.wait_state("mpq4", "up", within=10)


def changed(site: dict[str, Any]) -> None:
    """LAN4 and its tunnel go; mpq5 goes over IPv6 and mpq6 over reliable QUIC."""
    site["lans"] = [lan for lan in site["lans"] if lan["name"] != "lan4"]
    site["tunnels"] = [tunnel for tunnel in site["tunnels"] if tunnel["name"] != "mpq4"]
    tunnels = {tunnel["name"]: tunnel for tunnel in site["tunnels"]}
    tunnels["mpq5"]["outer"] = "ipv6"
    tunnels["mpq6"] |= {"transport": "quic", "transport_mode": "reliable"}


def traces(lab: Lab, node: str) -> str:
    """Everything on a node that could name LAN4 or its tunnel."""
    return lab.run(
        node,
        "ls /etc/systemd/network /etc/mpquic/instances; ip -br link; ip rule; ip -6 rule; ip route show table all;"
        " systemctl list-units --all --plain --no-legend 'mpquic@*'; nft list table inet mpquic; ls /run/mpquic",
    )


def test_an_edited_site_is_what_its_variables_say(
    lab: Lab, edited: Callable[[Callable[[dict[str, Any]], None]], Path]
) -> None:
    inventory = edited(changed)
    assert "mpq4" in traces(lab, "client")
    assert "172.16.4." in traces(lab, "client")
    announced = changed_tasks(lab.playbook("--check", "--diff", inventory=inventory))
    assert announced
    assert "mpq4" in traces(lab, "client"), "check mode changed something"
    done = changed_tasks(lab.playbook(inventory=inventory))
    assert set(done) <= set(announced)
    # A dry run can't know what networkd's own reload takes away.
    assert {task for task in announced if task not in done} <= {
        "site1-client: networkd : Delete rules and routes that the plan doesn't name",
        "vps1: networkd : Delete rules and routes that the plan doesn't name",
    }
    assert "mpq4" not in traces(lab, "client")
    assert "172.16.4." not in traces(lab, "client")
    assert changed_tasks(lab.playbook(inventory=inventory)) == []
    for tunnel, peer in (("mpq5", f"[{VPS_ADDRESS6}]:45005"), ("mpq6", f"{VPS_ADDRESS}:45006")):
        lab.wait_state(tunnel, "up", within=10)
        assert lab.status()[tunnel]["peer"] == peer
        host = tunnel.replace("mpq", "host")
        assert lab.run(host, f"curl -sS --fail http://{INTERNET}/ip").strip() == VPS_ADDRESS
