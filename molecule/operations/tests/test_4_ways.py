"""Which way a packet takes is told and proven by counters, through a tunnel and beside it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from mpqlab.testing import INTERNET, INTERNET6

if TYPE_CHECKING:
    from mpqlab.testing import Lab


def test_a_packet_of_a_lan_is_traced_and_proven_out_and_back(lab: Lab) -> None:
    for target in (INTERNET, INTERNET6):
        way = json.loads(lab.run("client", f"mpquicctl trace lan5 {target} --send --json"))
        assert (way["outcome"], way["route"]["device"], way["kernel"]["agrees"]) == ("leaves", "mpq5", True)
        assert way["sent"]["proven"] is True


def test_a_lan_without_a_tunnel_that_carries_is_told_so(lab: Lab) -> None:
    told = lab.run("client", f"mpquicctl trace lan1 {INTERNET} tcp 443", check=False)
    assert "mpq1 is inactive: enp7s3: no such device" in told
    assert "unreachable" in told
