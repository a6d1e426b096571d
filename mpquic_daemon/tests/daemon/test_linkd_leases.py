"""What linkd learns from the instances on a device about its lease."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest
from mpquic.linkd import leases
from mpquic.net.netlink import WanState

from .test_ctl import host, ok, process

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mpquic.linkd.renew import LeaseEvidence

__all__ = ["host"]
V4, V6 = int(socket.AF_INET), int(socket.AF_INET6)
PEERS = {V4: "203.0.113.10:45005", V6: "[2001:db8::10]:45005"}


class Monitor:
    """A device with an address and without a gateway."""

    def state(self, device: str) -> WanState:
        return WanState(device, exists=True, carrier=True, addresses=(ip_address("192.0.2.7"),))


def path(device: str = "wan5", state: str = "up", family: int = V4) -> dict[str, object]:
    return {"path": device, "device": device, "state": state, "peer": PEERS[family]}


def gathered(
    host: Path, monkeypatch: pytest.MonkeyPatch, families: set[int], **answers: Callable[..., bytes]
) -> LeaseEvidence:
    monkeypatch.setattr(leases, "address_stamp", lambda _index, _family: 0)
    monitor: Any = Monitor()
    with ExitStack() as processes:
        for name, answer in answers.items():
            processes.enter_context(process(host, name, answer))
        return asyncio.run(leases.gather(monitor, "wan5", families, ["absent", *answers]))


@pytest.mark.parametrize(
    ("paths", "families", "some", "every"),
    [
        ([path()], {V4}, True, True),
        ([path(state="down")], {V4}, False, False),
        ([path("wan6"), path(state="down")], {V4}, False, False),
        ([path("wan6", "down"), path()], {V4}, True, True),
        ([path(family=V6)], {V4, V6}, True, False),
        ([path(family=V6), path()], {V4, V6}, True, True),
        ([], {V4}, False, False),
    ],
)
def test_who_hears_its_server_over_the_device_itself_says_that_its_lease_is_good(
    host: Path,
    monkeypatch: pytest.MonkeyPatch,
    paths: list[dict[str, object]],
    families: set[int],
    *,
    some: bool,
    every: bool,
) -> None:
    found = gathered(host, monkeypatch, families, mp1=ok(paths), mpq5=ok([path(state="connecting")]))
    assert (found.tunnel_up, found.all_heard) == (some, every)


@pytest.mark.parametrize("answer", [None, 7, {"state": "up"}, ["up"], [{"device": "wan5"}]])
def test_an_answer_that_is_none_says_nothing(host: Path, monkeypatch: pytest.MonkeyPatch, answer: object) -> None:
    found = gathered(host, monkeypatch, {V4}, mpq5=ok(answer))
    assert (found.tunnel_up, found.all_heard) == (False, False)
