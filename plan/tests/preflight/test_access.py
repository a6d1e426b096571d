"""The way in that a run came by is there after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpquic_plan.preflight import Host

    Make = Callable[..., Host]
    Told = Callable[..., list[str]]


def came_in(device: str, address: str, port: int = 22) -> tuple[str, Any]:
    return "connection", {"client": "10.10.11.7", "address": address, "port": port, "device": device}


def test_a_sound_bare_client_is_neither_stopped_nor_told_anything(client: Make, problems: Told, notices: Told) -> None:
    assert problems(client()) == notices(client()) == []


def test_a_sound_bare_vps_is_neither_stopped_nor_told_anything(vps: Make, problems: Told, notices: Told) -> None:
    assert problems(vps()) == notices(vps()) == []


def test_a_lan_that_ssh_from_does_not_name_is_no_way_in(client: Make, problems: Told) -> None:
    host = client(came_in("enp7s1", "172.16.5.1"), ("links/enp7s1/addresses", ["172.16.5.1/30"]))
    (only,) = problems(host)
    assert "locked-out: this run came in by enp7s1 (172.16.5.1)" in only
    assert "accepted from enp6s18, enp6s19 alone" in only
    assert "site.firewall.ssh_from" in only


def test_a_lan_that_ssh_from_names_is_a_way_in(client: Make, problems: Told) -> None:
    host = client(came_in("enp7s1", "172.16.5.1"), plan=[("firewall/ssh/devices", ["enp7s1"])])
    assert problems(host) == []


def test_a_tunnel_that_goes_out_of_service_is_no_way_in(client: Make, problems: Told) -> None:
    by_tunnel = came_in("mpq5", "10.200.5.1")
    ssh = ("firewall/ssh/devices", ["enp6s18", "mpq5"])
    assert problems(client(by_tunnel, plan=[ssh])) == []
    (only,) = problems(client(by_tunnel, plan=[ssh, ("instances/4/enabled", False)]))
    assert "locked-out: this run came in by the tunnel mpq5, which the variables take out of service" in only
    assert "come in by another interface" in only


def test_a_lan_that_goes_out_of_service_stays_a_way_in(client: Make, problems: Told) -> None:
    plan = [("firewall/ssh/devices", ["enp7s1"]), ("lans/4/enabled", False)]
    assert problems(client(came_in("enp7s1", "172.16.5.1"), plan=plan)) == []


def test_a_management_card_of_another_name_is_told_with_the_names_that_are_there(client: Make, problems: Told) -> None:
    host = client(came_in("ens18", "10.10.11.100"))
    links = host.survey["links"]
    links["ens18"] = {**links.pop("enp6s18")}
    locked, missing = problems(host)
    assert "locked-out: this run came in by ens18" in locked
    assert "site.management[] mgmt1: there is no interface enp6s18 on the host; did you mean ens18?" in missing
    assert f"ens18 ({links['ens18']['mac']})" in missing


def test_no_management_and_no_other_way_in_is_a_lock_out(client: Make, problems: Told) -> None:
    host = client(plan=[("management", []), ("firewall/ssh/devices", [])])
    assert any("ssh would be accepted from no interface alone" in each for each in problems(host))


def test_an_address_that_the_variables_do_not_give_would_go_away(client: Make, problems: Told) -> None:
    host = client(came_in("enp6s18", "192.0.2.77"), ("links/enp6s18/addresses", ["192.0.2.77/24"]))
    (only,) = problems(host)
    assert "this run came in to 192.0.2.77 on enp6s18, which the variables don't give to the host" in only


@pytest.mark.parametrize("address", ["10.10.11.100", "::ffff:10.10.11.100", "fe80::5054:ff:fe00:100%enp6s18"])
def test_an_address_that_stays_is_seen_in_each_notation(client: Make, problems: Told, address: str) -> None:
    assert problems(client(came_in("enp6s18", address))) == []


@pytest.fixture
def leased(client: Make) -> Make:
    """Makes a client that is reached by a lease, and what systemd-networkd has asked for it with ('': it hasn't)."""

    def make(identifier: str, *changes: tuple[str, Any]) -> Host:
        return client(
            came_in("enp6s18", "192.0.2.77"),
            ("links/enp6s18/addresses", ["192.0.2.77/24"]),
            ("links/enp6s18/lease", {"address": "192.0.2.77" if identifier else "", "client": identifier}),
            *changes,
            plan=[("management/0/dhcp", True), ("management/0/addresses", [])],
        )

    return make


def test_a_lease_of_systemd_networkd_goes_on_after_the_run(leased: Make, problems: Told) -> None:
    assert problems(leased("ff6d70f70002")) == []


@pytest.mark.parametrize("identifier", ["", "01525400000101"])
def test_a_lease_that_was_asked_for_by_another_identifier_may_become_another_address(
    leased: Make, problems: Told, identifier: str
) -> None:
    """Of dhclient, NetworkManager or dhcpcd: https://github.com/Hadron/carthage/issues/122."""
    host = leased(identifier)
    (only,) = problems(host)
    assert "lease: this run came in to 192.0.2.77 on enp6s18, which is no lease of systemd-networkd" in only
    assert f"Reserve 192.0.2.77 for {host.survey['links']['enp6s18']['mac']}" in only
    assert problems(host, ["lease"]) == []
    assert problems(leased(identifier, ("taken_over", {}))) == []


def test_an_address_beside_the_lease_is_told_as_long_as_it_lasts(leased: Make, problems: Told, notices: Told) -> None:
    """systemd-networkd 252 leaves the address of another client until the next boot."""
    other = ("links/enp6s18/lease", {"address": "192.0.2.90", "client": "ff01"})
    assert problems(leased("ff01", other)), "before the first run it may be anybody's"
    later = leased("ff01", other, ("taken_over", {}))
    assert problems(later) == []
    (only,) = notices(later)
    assert "192.0.2.77 on enp6s18, which is gone at the next boot: the lease there is 192.0.2.90" in only


def test_an_address_that_no_interface_has_tells_no_way(client: Make, problems: Told) -> None:
    (only,) = problems(client(came_in("", "192.0.2.77")))
    assert "ssh came in to 192.0.2.77, which no interface of the host has" in only


@pytest.mark.parametrize("role", ["client", "vps"])
def test_a_run_that_did_not_come_by_ssh_locks_nobody_out(
    role: str, request: pytest.FixtureRequest, problems: Told
) -> None:
    assert problems(request.getfixturevalue(role)(("connection", None))) == []


def test_the_public_interface_of_a_vps_stays_as_it_is(vps: Make, problems: Told) -> None:
    assert problems(vps(came_in("eth0", "203.0.113.10"))) == []


@pytest.mark.parametrize(
    ("role", "key"), [("client", "site.firewall.ssh_ports"), ("vps", "vps.ssh_ports")], ids=["client", "vps"]
)
def test_a_port_that_ssh_ports_does_not_open_is_no_way_in(
    role: str, key: str, request: pytest.FixtureRequest, problems: Told
) -> None:
    host = request.getfixturevalue(role)(("connection/port", 2222), plan=[("firewall/ssh/ports", [22, 22022])])
    (only,) = problems(host)
    assert only == (
        f"locked-out: this run came in by port 2222, and {key} opens 22, 22022 alone; add the port, or set auto"
    )


def test_auto_keeps_the_port_of_the_connection(client: Make, problems: Told) -> None:
    assert problems(client(("connection/port", 2222))) == []


def test_a_management_address_on_another_card_would_be_there_twice(client: Make, problems: Told) -> None:
    host = client(("links/enp6s19/addresses", ["10.10.11.100/24"]), ("links/enp6s18/addresses", []))
    assert any("10.10.11.100, the address of mgmt1 on enp6s18, is on enp6s19 at present" in p for p in problems(host))


def test_a_lease_of_a_wan_may_equal_a_management_address(client: Make, problems: Told) -> None:
    assert problems(client(("links/enp7s3/addresses", ["10.10.11.100/24"]))) == []


@pytest.mark.parametrize("accept", ["locked-out", "missing-device", "all"])
def test_a_lock_out_can_not_be_accepted(client: Make, problems: Told, accept: str) -> None:
    assert problems(client(came_in("", "192.0.2.77")), [accept])


def test_a_way_in_by_ssh_that_nothing_tells_of_may_be_a_lock_out(client: Make, vps: Make, problems: Told) -> None:
    """run0 and machinectl have systemd start the command: sshd isn't among its parents."""
    (only,) = problems(client(("connection", None), ("by_ssh", True)))
    assert "locked-out: this run came in by ssh, and nothing on the host tells by which interface" in only
    assert problems(client(("connection", None), ("by_ssh", False))) == []
    assert problems(vps(("connection", None), ("by_ssh", True))) == []


def came_from(client: str, device: str = "enp6s18", address: str = "10.10.11.100") -> tuple[str, Any]:
    return "connection", {"client": client, "address": address, "port": 22, "device": device}


NO_GATEWAY = [("management/0/routes", []), ("management/0/rules", []), ("management/0/egress", False)]


def test_a_controller_beyond_a_gateway_that_the_variables_do_not_state_would_get_no_reply(
    client: Make, problems: Told
) -> None:
    """The default route that ifupdown or a lease had is gone afterwards, and with it the way back to a bastion."""
    (only,) = problems(client(came_from("198.51.100.20"), plan=NO_GATEWAY))
    assert "locked-out: this run came in by enp6s18 from 198.51.100.20, and no route of the site leads back" in only
    assert "site.management[].gateway" in only


@pytest.mark.parametrize("where", ["198.51.100.20", "::ffff:198.51.100.20", "10.10.11.7", "fe80::7%enp6s18"])
def test_a_controller_in_the_subnet_or_behind_the_stated_gateway_gets_replies(
    client: Make, problems: Told, where: str
) -> None:
    assert problems(client(came_from(where))) == []


def test_the_gateway_of_another_management_interface_leads_back_by_the_main_table(client: Make, problems: Told) -> None:
    host = client(
        came_from("198.51.100.20", "enp6s19", "10.10.10.100"), ("links/enp6s19/addresses", ["10.10.10.100/24"])
    )
    assert problems(host) == []


def test_gateways_of_management_do_not_lead_back_to_a_controller_on_ipv6(client: Make, problems: Told) -> None:
    host = client(
        came_from("2001:db8:9::20", address="2001:db8::100"),
        ("links/enp6s18/addresses", ["2001:db8::100/64"]),
        plan=[("management/0/addresses", ["10.10.11.100/24", "2001:db8::100/64"])],
    )
    (only,) = problems(host)
    assert "come in by IPv4, or from the interface's own subnet" in only
    near = client(
        came_from("2001:db8::7", address="2001:db8::100"),
        ("links/enp6s18/addresses", ["2001:db8::100/64"]),
        plan=[("management/0/addresses", ["10.10.11.100/24", "2001:db8::100/64"])],
    )
    assert problems(near) == []


@pytest.mark.parametrize(("egress", "told"), [(True, 0), (False, 1)])
def test_of_leases_only_that_of_the_egress_brings_a_default_route(
    client: Make, problems: Told, egress: bool, told: int
) -> None:
    lease = [
        ("management/0/dhcp", True),
        ("management/0/addresses", []),
        ("management/0/routes", []),
        ("management/0/rules", []),
        ("management/0/egress", egress),
    ]
    asked = ("taken_over", {})
    assert len(problems(client(came_from("198.51.100.20"), asked, plan=lease))) == told
    assert problems(client(came_from("10.10.11.7"), asked, plan=lease)) == [], "its own subnet is that of the lease"


def test_a_network_behind_a_router_of_a_lan_is_reached_by_it(client: Make, problems: Told) -> None:
    plan: list[tuple[str, Any]] = [("firewall/ssh/devices", ["enp7s1"]), *NO_GATEWAY]
    host = client(
        came_from("192.0.2.9", "enp7s1", "172.16.5.1"), ("links/enp7s1/addresses", ["172.16.5.1/30"]), plan=plan
    )
    assert len(problems(host)) == 1
    (lan,) = [item for item in host.plan["lans"] if item["device"] == "enp7s1"]
    lan["routes"].append({"type": "unicast", "destination": "192.0.2.0/24", "gateway": "172.16.5.2", "table": None})
    assert problems(host) == []


def test_replies_by_a_tunnel_are_the_affair_of_the_vps(client: Make, problems: Told) -> None:
    host = client(came_from("192.0.2.9", "mpq5", "10.200.5.1"), plan=[("firewall/ssh/devices", ["mpq5"])])
    host.plan["tuns"][4]["addresses"] = ["10.200.5.1/32"]
    assert problems(host) == []


def test_a_connection_that_is_not_ip_is_no_way_in_that_can_be_judged(client: Make, problems: Told) -> None:
    """systemd 257 has sshd listen on AF_VSOCK in a virtual machine."""
    (only,) = problems(client(came_from("UNKNOWN", "", "UNKNOWN")))
    assert "ssh came in to UNKNOWN, which no interface of the host has" in only
    assert problems(client(came_from("UNKNOWN"))) == []
