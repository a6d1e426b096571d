"""Overlay mounts, and the removal of directories that may hold mounts."""

from __future__ import annotations

import contextlib
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from mpqlab.run import run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@contextlib.contextmanager
def overlay(point: Path, lower: Sequence[Path], upper: Path, work: Path) -> Iterator[Path]:
    """Mount an overlay for the duration of a block."""
    mount_overlay(point, lower, upper, work)
    try:
        yield point
    finally:
        run(["umount", str(point)])
        point.rmdir()
        shutil.rmtree(work)


def mount_overlay(point: Path, lower: Sequence[Path], upper: Path, work: Path) -> None:
    """Mount an overlay at `point`; `lower` lists the read-only layers, the topmost first."""
    for folder in (point, upper, work):
        folder.mkdir(parents=True, exist_ok=True)
    layers = ":".join(str(layer) for layer in lower)
    options = f"lowerdir={layers},upperdir={upper},workdir={work}"
    run(["mount", "-t", "overlay", "mpqlab", "-o", options, str(point)])


def remove_tree(folder: Path) -> None:
    """Unmount what is mounted in `folder` and delete it.

    A debootstrap that was killed leaves /proc mounted in its target: nothing may be deleted through that.

    Raises:
        LabError: a mount is busy.
    """
    for point in reversed(mounts_below(folder, Path("/proc/self/mountinfo").read_text())):
        run(["umount", str(point)])
    if folder.exists():
        shutil.rmtree(folder)


def mounts_below(folder: Path, mountinfo: str) -> list[Path]:
    """Return the mount points at or below `folder` in the order in which they were mounted; see proc(5)."""
    points = (Path(_unescape(line.split()[4])) for line in mountinfo.splitlines())
    return [point for point in points if point.is_relative_to(folder)]


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
