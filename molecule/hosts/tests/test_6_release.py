"""A release comes by a folder of root's alone; what keeps it from being installed is told, and nothing is half done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mpqlab.testing import Lab

STAGING = "/var/lib/mpquic/staging"
LOCK = Path(__file__).parents[3] / "requirements/daemon.txt"
HOLDER = """
import socket, time
held = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
while True:
    try:
        held.bind(("::", 45005))
        break
    except OSError:
        time.sleep(0.01)
time.sleep(600)
"""


@pytest.fixture
def another_release(tmp_path: Path) -> list[str]:
    """Arguments that make another release of the same wheels, on a controller that reaches no package index."""
    lock = tmp_path / "daemon.txt"
    lock.write_text(f"{LOCK.read_text()}# {tmp_path}\n")
    variables = {"daemon_requirements": str(lock), "daemon_pip": ["/bin/false"], "verify_deadline": 10}
    return ["--limit", "vps1", "--tags", "daemon,verify", "-e", json.dumps(variables)]


def failure(lab: Lab, arguments: list[str]) -> str:
    with pytest.raises(AssertionError) as caught:
        lab.playbook(*arguments)
    return str(caught.value)


def releases(lab: Lab) -> str:
    return lab.run("vps", "ls /opt/mpquic/releases; readlink /opt/mpquic/current")


def test_where_only_the_daemon_differs_nothing_is_downloaded(lab: Lab, another_release: list[str]) -> None:
    before = releases(lab)
    lab.playbook(*another_release)
    assert releases(lab) != before
    assert lab.run("vps", f"ls -A {STAGING}; stat -c '%U %a' {STAGING}").strip() == "root 700"


def test_a_symbolic_link_in_place_of_the_folder_is_refused(lab: Lab, another_release: list[str]) -> None:
    before = releases(lab)
    lab.run("vps", f"rm -rf {STAGING}; mkdir -p /root/theirs; ln -s /root/theirs {STAGING}")
    try:
        assert f"{STAGING} is a symbolic link, which no run of ours made" in failure(lab, another_release)
        assert releases(lab) == before
        assert lab.run("vps", "ls -A /root/theirs") == ""
    finally:
        lab.run("vps", f"rm -rf {STAGING} /root/theirs")


def test_a_full_disk_is_named(lab: Lab, another_release: list[str]) -> None:
    before = releases(lab)
    lab.run("vps", f"mkdir -p -m 700 {STAGING} && mount -t tmpfs -o size=3m,mode=700 none {STAGING}")
    try:
        assert f"the disk is full: {STAGING} needs" in failure(lab, another_release)
        assert lab.run("vps", f"ls -A {STAGING}") == ""
    finally:
        lab.run("vps", f"umount {STAGING}")
    assert releases(lab) == before


def test_a_port_that_is_taken_is_named_and_the_tunnel_heals_when_it_is_free(lab: Lab) -> None:
    lab.run("vps", f"cat >/root/holder.py <<'END'\n{HOLDER}END")
    try:
        lab.run("vps", "systemd-run --quiet --unit=holder python3 /root/holder.py; systemctl stop mpquic@mpq5.service")
        told = failure(lab, ["--limit", "vps1", "--tags", "verify", "-e", "verify_deadline=3"])
        assert "mpq5 does not listen: UDP port 45005 is taken by python3 (process " in told
    finally:
        lab.run("vps", "systemctl stop holder.service; rm /root/holder.py")
    lab.wait_state("mpq5", "up", within=60)
