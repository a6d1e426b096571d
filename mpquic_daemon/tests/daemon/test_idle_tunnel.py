"""What a tunnel sends while nobody uses it and nobody looks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from mpquic.proto.path.liveness import QUIET_LIMIT
from mpquic.proto.stripe.pipes import LIVELY_TIME, SELDOM_INTERVAL

from .conftest import Site
from .virtual import Ends

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SETTLED = 2 * LIVELY_TIME
"""Seconds after which it has found the path's MTU, and nobody has looked for long."""
TIME = 60.0
QUIET_COST = 12
"""Datagrams of a look at the connection that doesn't carry, each `QUIET_LIMIT` seconds: probes, replies and
acknowledgements, and probes in addition while the first is under way."""


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Ends]:
    ends = Ends(Site(tmp_path), probes=False, transport="stripe")
    ends.wait(lambda: ends.session, 5.0, "striped")
    yield ends
    ends.close()


@pytest.mark.parametrize("delay", [0.001, 0.02, 0.3])
def test_an_idle_striped_tunnel_sends_requests_and_replies_and_hardly_anything_else(both: Ends, delay: float) -> None:
    both.network.delay = delay
    entered = both.states()
    both.run(SETTLED)
    before = both.network.sent
    both.run(TIME)
    requests = TIME / SELDOM_INTERVAL
    assert requests < both.network.sent - before <= 2 * (requests + 1) + QUIET_COST * TIME / QUIET_LIMIT
    assert entered == []
