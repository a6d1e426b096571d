"""How long a repair takes beside very many routes: not among the tests that wait, since it takes the processor."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from waiting import wait_for

from .provisioned import run

if TYPE_CHECKING:
    from .provisioned import Host

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(shutil.which(name) for name in ("ip", "nft", "sysctl")),
        reason="needs root, iproute2, nftables and procps",
    ),
]


def test_a_hundred_thousand_foreign_routes_delay_no_repair_beyond_its_time(host: Host) -> None:
    batch = host.directory / "batch"
    lines = (f"route add 10.{i >> 16}.{i >> 8 & 255}.{i & 255}/32 dev lan5 table 900\n" for i in range(100_000))
    batch.write_text("".join(lines))
    run(f"ip -batch {batch}")
    show = "ip rule show pref 2005; ip route show table 205"
    before = run(show)
    for _ in range(2):  # the second time right after a look at all of them
        run("ip rule del pref 2005; ip route del default dev mpq5 table 205")
        wait_for(lambda: run(show) == before, 10.0)
