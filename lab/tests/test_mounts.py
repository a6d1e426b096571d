"""Which mounts have to go before a directory is deleted."""

from __future__ import annotations

from pathlib import Path

from mpqlab.mounts import mounts_below

MOUNTINFO = """\
21 1 8:1 / / rw - ext4 /dev/vda rw
30 21 0:40 / /var/lib/mpqlab/client/root rw - overlay mpqlab rw
31 30 0:41 / /var/lib/mpqlab/client/root/proc rw shared:5 - proc proc rw
32 21 0:42 / /var/lib/mpqlab-other/client/root rw - overlay mpqlab rw
33 21 0:43 / /var/lib/mpqlab/with\\040space rw - tmpfs tmpfs rw
"""


def test_only_mounts_below_the_directory_are_found_in_their_order() -> None:
    assert mounts_below(Path("/var/lib/mpqlab"), MOUNTINFO) == [
        Path("/var/lib/mpqlab/client/root"),
        Path("/var/lib/mpqlab/client/root/proc"),
        Path("/var/lib/mpqlab/with space"),
    ]


def test_a_directory_that_is_itself_a_mount_counts() -> None:
    assert mounts_below(Path("/var/lib/mpqlab-other/client/root"), MOUNTINFO) == [
        Path("/var/lib/mpqlab-other/client/root")
    ]
