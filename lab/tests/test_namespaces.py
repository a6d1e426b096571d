"""The mount at /run/netns, in a mount namespace of its own with an empty /run."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.root

# The namespaces are only seen in the private /run, and vanish with it.
SCRIPT = """
import subprocess
from mpqlab import namespaces

def ip(*words):
    subprocess.run(["ip", "netns", *words], check=True)

def mounted():
    return any(line.split()[4] == "/run/netns" for line in open("/proc/self/mountinfo"))

{body}
"""

# The unmounting is this mount namespace's alone: nothing of it is seen outside.
HIDE_RUN = 'if mountpoint -q /run/netns; then umount --lazy /run/netns; fi; mount -t tmpfs x /run; exec "$@"'


def in_an_empty_run(body: str) -> None:
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", HIDE_RUN, "sh"]
    done = subprocess.run(
        [*command, sys.executable, "-c", SCRIPT.format(body=body)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_mount_of_the_first_namespace_goes_with_the_last() -> None:
    in_an_empty_run(
        """
namespaces.note_mount()
ip("add", "one")
namespaces.note_mount()
ip("add", "two")
ip("delete", "one")
namespaces.release_mount()
assert mounted(), "another namespace is still there"
ip("delete", "two")
namespaces.release_mount()
assert not mounted() and not namespaces.FOLDER.exists() and not namespaces.NOTE.exists()
"""
    )


def test_a_mount_that_was_there_before_stays() -> None:
    in_an_empty_run(
        """
ip("add", "other")
ip("delete", "other")
namespaces.note_mount()
ip("add", "one")
ip("delete", "one")
namespaces.release_mount()
assert mounted() and not namespaces.NOTE.exists()
"""
    )


def test_a_folder_that_was_there_before_stays() -> None:
    in_an_empty_run(
        """
namespaces.FOLDER.mkdir()
namespaces.note_mount()
ip("add", "one")
ip("delete", "one")
namespaces.release_mount()
assert not mounted() and namespaces.FOLDER.is_dir() and not namespaces.NOTE.exists()
"""
    )
