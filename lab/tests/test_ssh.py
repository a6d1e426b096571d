"""The ssh way in, as far as it is text: the inventory, and known_hosts from a machine's keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml
from mpqlab import ssh
from mpqlab.errors import LabError

if TYPE_CHECKING:
    from pathlib import Path


def test_the_inventory_overrides_only_how_hosts_are_reached() -> None:
    document = yaml.safe_load(ssh.inventory())
    assert set(document["all"]) == {"vars", "hosts"}
    assert all(key.startswith("ansible_") for key in document["all"]["vars"])
    assert document["all"]["hosts"] == {
        "site1-client": {"ansible_connection": "ssh", "ansible_host": "10.10.11.100"},
        "vps1": {"ansible_connection": "ssh", "ansible_host": "203.0.113.10"},
    }


def test_another_lab_keeps_its_connections_apart() -> None:
    variables = yaml.safe_load(ssh.inventory())["all"]["vars"]
    assert variables["ansible_control_path_dir"].startswith(f"{ssh.RUN}/")


def test_known_hosts_names_each_address_of_a_machine_with_each_of_its_keys(tmp_path: Path) -> None:
    keys = tmp_path / "etc/ssh"
    keys.mkdir(parents=True)
    (keys / "ssh_host_rsa_key.pub").write_text("ssh-rsa AAAAB3 root@vm\n")
    (keys / "ssh_host_ed25519_key.pub").write_text("ssh-ed25519 AAAAC3 root@vm\n")
    (keys / "ssh_host_rsa_key").write_text("secret")
    assert ssh.known_hosts("client", tmp_path) == (
        "10.10.11.100,10.10.10.100 ssh-ed25519 AAAAC3\n10.10.11.100,10.10.10.100 ssh-rsa AAAAB3\n"
    )


def test_without_ssh_in_the_lab_one_sentence_says_how_to_have_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ssh, "_CONFIG", tmp_path / "config")
    with pytest.raises(LabError, match="the lab has no ssh way in: `mpqlab up --ssh` makes it"):
        ssh.login("client", [])
