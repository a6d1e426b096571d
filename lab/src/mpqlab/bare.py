"""The bare node: a Debian root file system that nothing has booted, entered with namespaces of its own.

It costs a mount and no memory. A run that takes it for a site has Python and root there, and no systemd that answers;
whatever the run writes stays in the node's own overlay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpqlab.machine import STORAGE, login_environment
from mpqlab.mounts import mount_overlay, remove_tree
from mpqlab.run import inside
from mpqlab.topology import BARE

if TYPE_CHECKING:
    from pathlib import Path

    from mpqlab.image import Image


class BareNode:
    """The node's root file system and the way in."""

    def __init__(self, storage: Path = STORAGE) -> None:
        self._storage = storage / BARE
        self.root = self._storage / "root"

    def create(self, image: Image) -> None:
        """Mount its root file system."""
        if not self.root.is_mount():
            mount_overlay(self.root, image.layers(BARE), self._storage / "upper", self._storage / "work")

    def enter(self, argv: list[str]) -> list[str]:
        """Return the command that runs `argv` as root in the node, where it is the only process."""
        # With a process namespace of its own no process 1 looks like a running systemd.
        unshare = ["unshare", "--mount", "--ipc", "--pid", "--fork", "--kill-child"]
        root = [f"--root={self.root}", "--wd=/", "--mount-proc"]
        return inside(BARE, [*unshare, *root, "env", "-i", *login_environment(), *argv])

    def delete(self) -> None:
        """Unmount and remove its root file system."""
        remove_tree(self._storage)
