import json
from pathlib import Path

from site_health import (
    barrier_problems,
    failed_units,
    file_problems,
    filter_problems,
    holders,
    link_problems,
    parameter_problems,
    tunnel_problems,
    unit_problems,
    watcher_problems,
)


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
        "c does not listen: see journalctl -u mpquic@c",
    ]


def test_the_reason_of_a_tunnel_that_is_down_is_repeated() -> None:
    rows = [{**row("a", "client", "down"), "error": "no answer from the server"}]
    assert tunnel_problems(["a"], rows) == ["a is down although wan5 can be used: no answer from the server"]


def test_units_that_are_not_active_are_named() -> None:
    listing = "Id=a.service\nActiveState=active\n\nId=b.service\nActiveState=failed\n"
    assert unit_problems(listing) == ["b.service is failed"]


def test_what_is_out_of_service_on_purpose_is_well_at_both_ends() -> None:
    rows = [row("a", "client", "held"), row("c", "server", "held"), row("b", "client", "down")]
    assert tunnel_problems(["a", "c", "b"], rows) == ["b is down although wan5 can be used"]
    failed = "mpquic@a.service loaded failed failed x\nmpquic@b.service loaded failed failed x\n"
    assert failed_units(failed, rows) == ["mpquic@b.service has failed"]
    assert failed_units(failed, []) == ["mpquic@a.service has failed", "mpquic@b.service has failed"]


def test_a_masked_unit_that_its_watchdog_has_killed_is_not_told_as_failed() -> None:
    assert failed_units("mpquic@a.service masked failed failed mpquic@a.service\n", []) == []


def test_a_unit_that_somebody_has_masked_is_named_with_the_remedy() -> None:
    listing = "Id=mpquic-linkd.service\nLoadState=masked\nActiveState=inactive\n"
    (problem,) = unit_problems(listing)
    assert problem.startswith("mpquic-linkd.service is masked and inactive: somebody has taken it out of service")
    assert problem.endswith("systemctl unmask mpquic-linkd.service, then run site.yml again")


def test_links_must_be_configured() -> None:
    listing = "  2 mpq5 none no-carrier configured\n  3 mpq6 none off unmanaged\n"
    assert link_problems(listing, ["mpq5", "mpq6", "mpq7"]) == [
        "link mpq6 is unmanaged for systemd-networkd",
        "link mpq7 is not there for systemd-networkd",
    ]


def test_links_that_a_file_of_others_has_taken_are_named_wans_too() -> None:
    listing = {
        "Interfaces": [
            {"Name": "enp7s7", "NetworkFile": "/etc/systemd/network/10-netplan-all-en.network"},
            {"Name": "enp7s8", "NetworkFile": "/etc/systemd/network/30-mpquic-enp7s8.network"},
            {"Name": "enp7s6"},
        ]
    }
    assert file_problems(listing, ["enp7s6", "enp7s7", "enp7s8", "enp7s3"]) == [
        "link enp7s6 is configured by no file, not by ours: remove what matches it there",
        (
            "link enp7s7 is configured by /etc/systemd/network/10-netplan-all-en.network, not by ours: "
            "remove what matches it there"
        ),
    ]


def chain(hook: str, policy: str) -> dict[str, dict[str, str]]:
    return {"chain": {"family": "inet", "table": "mpquic", "name": hook, "hook": hook, "policy": policy}}


def test_a_table_that_was_flushed_or_has_lost_a_chain_is_named() -> None:
    remedy = ": systemctl reload mpquic-firewall loads it"
    assert filter_problems({"nftables": []}, ["forward"]) == [f"table inet mpquic isn't loaded{remedy}"]
    listing = {"nftables": [chain("input", "accept"), chain("postrouting", "accept")]}
    assert filter_problems(listing, ["input", "forward", "postrouting"]) == [
        f"table inet mpquic has no chain at the hook forward{remedy}",
        f"table inet mpquic has policy accept at the hook input{remedy}",
    ]


def test_a_missing_table_of_the_guard_is_named_where_something_is_masqueraded() -> None:
    wanted = json.dumps({"masqueraded": [{"device": "cr1", "prefix": "192.168.11.0/24"}]})
    ours = chain("postrouting", "accept")
    [problem] = barrier_problems({"nftables": [ours]}, wanted)
    assert problem.startswith("table inet mpquic_guard is missing")
    barrier = {"chain": {"family": "inet", "table": "mpquic_guard", "name": "postrouting"}}
    assert barrier_problems({"nftables": [ours, barrier]}, wanted) == []
    assert barrier_problems({"nftables": [ours]}, '{"masqueraded": []}') == []
    assert barrier_problems({"nftables": [ours]}, "") == []


def test_parameters_that_keep_packets_from_passing_are_named(tmp_path: Path) -> None:
    values = {
        "net/ipv4/ip_forward": "0",
        "net/ipv6/conf/all/forwarding": "1",
        "net/ipv4/conf/all/rp_filter": "0",
        "net/ipv4/conf/enp7s7/rp_filter": "1",
    }
    for name, value in values.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{value}\n")
    assert parameter_problems(tmp_path, ["enp7s7", "absent"]) == [
        "IPv4 isn't forwarded: net/ipv4/ip_forward is 0",
        "enp7s7 drops what comes in: net/ipv4/conf/enp7s7/rp_filter is 1",
    ]


SOCKETS = (
    'UNCONN 0 0 0.0.0.0:45005 0.0.0.0:* users:(("nginx",pid=123,fd=3),("nginx",pid=124,fd=3))\n'
    "UNCONN 0 0 [::]:46005 [::]:*\n"
    'UNCONN 0 0 100.64.0.100%enp7s8:68 0.0.0.0:* users:(("systemd-network",pid=48,fd=30))\n'
)


def test_a_udp_port_that_is_taken_is_named_with_who_has_it() -> None:
    problems = tunnel_problems(["mpq5"], [row("mpq5", "server", "down")], {"mpq5": [45005]}, SOCKETS)
    assert problems == [
        "mpq5 does not listen: UDP port 45005 is taken by nginx (process 123) and nginx (process 124)",
    ]
    assert holders(SOCKETS, [46005]) == ["UDP port 46005 is taken by the kernel or another container"]
    assert holders(SOCKETS, [45006]) == []


def test_a_link_watcher_that_says_nothing_can_do_its_work() -> None:
    assert watcher_problems("\n") == []
    assert watcher_problems("polkit refuses\n") == ["mpquic-linkd.service: polkit refuses"]
