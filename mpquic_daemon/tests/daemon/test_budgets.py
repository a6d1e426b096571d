"""All QUIC connections of an identity count in one budget of memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .conftest import IDENTITY, Site
from .virtual import Ends

if TYPE_CHECKING:
    from pathlib import Path


def test_a_registered_connection_counts_in_the_budget_of_its_identity(tmp_path: Path) -> None:
    ends = Ends(Site(tmp_path), transport="quic")
    try:
        ends.wait(lambda: ends.state == "up", 5.0, "up")
        (connection,) = ends.server._connections
        budget = connection.link._connection.budget
        assert budget is ends.server._registry._budgets.of(IDENTITY)
        assert len(budget) == 1
        ends.processes["cl"].call(lambda: ends.client.reconnect(silent=False))
        ends.run(3.0)
        (newer,) = ends.server._connections
        assert newer is not connection
        assert newer.link._connection.budget is budget
        assert len(budget) == 1
    finally:
        ends.close()
