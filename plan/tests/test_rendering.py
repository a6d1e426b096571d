"""What the role writes into a folder, from the plan of the reference site."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mpquic_plan import build

ROOT = Path(__file__).parents[2]
ANSIBLE = Path(sys.executable).with_name("ansible-playbook")
PLAY = """
- hosts: localhost
  gather_facts: false
  vars:
    ansible_python_interpreter: "{{ ansible_playbook_python }}"
  tasks:
    - ansible.builtin.include_role: {name: networkd, tasks_from: files}
"""

pytestmark = pytest.mark.skipif(not ANSIBLE.exists(), reason="ansible isn't in this virtual environment")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the role, where a test may change it, and what it needs."""
    shutil.copytree(ROOT / "roles/networkd", tmp_path / "roles/networkd")
    for name in ("library", "plugins"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "play.yml").write_text(PLAY)
    shutil.copy(ROOT / "ansible.cfg", tmp_path / "ansible.cfg")
    return tmp_path


def _render(folder: Path, hosts: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    variables = {"mpquic_slice": build(hosts)["site1-client"], "mpquic_destdir": str(folder / "tree")}
    (folder / "variables.json").write_text(json.dumps(variables))
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(folder / "ansible.cfg"),
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
    }
    command = [str(ANSIBLE), "-i", "localhost,", "-c", "local", "play.yml", "-e", "@variables.json"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_files_of_earlier_releases_go_and_those_of_others_stay(folder: Path, reference: dict[str, Any]) -> None:
    links, daemon = (folder / "tree/etc/systemd" / name for name in ("network", "networkd.conf.d"))
    for path in (links / "30-mpquic-enp7s3.network", links / "10-theirs.network", daemon / "30-mpquic.conf"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    done = _render(folder, reference)
    assert done.returncode == 0, done.stdout
    names = {path.name for path in links.iterdir()}
    assert "10-theirs.network" in names
    assert "05-mpquic-20-enp7s3.network" in names
    assert not [name for name in names if name.startswith("30-mpquic")]
    assert [path.name for path in daemon.iterdir()] == ["95-mpquic.conf"]


def test_a_value_that_a_template_lacks_is_an_error_and_no_missing_file(folder: Path, reference: dict[str, Any]) -> None:
    """Ansible leaves what is undefined out of a dict: the file of a link would be removed, and the run be green."""
    with (folder / "roles/networkd/templates/wan.network.j2").open("a") as template:
        template.write("{{ link.nope }}\n")
    done = _render(folder, reference)
    assert done.returncode != 0
    assert "nope" in done.stdout + done.stderr
    assert not list((folder / "tree/etc/systemd").glob("network/*"))
