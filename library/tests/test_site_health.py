from site_health import link_problems, tunnel_problems, unit_problems


def row(name: str, role: str, state: str) -> dict[str, str]:
    return {"name": name, "role": role, "state": state, "wan": "wan5"}


def test_up_and_inactive_clients_and_listening_servers_are_well() -> None:
    rows = [row("a", "client", "up"), row("b", "client", "inactive"), row("c", "server", "up")]
    assert tunnel_problems(["a", "b", "c"], rows) == []


def test_each_tunnel_that_does_not_carry_is_named() -> None:
    rows = [row("a", "client", "connecting"), row("c", "server", "down")]
    assert tunnel_problems(["a", "b", "c"], rows) == [
        "a is connecting although wan5 can be used",
        "b is not among the instances that mpquicctl lists",
        "c does not listen",
    ]


def test_units_that_are_not_active_are_named() -> None:
    listing = "Id=a.service\nActiveState=active\n\nId=b.service\nActiveState=failed\n"
    assert unit_problems(listing) == ["b.service is failed"]


def test_links_must_be_configured() -> None:
    listing = "  2 mpq5 none no-carrier configured\n  3 mpq6 none off unmanaged\n"
    assert link_problems(listing, ["mpq5", "mpq6", "mpq7"]) == [
        "link mpq6 is unmanaged for systemd-networkd",
        "link mpq7 is not there for systemd-networkd",
    ]
