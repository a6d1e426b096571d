"""The mount at /run/netns, which the first `ip netns add` on a machine makes and nothing ever removes."""

from __future__ import annotations

from pathlib import Path

from mpqlab.errors import LabError
from mpqlab.mounts import mounts_below
from mpqlab.run import run

FOLDER = Path("/run/netns")
# Not below the directory of one lab: the last of several labs that goes takes the mount away.
NOTE = Path("/run/mpqlab-netns")


def note_mount() -> None:
    """Remember, before a namespace is made, whether the machine has had the mount or its directory already."""
    if not _mounted():
        NOTE.write_text("mount\n" if FOLDER.is_dir() else "mount and directory\n")


def release_mount() -> None:
    """Take the mount away if a lab has caused it and no namespace is left, whoever made it."""
    if not NOTE.exists() or (FOLDER.is_dir() and any(FOLDER.iterdir())):
        return
    try:
        while _mounted():
            run(["umount", str(FOLDER)])
    except LabError:
        # A namespace that somebody has just made is mounted there: its maker needs the mount now.
        if any(FOLDER.iterdir()):
            return
        raise
    if "directory" in NOTE.read_text() and FOLDER.is_dir():
        FOLDER.rmdir()
    NOTE.unlink()


def _mounted() -> bool:
    return FOLDER in mounts_below(FOLDER, Path("/proc/self/mountinfo").read_text())
