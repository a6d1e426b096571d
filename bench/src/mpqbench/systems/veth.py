"""The bare link: what the machine can do without any tunnel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpqbench.systems.base import System

if TYPE_CHECKING:
    from mpqbench.topology import Node


class Veth(System):
    """Nothing but the veth pair."""

    name = "veth"
    benches = System.benches - {"cpu"} | {"lossy"}

    def start(self, a: Node, b: Node) -> None:
        """Only check that the pair works."""
        self.wait_ready(a, b)

    def address(self, node: Node) -> str:
        """Return the outer address."""
        return node.outer
