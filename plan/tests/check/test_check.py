"""Each thing that can be wrong with a site is found, and a sound one has no finding."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from mpquic_plan.check import CHECKS, Controller, Fleet, Host, Result, judge
from mpquic_plan.check.addresses import literals

if TYPE_CHECKING:
    from collections.abc import Callable

    Told = Callable[..., list[str]]

REFERENCE = ("site1-client", "vps1")


@pytest.mark.parametrize("name", REFERENCE)
def test_a_sound_host_has_one_finding_for_each_check_that_says_so(
    hosts: dict[str, Host], fleet: Fleet, name: str
) -> None:
    found = judge(hosts[name], fleet)
    assert [(each.check, each.result) for each in found] == [(check, Result.OK) for check in CHECKS]


def row(host: Host, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in host.health[1]["tunnels"] if each["name"] == name)
    return found


class TestReleases:
    def test_the_installed_release_is_that_of_the_checkout(self, client: Host, told: Told) -> None:
        client.second["current_release"] = "0.1.0-old"  # type: ignore[index]
        assert told(client) == [f"release: release 0.1.0-old is installed, this checkout is {client.release}"]

    def test_a_host_without_a_release(self, client: Host, told: Told) -> None:
        client.second["current_release"] = None  # type: ignore[index]
        assert told(client)[0].startswith("release: no release is installed")

    def test_what_counts_is_the_process_and_not_the_file(self, client: Host, told: Told) -> None:
        client.second["units"]["mpquic-linkd.service"]["Release"] = "0.1.0-old"
        assert told(client) == [f"release: mpquic-linkd runs release 0.1.0-old, this checkout is {client.release}"]

    def test_where_no_file_tells_what_the_process_states_counts(self, client: Host, told: Told) -> None:
        for name in ("mpquic-linkd", "mpquic@mpq5", "mpquic@mpq6"):
            client.second["units"][f"{name}.service"]["Release"] = None
        versions = [{"name": "mpq5", "release": "0.0.9-ab"}, {"name": "mpq6", "release": "0.2.0-0123456789ab"}]
        client.second["versions"].extend(versions)
        assert told(client) == [f"release: mpquic@mpq5 runs release 0.0.9-ab, this checkout is {client.release}"]
        assert told(client, Result.SKIPPED) == ["release: which release mpquic-linkd runs can't be told"]

    def test_both_ends_of_a_tunnel_are_compared(self, client: Host, vps: Host, told: Told) -> None:
        vps.second["units"]["mpquic@mpq5.service"]["Release"] = "0.1.0-old"
        assert told(client) == [f"release: mpq5 runs release {client.release} here and 0.1.0-old on vps1"]
        assert told(client, vps=None) == []

    def test_a_build_for_another_python_is_the_same_release(self, client: Host, vps: Host, told: Told) -> None:
        vps.second["units"]["mpquic@mpq5.service"]["Release"] = "0.2.0-0123456789ab-3.13-aarch64"
        assert told(client) == []


class TestCertificates:
    def test_the_ca_of_another_fleet(self, client: Host, told: Told, certificate: Callable[..., Any]) -> None:
        (found,) = told(replace(client, ca=certificate("cb")))
        assert found.startswith("certificates: its CA is CB:CB:CB:CB:CB:CB:CB:CB..., the controller's is CA:CA")

    def test_no_ca(self, client: Host, told: Told) -> None:
        assert told(replace(client, ca=None)) == ["certificates: /etc/mpquic/pki/ca.crt is missing or can't be read"]

    def test_a_controller_without_the_ca_compares_nothing(self, client: Host, told: Told) -> None:
        controller = Controller(dt.datetime(2026, 6, 1, tzinfo=dt.UTC), None, "pki/prod/ca.crt")
        assert told(client, controller=controller) == []
        (skipped,) = told(client, Result.SKIPPED, controller=controller)
        assert "pki/prod/ca.crt can't be read" in skipped

    def test_a_certificate_that_the_ca_has_not_signed(
        self, client: Host, told: Told, certificate: Callable[..., Any]
    ) -> None:
        found = told(replace(client, certificate=certificate("ab1", issued_by_ca=False)))
        assert found == ["certificates: /etc/mpquic/pki/site1.crt wasn't signed by the controller's CA"]

    @pytest.mark.parametrize(
        ("days", "said"), [(29.5, "ends in 29 days, on 2026-07-01"), (-0.5, "ended on 2026-06-01"), (30.5, None)]
    )
    def test_a_certificate_that_ends_is_told_thirty_days_ahead(
        self, client: Host, told: Told, certificate: Callable[..., Any], days: float, said: str | None
    ) -> None:
        found = told(replace(client, certificate=certificate("ab1", days)))
        assert found == ([f"certificates: /etc/mpquic/pki/site1.crt {said}"] if said else [])

    def test_a_certificate_that_is_not_valid_yet(
        self, client: Host, told: Told, certificate: Callable[..., Any]
    ) -> None:
        early = replace(certificate("ab1"), not_before=dt.datetime(2026, 6, 2, tzinfo=dt.UTC))
        (found,) = told(replace(client, certificate=early))
        assert found.endswith("site1.crt isn't valid before 2026-06-02 00:00Z")

    def test_a_process_that_runs_with_a_former_certificate(self, client: Host, told: Told) -> None:
        row(client, "mpq5")["certificate"]["serial"] = "FF"
        (found,) = told(client)
        assert found.startswith("certificates: mpq5 runs with another certificate")

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (None, "is missing or can't be read"),
            ("# none\n", "lacks bb2"),
            ("0BB2\nCC:03\n", "has cc03 more"),
            ("# one\n0b:b2\n", None),
        ],
    )
    def test_the_list_of_revoked_certificates(
        self, client: Host, told: Told, text: str | None, said: str | None
    ) -> None:
        client.plan["pki"]["revoked"] = ["BB2"]
        client.second["revoked"] = text  # type: ignore[index]
        assert told(client) == ([f"certificates: its list of revoked certificates {said}"] if said else [])


class TestAddresses:
    def test_a_former_vps_in_an_instance(self, client: Host, told: Told) -> None:
        text = client.survey["instances"]["mpq5"]
        client.survey["instances"]["mpq5"] = text.replace("203.0.113.10", "198.51.100.77")
        assert told(client) == ["addresses: /etc/mpquic/instances/mpq5.yml names 198.51.100.77, which the plan doesn't"]

    def test_an_instance_of_a_tunnel_that_the_plan_does_not_name(self, client: Host, told: Told) -> None:
        client.survey["instances"]["mpq9"] = client.survey["instances"]["mpq5"]
        (found,) = told(client)
        assert found.endswith("mpq9.yml is there, and the plan names no tunnel mpq9")

    def test_files_of_networkd_and_resolvers(self, client: Host, told: Told) -> None:
        client.second["network_files"]["/etc/systemd/network/05-mpquic-x.network"] = (
            "# 198.51.100.1 is only told of\nGateway=198.51.100.2\nAddress=10.200.5.1/32\n"
        )
        client.second["resolv_conf"] = "nameserver 198.51.100.53\n"  # type: ignore[index]
        assert told(client) == [
            "addresses: /etc/systemd/network/05-mpquic-x.network names 198.51.100.2, which the plan doesn't",
            "addresses: /etc/resolv.conf names 198.51.100.53, which the plan doesn't",
        ]

    def test_resolv_conf_of_systemd_resolved_is_not_ours(self, client: Host, told: Told) -> None:
        client.second["resolv_conf"] = "nameserver 198.51.100.53\n"  # type: ignore[index]
        client.survey["resolv_conf"] = "/run/systemd/resolve/stub-resolv.conf"  # type: ignore[index]
        assert told(client) == []

    def test_a_rule_that_was_added_to_the_loaded_table(self, vps: Host, told: Told) -> None:
        vps.second["filter"] += "ip saddr 198.51.100.9 accept"  # type: ignore[index]
        assert told(vps) == [
            "addresses: the loaded table inet mpquic names 198.51.100.9, which /etc/mpquic/nftables.nft doesn't",
            f"filter: {TestFilter.BASE}has besides 'ip saddr 198.51.100.9 accept'",
        ]

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("remote_addr: 203.0.113.10", {"203.0.113.10"}),
            ("[203.0.113.10/32, fd00:1::/64] 2001:DB8::1", {"203.0.113.10", "fd00:1::/64", "2001:db8::1"}),
            ("'::' 0.0.0.0 127.0.0.1 ::1", set()),
            ("0.1.0-ab 12:30:00 urn:mpquic:site:a iface:enp7s7 1.2.3.4.5 300.1.1.1 02:00:5e:00:53:04", set()),
        ],
    )
    def test_what_is_an_address_in_a_text(self, text: str, found: set[str]) -> None:
        assert literals(text) == found


class TestTunnels:
    def test_what_is_seen_in_one_look_only_is_told_so(self, client: Host, told: Told) -> None:
        client.health[0]["problems"][:] = ["a", "b"]
        client.health[1]["problems"][:] = ["b", "c"]
        assert told(client) == ["health: a at first, later no more", "health: b", "health: c later, not at first"]

    def test_a_tunnel_that_does_not_carry_is_told_with_its_reason(self, client: Host, told: Told) -> None:
        row(client, "mpq5").update(state="down", error="no answer")
        for each in client.health:
            each["problems"][:] = ["mpq5 is down although wan5 can be used", "mpq5 says: no answer"]
        assert told(client) == [
            "health: mpq5 is down although wan5 can be used: no answer",
            "health: mpq5 says: no answer",
        ]

    def test_a_host_that_can_not_be_looked_at(self, client: Host, told: Told) -> None:
        broken = replace(client, health=[client.health[0], {"msg": "no module"}])
        assert "health: the host can't be looked at: no module" in told(broken)

    def test_pings_that_are_lost(self, client: Host, told: Told) -> None:
        client.replies["mpq5"]["received"] = 9  # type: ignore[index]
        (found,) = told(client)
        assert found.startswith("tunnels: 1 of 10 pings through mpq5 were lost")

    def test_a_host_without_ping(self, client: Host, told: Told) -> None:
        without = replace(client, replies={"mpq5": {"error": "ping isn't installed"}})
        assert told(without) == []
        assert told(without, Result.SKIPPED) == ["tunnels: mpq5 wasn't pinged: ping isn't installed"]

    def test_a_tunnel_that_is_not_up_is_not_pinged(self, client: Host, told: Told) -> None:
        row(client, "mpq5").update(state="inactive", error="enp7s7: no such device")
        client.replies["mpq5"]["received"] = 0  # type: ignore[index]
        assert told(client) == []
        assert told(client, Result.SKIPPED) == ["tunnels: mpq5 is inactive: enp7s7: no such device"]

    def test_both_ends_see_the_tunnel(self, client: Host, vps: Host, told: Told) -> None:
        row(vps, "mpq5")["peers"][0]["connected"] = False
        row(vps, "mpq6")["peers"] = []
        assert told(client) == [
            "tunnels: mpq5 is up here, and vps1 says that it isn't connected",
            "tunnels: mpq6 is up here, and vps1 doesn't tell of urn:mpquic:site:site1 on port 45006",
        ]

    def test_without_its_vps_a_site_is_compared_with_nothing(self, client: Host, told: Told) -> None:
        assert told(client, vps=None) == []

    def test_a_build_for_another_python_is_the_same_release(self, client: Host, vps: Host, told: Told) -> None:
        vps.second["units"]["mpquic@mpq5.service"]["Release"] = "0.2.0-0123456789ab-3.13-aarch64"
        assert told(client) == []
        (skipped,) = told(client, Result.SKIPPED, vps=None)
        assert skipped.startswith("tunnels: vps1, the VPS of this site, wasn't looked at")

    def test_a_site_that_is_away_is_told_by_its_vps(self, vps: Host, told: Told) -> None:
        row(vps, "mpq5")["peers"][0]["connected"] = False
        assert told(vps, Result.SKIPPED) == [], "the site itself was looked at, and tells"
        assert told(vps, Result.SKIPPED, identities=frozenset()) == [
            "tunnels: mpq5: not connected and not looked at: site1"
        ]
        assert told(vps, identities=frozenset()) == []


class TestHolds:
    HOLD: dict[str, Any] = {
        "by": "alice",
        "reason": "the dish is moved",
        "since": "2026-11-26T10:00:00Z",
        "until": "2026-11-26T18:00:00Z",
        "origin": "operator",
    }

    def test_a_held_tunnel_is_told_with_who_why_and_until_when_and_is_no_failure(
        self, client: Host, told: Told
    ) -> None:
        row(client, "mpq5").update(state="held", hold=self.HOLD)
        client.health[1]["problems"][:] = ["mpq5 is held although wan5 can be used", "mpq6 is down"]
        assert told(client) == ["health: mpq6 is down later, not at first"]
        assert told(client, Result.HELD) == [
            "hold: mpq5 is held by alice until 2026-11-26T18:00:00Z: the dish is moved, since 2026-11-26T10:00:00Z"
        ]

    def test_a_masked_unit_is_held_by_the_operator(
        self, client: Host, told: Told, unit: Callable[..., dict[str, Any]]
    ) -> None:
        masked = unit("mpquic@mpq5.service", LoadState="masked", ActiveState="inactive", UnitFileState="masked")
        client.second["units"]["mpquic@mpq5.service"] = masked
        row(client, "mpq5")["state"] = "down"
        client.health[1]["problems"][:] = ["mpq5 is down although wan5 can be used"]
        assert told(client) == []
        assert told(client, Result.HELD) == ["hold: mpq5 is masked by the operator"]

    def test_a_tunnel_whose_listener_is_masked_is_no_failure_of_the_site(
        self, client: Host, vps: Host, told: Told
    ) -> None:
        vps.second["units"]["mpquic@mpq5.service"]["LoadState"] = "masked"
        row(client, "mpq5")["state"] = "down"
        client.health[1]["problems"][:] = ["mpq5 is down although wan5 can be used"]
        assert told(client) == []
        assert told(client, Result.HELD) == ["hold: mpq5 is out of service at vps1, see there"]
        assert told(client, vps=None) == ["health: mpq5 is down although wan5 can be used later, not at first"]

    def test_one_that_the_peer_holds(self, client: Host, told: Told) -> None:
        row(client, "mpq5").update(state="held", hold={**self.HOLD, "until": None}, hold_at="peer")
        (found,) = told(client, Result.HELD)
        assert found.startswith("hold: mpq5 is held by alice at its peer: the dish is moved")

    def test_one_that_the_variables_disable(self, client: Host, told: Told) -> None:
        client.configs["mpq5"]["enabled"] = False  # type: ignore[index]
        client.survey["instances"]["mpq5"] += "enabled: false"
        del client.second["units"]["mpquic@mpq5.service"]
        for each in client.health:
            each["tunnels"][:] = [one for one in each["tunnels"] if one["name"] != "mpq5"]
        assert told(client) == []
        assert told(client, Result.HELD) == ["hold: mpq5 is held by the variables (enabled: false)"]


class TestRouting:
    @pytest.mark.parametrize(
        ("looks", "suffix"),
        [(("first", "second"), ""), (("first",), " at first, later no more"), (("second",), " later, not at first")],
    )
    def test_a_rule_that_is_missing(self, client: Host, told: Told, looks: tuple[str, ...], suffix: str) -> None:
        for name in looks:
            rules = getattr(client, name)["rules"]
            rules["ipv4"][:] = [rule for rule in rules["ipv4"] if rule["priority"] != 2005]
        assert told(client) == [f"routing: the ipv4 rule 2005: iif enp7s1 lookup 205 is missing{suffix}"]

    def test_a_rule_of_a_source(self, client: Host, told: Told) -> None:
        for look in client.looks:
            look["rules"]["ipv4"][:] = [rule for rule in look["rules"]["ipv4"] if rule["priority"] != 1801]
        assert told(client) == ["routing: the ipv4 rule 1801: from 10.10.11.100/32 lookup 151 is missing"]

    @pytest.mark.parametrize("priority", [1500, 2999, 3000, 100])
    def test_a_rule_in_our_range_that_is_not_planned(self, client: Host, told: Told, priority: int) -> None:
        rule = {"priority": priority, "src": "192.0.2.0", "srclen": 24, "table": "254"}
        for look in client.looks:
            look["rules"]["ipv4"].append(rule)
        ours = [f"routing: the ipv4 rule {priority}: from 192.0.2.0/24 lookup 254 isn't planned"]
        assert told(client) == (ours if 1001 <= priority <= 2999 else [])

    @pytest.mark.parametrize(
        ("family", "gone", "said"),
        [
            ("ipv4", {"type": "7", "table": "205"}, "ipv4 route unreachable default table 205"),
            ("ipv6", {"type": "6", "table": "105"}, "ipv6 route blackhole default table 105"),
            ("ipv4", {"dev": "mpq5", "table": "205"}, "ipv4 route unicast default dev mpq5 table 205"),
            ("ipv4", {"dst": "10.200.5.2"}, "ipv4 route unicast 10.200.5.2/32 dev mpq5 table 254"),
        ],
    )
    def test_floors_and_the_tunnels_routes(
        self, client: Host, told: Told, family: str, gone: dict[str, str], said: str
    ) -> None:
        for look in client.looks:
            routes = look["routes"][family]
            routes[:] = [route for route in routes if not gone.items() <= route.items()]
        assert told(client) == [f"routing: the {said} is missing"]

    @pytest.mark.parametrize("state", [False, None])
    def test_a_wan_that_is_absent_or_has_no_carrier_has_no_rules_yet(
        self, client: Host, told: Told, state: bool | None
    ) -> None:
        for look in client.looks:
            look["links"]["enp7s7"] = state
            if state is None:
                del look["links"]["enp7s7"]
            for family in ("ipv4", "ipv6"):
                look["rules"][family][:] = [rule for rule in look["rules"][family] if rule["priority"] != 1005]
                look["routes"][family][:] = [route for route in look["routes"][family] if route.get("table") != "105"]
        assert told(client) == []

    def test_a_lan_without_carrier_has_them_all_the_same(self, client: Host, told: Told) -> None:
        for look in client.looks:
            look["links"]["enp7s1"] = False
            look["rules"]["ipv6"][:] = [rule for rule in look["rules"]["ipv6"] if rule["priority"] != 2005]
        assert told(client) == ["routing: the ipv6 rule 2005: iif enp7s1 lookup 205 is missing"]


class TestFilter:
    BASE = "the loaded table inet mpquic differs from /etc/mpquic/nftables.nft: it "

    @pytest.mark.parametrize(
        ("loaded", "wanted", "said"),
        [
            ("a\nb\n", " a\n\tb\n", None),
            ("a\n", "a\nb\n", "lacks 'b'"),
            ("a\nb\nb\n", "a\nb\n", "has besides 'b'"),
            ("b\na\n", "a\nb\n", "has its rules in another order"),
            ("x\n", "a\nb\nc\nd\ne\n", "lacks 'a', 'b', 'c' and 2 more and has besides 'x'"),
        ],
    )
    def test_the_loaded_rules_are_those_of_the_file(
        self, vps: Host, told: Told, loaded: str, wanted: str, said: str | None
    ) -> None:
        vps.second.update({"filter": loaded, "filter_wanted": wanted})  # type: ignore[attr-defined]
        assert told(vps) == ([f"filter: {self.BASE}{said}"] if said else [])

    @pytest.mark.parametrize("key", ["filter", "filter_wanted"])
    def test_where_one_is_not_there_nothing_is_compared(self, vps: Host, told: Told, key: str) -> None:
        vps.second[key] = ""  # type: ignore[index]
        assert told(vps) == []
        assert told(vps, Result.SKIPPED) == ["filter: the loaded table inet mpquic can't be compared with its file"]

    @pytest.mark.parametrize(
        ("tables", "said"),
        [
            (["mpquic"], "table inet mpquic, which is loaded as it was then"),
            (["mpquic", "mpquic_guard"], "table inet mpquic and table inet mpquic_guard: nft can't load the file"),
        ],
    )
    def test_a_file_of_the_administrator_with_a_copy_of_our_tables(
        self, vps: Host, told: Told, tables: list[str], said: str
    ) -> None:
        vps.second["saved_tables"] = {"/etc/nftables.conf": tables}  # type: ignore[index]
        assert told(vps) == [f"filter: /etc/nftables.conf holds a copy of {said}"]


class TestPackets:
    def test_a_packet_that_does_not_pass(self, client: Host, told: Told) -> None:
        client.forwarding["problems"] = ["enp7s1 to mpq5: the kernel routes it so: unreachable"]  # type: ignore[index]
        assert told(client) == ["packets: enp7s1 to mpq5: the kernel routes it so: unreachable"]

    def test_a_probe_that_fails_itself(self, client: Host, told: Told) -> None:
        assert told(replace(client, forwarding={"msg": "no tc"})) == ["packets: no packet could be tried: no tc"]

    def test_what_there_is_nothing_to_try_for_is_told(self, client: Host, told: Told) -> None:
        client.forwarding["idle"].append("enp6s20 to mpq1: mpq1 without carrier")
        client.forwarding["untried"].append("enp6s21 to mpq2: this kernel can't be asked")
        assert told(client) == []
        assert told(client, Result.SKIPPED) == [
            "packets: enp6s20 to mpq1: mpq1 without carrier",
            "packets: enp6s21 to mpq2: this kernel can't be asked",
        ]

    def test_a_packet_that_leaves_by_the_fallback_although_the_tunnel_is_up(self, client: Host, told: Told) -> None:
        passed = client.forwarding["passed"]
        passed[passed.index("enp7s1 to mpq5")] = "enp7s1 to enp7s7"
        assert told(client) == ["packets: packets of enp7s1 leave by enp7s7 although mpq5 is up"]
        row(client, "mpq5").update(state="inactive", error="no lease")
        assert told(client) == []


class TestUnits:
    def start(self, host: Host, name: str, ago: float, **more: str) -> None:
        unit = host.second["units"][name]
        unit["ActiveEnterTimestampMonotonic"] = str(int((host.second["monotonic"] - ago) * 1e6))
        unit.update(more)

    def test_a_unit_that_was_restarted_lately(self, client: Host, told: Told) -> None:
        self.start(client, "mpquic@mpq5.service", 42)
        assert told(client) == ["units: mpquic@mpq5.service was started 42 s ago, by neither a boot nor a run"]
        self.start(client, "mpquic@mpq5.service", 601)
        assert told(client) == []

    def test_one_that_a_run_has_restarted(self, client: Host, told: Told) -> None:
        self.start(client, "mpquic@mpq5.service", 42)
        for applied, explained in ((90, True), (110, False)):
            client.second["applied"] = client.second["time"] - applied  # type: ignore[index]
            assert (told(client) == []) is explained

    def test_one_that_ended_and_systemd_has_restarted_is_told_whatever_a_run_did(
        self, client: Host, told: Told
    ) -> None:
        self.start(client, "mpquic@mpq5.service", 42, NRestarts="3")
        client.second["applied"] = client.second["time"] - 42  # type: ignore[index]
        (found,) = told(client)
        assert found.endswith("was started 42 s ago; systemd has restarted it 3 times after it ended")

    def test_a_boot_explains_what_was_started_with_it(self, client: Host, told: Told) -> None:
        client.second.update(uptime=300.0, applied=None)  # type: ignore[attr-defined]
        self.start(client, "mpquic@mpq5.service", 290)
        self.start(client, "mpquic@mpq6.service", 100)
        assert told(client) == ["units: mpquic@mpq6.service was started 100 s ago, by neither a boot nor a run"]
        assert told(client, Result.SKIPPED) == [
            "units: the host was booted 300 s ago: restarts before that aren't known"
        ]

    def test_a_failed_unit(self, client: Host, told: Told) -> None:
        client.second["units"]["mpquic@mpq5.service"].update(ActiveState="failed", Result="watchdog")
        assert told(client) == ["units: mpquic@mpq5.service has failed (watchdog)"]

    @pytest.mark.parametrize(
        ("active", "enabled", "said"),
        [
            ("active", "disabled", "runs, and isn't enabled: it would not come back after a boot"),
            ("inactive", "enabled", "is enabled and is inactive: after a boot it would run"),
            ("inactive", "disabled", None),
            ("inactive", "static", None),
            ("active", "static", None),
        ],
    )
    def test_what_runs_is_what_comes_back(
        self, vps: Host, told: Told, active: str, enabled: str, said: str | None
    ) -> None:
        vps.second["units"]["mpquic-firewall.service"].update(ActiveState=active, UnitFileState=enabled)
        assert told(vps) == ([f"units: mpquic-firewall.service {said}"] if said else [])

    def test_an_instance_without_a_file(self, client: Host, told: Told) -> None:
        del client.survey["instances"]["mpq5"]
        (found,) = told(client)
        assert found.startswith("units: mpquic@mpq5.service runs without a file")

    def test_an_instance_that_is_disabled_and_runs(self, client: Host, told: Told) -> None:
        client.configs["mpq5"]["enabled"] = False  # type: ignore[index]
        assert told(client) == ["units: mpquic@mpq5.service runs although the variables have it disabled"]

    def test_a_unit_file_that_systemd_has_not_read(self, client: Host, told: Told) -> None:
        client.second["units"]["mpquic-linkd.service"]["NeedDaemonReload"] = "yes"
        assert told(client) == ["units: the file of mpquic-linkd.service was changed after systemd has read it"]


def test_files_that_a_run_would_change_are_named(client: Host, told: Told) -> None:
    changed = replace(client, files={"/etc/mpquic/forwarding.conf": "is missing"})
    assert told(changed) == ["files: /etc/mpquic/forwarding.conf is missing"]
