"""Copies of a machine are told."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpquic_plan.preflight import Host

    Make = Callable[..., Host]
    Told = Callable[..., list[str]]

OWN = "fec4cda5c7624095ab75fd2e4196d08d"


def test_two_hosts_of_one_machine_id_are_told_of_each_other(client: Make, problems: Told, notices: Told) -> None:
    """systemd-networkd derives its DHCP identity from it: https://github.com/systemd/systemd/issues/9609."""
    host = replace(client(("machine_id", OWN)), machine_ids={"site2-client": OWN, "vps1": "0" * 32})
    assert problems(host) == []
    (only,) = notices(host)
    assert "clone: /etc/machine-id is that of site2-client, too" in only


def test_hosts_without_a_machine_id_are_no_copies_of_each_other(client: Make, notices: Told) -> None:
    assert notices(replace(client(("machine_id", "")), machine_ids={"site2-client": ""})) == []
    assert notices(replace(client(("machine_id", OWN)), machine_ids={"vps1": "0" * 32})) == []
