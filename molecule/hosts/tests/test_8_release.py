"""A release comes by a folder of root's alone; what keeps it from being installed is told, and nothing is half done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mpqlab.testing import Lab

    from .conftest import Site

STAGING = "/var/lib/mpquic/staging"
LOCK = Path(__file__).parents[3] / "requirements/daemon.txt"


@pytest.fixture
def another_release(tmp_path: Path) -> list[str]:
    """Arguments that make another release of the same wheels, on a controller that reaches no package index."""
    lock = tmp_path / "daemon.txt"
    lock.write_text(f"{LOCK.read_text()}# {tmp_path}\n")
    variables = {"daemon_requirements": str(lock), "daemon_pip": ["/bin/false"], "verify_deadline": 10}
    return ["--limit", "vps1", "--tags", "daemon,verify", "-e", json.dumps(variables)]


def releases(lab: Lab) -> str:
    return lab.run("vps", "ls /opt/mpquic/releases; readlink /opt/mpquic/current")


def test_where_only_the_daemon_differs_nothing_is_downloaded(
    lab: Lab, run_site: Site, another_release: list[str]
) -> None:
    before = releases(lab)
    done = run_site(*another_release)
    assert done.status == 0, done.output[-6000:]
    assert releases(lab) != before
    assert lab.run("vps", f"ls -A {STAGING}; stat -c '%U %a' {STAGING}").strip() == "root 700"


def test_a_symbolic_link_in_place_of_the_folder_is_refused(
    lab: Lab, run_site: Site, another_release: list[str]
) -> None:
    before = releases(lab)
    lab.run("vps", f"rm -rf {STAGING}; mkdir -p /root/theirs; ln -s /root/theirs {STAGING}")
    try:
        assert f"{STAGING} is a symbolic link, which no run of ours made" in run_site(*another_release).output
        assert releases(lab) == before
        assert lab.run("vps", "ls -A /root/theirs") == ""
    finally:
        lab.run("vps", f"rm -rf {STAGING} /root/theirs")


def test_a_full_disk_is_named(lab: Lab, run_site: Site, another_release: list[str]) -> None:
    before = releases(lab)
    lab.run("vps", f"mkdir -p -m 700 {STAGING} && mount -t tmpfs -o size=3m,mode=700 none {STAGING}")
    try:
        assert f"the disk is full: {STAGING} needs" in run_site(*another_release).output
        assert lab.run("vps", f"ls -A {STAGING}") == ""
    finally:
        lab.run("vps", f"umount {STAGING}")
    assert releases(lab) == before
