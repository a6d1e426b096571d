"""What the roles take of the plan where something is out of service on purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from mpquic_plan import build

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


@pytest.fixture
def filters(plugin: Callable[[str], ModuleType]) -> ModuleType:
    return plugin("filter/mpquic")


def _plan(**site: Any) -> dict[str, Any]:
    variables: dict[str, Any] = {
        "name": "site1",
        "site_id": 1,
        "management": [{"name": "mgmt1", "address": "10.10.11.100/24", "gateway": "10.10.11.1"}],
        "wans": [{"name": "wan4"}, {"name": "wan5"}],
        **site,
    }
    hosts = {"site1-client": {"site": variables}, "vps1": {"vps": {"address": "203.0.113.10"}}}
    return build(hosts)["site1-client"]


def test_a_wan_and_a_lan_that_is_out_of_service_may_be_absent(filters: ModuleType) -> None:
    plan = _plan(lans=[{"name": "lan4"}, {"name": "lan5", "enabled": False, "vlans": [{"id": 20, "tunnel": "mpq5"}]}])
    assert filters.optional_links(plan) == ["enp7s6", "enp7s7", "enp7s1", "enp7s1.20"]
    assert filters.configured_links(plan) == ["enp6s18", "enp6s23", "mpq4", "mpq5"]


def test_a_vlan_whose_priority_changes_is_another_device(filters: ModuleType) -> None:
    vlans = [
        {"id": 20, "tunnel": "mpq4", "pcp": 5},
        {"id": 21, "tunnel": "mpq4", "pcp": 0},
        {"id": 22, "tunnel": "mpq4"},
    ]
    plan = _plan(lans=[{"name": "lan4", "vlans": vlans}, {"name": "lan5"}])
    shown = {link["name"]: link["properties"].get("egress_qos") for link in filters.virtual_links(plan)}
    assert shown["enp6s23.20"] == [{"from": priority, "to": 5} for priority in range(16)]
    # The kernel shows no map to priority 0.
    assert shown["enp6s23.21"] is shown["enp6s23.22"] is None


def test_no_packet_is_probed_from_a_lan_that_is_out_of_service(filters: ModuleType) -> None:
    lan5 = {"name": "lan5", "fallback": "wan4"}
    probed = filters.passages(_plan(lans=[{"name": "lan4"}, lan5]), "")
    assert [(each["from"], each["to"]) for each in probed] == [("enp6s23", ["mpq4"]), ("enp7s1", ["mpq5", "enp7s6"])]
    probed = filters.passages(_plan(lans=[{"name": "lan4"}, {**lan5, "enabled": False}]), "")
    assert [(each["from"], each["to"]) for each in probed] == [("enp6s23", ["mpq4"])]
    # A fallback that is out of service is no way out either.
    wans = [{"name": "wan4", "enabled": False}, {"name": "wan5"}]
    probed = filters.passages(_plan(wans=wans, lans=[{"name": "lan4"}, lan5]), "")
    assert [(each["from"], each["to"]) for each in probed] == [("enp6s23", ["mpq4"]), ("enp7s1", ["mpq5"])]
