"""A way into every node, machine or namespace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpqlab import topology
from mpqlab.errors import LabError
from mpqlab.run import inside
from mpqlab.topology import BARE, INTERNET, MACHINES, MGMT, NODES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mpqlab.lab import Lab

# A fresh sysfs shows the namespace's own devices; names are resolved by the lab's resolver, never by the controller's.
_NAMESPACE_SHELL = (
    "mount -t sysfs sysfs /sys && "
    'resolver=$(mktemp) && echo "nameserver $1" > "$resolver" && mount --bind "$resolver" /etc/resolv.conf && '
    'rm "$resolver" && shift && exec "$@"'
)


def command(lab: Lab, node: str, argv: Sequence[str]) -> list[str]:
    """Return the command that runs `argv` in a node.

    Raises:
        LabError: there is no such node, or it isn't running.
    """
    if node not in NODES:
        raise LabError(f"there is no node {node!r}: choose one of {', '.join(NODES)}")
    lab.require()
    if node in MACHINES:
        return lab.machines[node].enter(list(argv))
    if node == BARE:
        return lab.bare.enter(list(argv))
    resolver = str(topology.MANAGEMENT[0].controller.ip) if node == MGMT else topology.INTERNET_ADDRESS
    if node == INTERNET:
        resolver = topology.INTERNET_ADDRESS
    return inside(
        node, ["unshare", "--mount", "--propagation", "private", "sh", "-c", _NAMESPACE_SHELL, "sh", resolver, *argv]
    )
