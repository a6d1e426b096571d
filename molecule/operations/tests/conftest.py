"""The lab, what the kernels of its machines have, and inventories with edited variables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from mpqlab.edited_site import EditedSite
from mpqlab.fixtures import healed, lab
from mpqlab.testing import Probe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mpqlab.testing import Lab

__all__ = ["healed", "lab"]

CARRYING = (4, 5, 6)
"""Numbers of the WANs, tunnels and LANs that carry."""


@pytest.fixture
def traffic(lab: Lab) -> Iterator[dict[int, Probe]]:
    """A ping every 20 ms through each tunnel that carries, by number."""
    running = {number: Probe(lab, number, interval=0.02) for number in CARRYING}
    for each in running.values():
        each.wait_replies(10, within=20)
    yield running
    for each in running.values():
        each.close()


class Journal:
    """What the journal of a machine has got since this was made."""

    def __init__(self, lab: Lab, node: str) -> None:
        self._lab = lab
        self._node = node
        self._cursor = self._read("-n 1")[0]

    def _read(self, options: str) -> tuple[str, list[str]]:
        out = self._lab.run(self._node, f"journalctl -q --no-pager --show-cursor -o short-iso {options}")
        *lines, cursor = out.splitlines()
        return cursor.removeprefix("-- cursor: "), lines

    def lines(self) -> list[str]:
        """Return all lines of whatever unit."""
        return self._read(f"--after-cursor='{self._cursor}'")[1]


@pytest.fixture
def journals(lab: Lab) -> dict[str, Journal]:
    """The journals of both machines, from here on."""
    return {node: Journal(lab, node) for node in ("client", "vps")}


def put_into_service(lab: Lab) -> None:
    """End every hold and mask of both machines."""
    for node in ("client", "vps"):
        held = [name for name, row in lab.status(node).items() if row["state"] == "held" and row["hold_at"] == "here"]
        for name in held:
            lab.run(node, f"mpquicctl release {name}; systemctl unmask mpquic@{name}", check=False)


@pytest.fixture(autouse=True)
def in_service(lab: Lab) -> Iterator[None]:
    """Leave nothing held by a test that failed."""
    yield
    put_into_service(lab)


@pytest.fixture
def edited_site(lab: Lab, tmp_path: Path) -> Iterator[EditedSite]:
    """`site.yml` with edited variables; the site is as before afterwards."""
    run = EditedSite(tmp_path)
    yield run
    if run.differs:
        put_into_service(lab)
        lab.playbook()
        for number in CARRYING:
            lab.wait_state(f"mpq{number}", "up", within=30)
