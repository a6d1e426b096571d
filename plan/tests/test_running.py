"""site.yml from anywhere: with the project's ansible.cfg it works, without it and without a plan it says what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ANSIBLE = Path(sys.executable).with_name("ansible-playbook")
INVENTORY = ROOT / "inventories/prod"


def run(folder: Path, playbook: str, *options: str, config: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a playbook of the project in another folder."""
    environment = {name: value for name, value in os.environ.items() if name != "ANSIBLE_CONFIG"}
    if config:
        environment["ANSIBLE_CONFIG"] = str(ROOT / "ansible.cfg")
    command = [ANSIBLE, ROOT / playbook, "-i", INVENTORY, *options]
    return subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_files_of_a_host_are_rendered_from_another_folder(tmp_path: Path) -> None:
    done = run(tmp_path, "playbooks/render.yml", "--limit", "vps1", "-e", f"mpquic_render_dir={tmp_path}/tree")
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "tree/vps1/etc/mpquic/instances").is_dir()


def test_without_the_configuration_of_the_project_a_run_says_what_to_do(tmp_path: Path) -> None:
    done = run(tmp_path, "site.yml", config=False)
    assert done.returncode == 2
    assert "The ansible.cfg of this project is not in force" in done.stdout + done.stderr
    assert "set ANSIBLE_CONFIG to the path of the ansible.cfg" in done.stdout + done.stderr


def test_a_start_in_the_middle_says_that_there_is_no_plan(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    begin = ("--start-at-task", "Render the files of each role")
    done = run(tmp_path, "playbooks/render.yml", *begin, "-e", f"mpquic_render_dir={tree}")
    assert done.returncode == 2
    told = " ".join((done.stdout + done.stderr).split())
    assert "there is no plan: --start-at-task or --skip-tags has left out the tasks that make it" in told
    assert not tree.exists()


def test_v_shows_what_was_done_and_not_the_plan(tmp_path: Path) -> None:
    done = run(tmp_path, "playbooks/plan.yml", "-v")
    assert done.returncode == 0, done.stdout
    assert "rule_priorities" not in done.stdout
    assert len(done.stdout.splitlines()) < 50
