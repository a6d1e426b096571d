"""linkd runs what has a usable WAN, and renews a lease without disturbing tunnels that are up."""

import itertools
import socket
from pathlib import Path

import pytest
import yaml
from mpquic import config
from mpquic.config import InstanceConfig
from mpquic.linkd import instances
from mpquic.linkd.reconcile import Action, Reconciler
from mpquic.linkd.renew import LeaseEvidence, Rediscovery, RenewLimiter, parse_request
from mpquic.linkd.systemd import parse_units

INSTANCES = {"mpq4": ("wan4",), "mpq5": ("wan5",), "srv": ()}
NONE: set[str] = set()
CLIENT = {
    "name": "mpq5",
    "role": "client",
    "site": "site1",
    "tun_name": "mpq5",
    "bind_ip": "iface:wan5",
    "inner_addresses": ["10.200.5.1/32"],
    "remote_addr": "203.0.113.10",
    "remote_port": 45005,
    "tls": {"ca_file": "/a", "cert_file": "/b", "key_file": "/c", "server_name": "vps1"},
}


def test_only_instances_with_a_usable_wan_and_servers_are_started() -> None:
    actions = Reconciler().decide(INSTANCES, NONE, {"wan5"}, NONE, 0.0)
    assert actions == [Action("start", "mpq5"), Action("start", "srv")]


def test_what_runs_as_it_should_is_left_alone() -> None:
    assert Reconciler().decide(INSTANCES, NONE, {"wan4", "wan5"}, {"mpq4", "mpq5", "srv"}, 0.0) == []


def test_an_instance_whose_wan_went_is_stopped_only_after_the_hold_time() -> None:
    reconciler = Reconciler(hold=10.0)
    running = {"mpq5", "srv"}
    assert reconciler.decide(INSTANCES, NONE, NONE, running, 100.0) == []
    assert reconciler.next_time(running, 100.0) == 110.0
    assert reconciler.decide(INSTANCES, NONE, NONE, running, 109.9) == []
    assert reconciler.decide(INSTANCES, NONE, NONE, running, 110.0) == [Action("stop", "mpq5")]
    assert reconciler.next_time(running, 110.0) is None


def test_a_wan_that_returns_within_the_hold_time_begins_a_new_hold_when_it_goes_again() -> None:
    reconciler = Reconciler(hold=10.0)
    reconciler.decide(INSTANCES, NONE, NONE, {"mpq5", "srv"}, 0.0)
    reconciler.decide(INSTANCES, NONE, {"wan5"}, {"mpq5", "srv"}, 5.0)
    assert reconciler.decide(INSTANCES, NONE, NONE, {"mpq5", "srv"}, 12.0) == []
    assert reconciler.decide(INSTANCES, NONE, NONE, {"mpq5", "srv"}, 22.0) == [Action("stop", "mpq5")]


def test_an_instance_over_two_wans_needs_one_of_them() -> None:
    instances = {"mp1": ("wan5", "wan6")}
    assert Reconciler().decide(instances, NONE, {"wan6"}, NONE, 0.0) == [Action("start", "mp1")]


def test_a_start_that_does_not_succeed_is_repeated_with_growing_pauses() -> None:
    reconciler = Reconciler()
    asked = [t for t in range(200) if reconciler.decide({"srv": ()}, NONE, NONE, NONE, float(t))]
    assert asked == [0, 5, 15, 35, 75, 155]


def test_a_start_after_a_long_run_is_no_repetition() -> None:
    reconciler = Reconciler()
    for second in range(200):
        reconciler.decide({"srv": ()}, NONE, NONE, NONE, float(second))
    assert reconciler.decide({"srv": ()}, NONE, NONE, NONE, 201.0) == []
    reconciler.decide({"srv": ()}, NONE, NONE, {"srv"}, 202.0)
    reconciler.decide({"srv": ()}, NONE, NONE, {"srv"}, 212.0)
    asked = [t for t in range(213, 260) if reconciler.decide({"srv": ()}, NONE, NONE, NONE, float(t))]
    assert asked == [213, 218, 228, 248]


def test_an_instance_that_starts_and_dies_at_once_does_not_end_its_pauses() -> None:
    reconciler = Reconciler()
    asked = []
    for second in range(200):
        running = {"srv"} if asked and second - asked[-1] <= 2 else NONE
        if reconciler.decide({"srv": ()}, NONE, NONE, running, float(second)):
            asked.append(second)
    assert asked == [0, 5, 15, 35, 75, 155]


def test_a_changed_file_or_wan_ends_the_pauses_of_its_instance_alone() -> None:
    reconciler = Reconciler()
    instances = {"mpq5": ("wan5",), "mp1": ("wan5", "wan6"), "srv": ()}
    for second in range(100):
        reconciler.decide(instances, NONE, {"wan5"}, NONE, float(second))
    assert reconciler.decide(instances, NONE, {"wan5"}, NONE, 100.0) == []
    assert reconciler.decide(instances, NONE, {"wan5", "wan6"}, NONE, 101.0) == [Action("start", "mp1")]
    assert reconciler.decide(instances, NONE, {"wan5", "wan6"}, NONE, 102.0, {"srv"}) == [Action("start", "srv")]


def test_an_instance_without_a_file_is_stopped_and_one_with_an_unreadable_file_is_not_touched() -> None:
    reconciler = Reconciler(hold=0.0)
    assert reconciler.decide({}, {"odd"}, NONE, {"old", "odd"}, 0.0) == [Action("stop", "old")]
    assert reconciler.decide({}, {"odd"}, NONE, NONE, 1.0) == []


def test_a_stopped_instance_is_started_at_once_when_its_wan_returns() -> None:
    reconciler = Reconciler(hold=1.0)
    reconciler.decide(INSTANCES, NONE, {"wan5"}, {"srv"}, 0.0)
    reconciler.decide(INSTANCES, NONE, NONE, {"mpq5", "srv"}, 1.0)
    assert reconciler.decide(INSTANCES, NONE, NONE, {"mpq5", "srv"}, 2.0) == [Action("stop", "mpq5")]
    reconciler.decide(INSTANCES, NONE, NONE, {"srv"}, 2.5)
    assert reconciler.decide(INSTANCES, NONE, {"wan5"}, {"srv"}, 3.0) == [Action("start", "mpq5")]


OLD = frozenset({(4, "10.150.19.95"), (4, "10.150.19.1", 105)})


def evidence(*, up: bool = False, failed: bool = False, stamp: int = 1, stamp6: int = 0) -> LeaseEvidence:
    stamps = {(2, stamp), (10, stamp6)} if stamp6 else {(2, stamp)}
    return LeaseEvidence(up, failed, frozenset(stamps), OLD)


def test_a_first_request_renews_and_an_unanswered_one_is_followed_by_a_new_configuration() -> None:
    limiter = RenewLimiter()
    assert limiter.decide("wan5", evidence(stamp=1), 0.0) == "renew"
    assert limiter.decide("wan5", evidence(stamp=1), 10.0) == "reconfigure"


def test_a_lease_that_the_server_confirmed_is_not_thrown_away() -> None:
    limiter = RenewLimiter()
    assert limiter.decide("wan5", evidence(stamp=1), 0.0) == "renew"
    assert limiter.decide("wan5", evidence(stamp=2), 10.0) == "renew"


def test_a_gateway_that_does_not_resolve_means_a_new_configuration_at_once() -> None:
    assert RenewLimiter().decide("wan5", evidence(failed=True), 0.0) == "reconfigure"


def test_a_device_with_a_tunnel_up_is_never_reconfigured() -> None:
    limiter = RenewLimiter()
    assert limiter.decide("wan5", evidence(up=True, failed=True), 0.0) == "renew"
    assert limiter.decide("wan5", evidence(up=True, failed=True), 10.0) == "renew"


def test_requests_are_limited_for_each_device_by_itself() -> None:
    limiter = RenewLimiter()
    allowed = [t for t in range(200) if limiter.decide("wan5", evidence(), float(t))]
    assert allowed == [0, 8, 24, 56, 120]
    assert limiter.decide("wan6", evidence(), 199.0) == "renew"


def test_a_lease_that_gives_something_new_ends_the_pauses() -> None:
    limiter = RenewLimiter()
    assert [t for t in range(60) if limiter.decide("wan5", evidence(), float(t))] == [0, 8, 24, 56]
    limiter.seen("wan5", OLD | {(4, "10.150.20.95")})
    assert limiter.decide("wan5", evidence(), 60.0) == "renew"


def test_an_address_that_a_reconfiguration_took_away_and_brought_back_is_nothing_new() -> None:
    limiter = RenewLimiter()
    asked = []
    for second in range(200):
        if limiter.decide("wan5", evidence(failed=True), float(second)):
            asked.append(second)
            for step in (frozenset[object](), frozenset(list(OLD)[:1]), OLD):
                limiter.seen("wan5", step)
    assert asked == [0, 8, 24, 56, 120]


def test_a_tunnel_that_came_up_ends_the_pauses_and_one_that_stays_up_does_not() -> None:
    limiter = RenewLimiter()
    assert [t for t in range(60) if limiter.decide("wan5", evidence(), float(t))] == [0, 8, 24, 56]
    assert limiter.decide("wan5", evidence(up=True), 120.0) == "renew"
    asked = [t for t in range(121, 300) if limiter.decide("wan5", evidence(up=True), float(t))]
    assert asked == [128, 144, 176, 240]


def test_a_tunnel_that_worked_between_two_outages_makes_them_two() -> None:
    limiter = RenewLimiter()
    assert [t for t in range(130) if limiter.decide("wan5", evidence(), float(t))] == [0, 8, 24, 56, 120]
    limiter.works("wan5")
    assert limiter.decide("wan5", evidence(), 127.0) is None, "not within the first pause of the last request"
    assert [t for t in range(140, 170) if limiter.decide("wan5", evidence(), float(t))] == [140, 148, 164]


def test_the_first_request_of_another_outage_renews_though_the_last_one_went_unanswered() -> None:
    limiter = RenewLimiter()
    assert limiter.decide("wan5", evidence(stamp=1), 0.0) == "renew"
    limiter.works("wan5")
    assert limiter.decide("wan5", evidence(stamp=1), 60.0) == "renew"


def test_each_family_has_to_answer_for_itself() -> None:
    limiter = RenewLimiter()
    assert limiter.decide("wan5", evidence(stamp=1, stamp6=1), 0.0) == "renew"
    assert limiter.decide("wan5", evidence(stamp=2, stamp6=2), 10.0) == "renew"
    assert limiter.decide("wan5", evidence(stamp=3, stamp6=2), 30.0) == "reconfigure"


def test_a_device_without_a_lease_asks_again_every_half_minute_at_least() -> None:
    rediscovery = Rediscovery()
    assert rediscovery.next_time() is None
    rediscovery.began("wan5", 0.0)
    asked = [t for t in range(1, 200) if rediscovery.due(float(t))]
    assert asked[0] == 8
    pauses = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 30
    rediscovery.ended("wan5")
    assert (rediscovery.due(500.0), rediscovery.next_time()) == ([], None)


def test_a_file_is_parsed_again_when_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []

    def load(path: Path) -> InstanceConfig:
        parsed.append(path.name)
        return config.load(path)

    monkeypatch.setattr(instances, "load", load)
    (tmp_path / "mpq5.yml").write_text(yaml.safe_dump(CLIENT))
    (tmp_path / "odd.yml").write_text("role: klient\n")
    files = instances.InstanceFiles(tmp_path)
    first = files.read()
    assert first[0] == {"mpq5": (("wan5", int(socket.AF_INET)),)}
    assert list(first[1]) == ["odd"]
    assert files.changed == {"mpq5", "odd"}
    assert files.read() == first
    assert files.changed == set()
    assert parsed == ["mpq5.yml", "odd.yml"]
    replacement = tmp_path / "mpq5.new"
    replacement.write_text(yaml.safe_dump({**CLIENT, "bind_ip": "iface:wan6"}))
    replacement.rename(tmp_path / "mpq5.yml")
    (tmp_path / "odd.yml").unlink()
    assert files.read() == ({"mpq5": (("wan6", int(socket.AF_INET)),)}, {})
    assert parsed == ["mpq5.yml", "odd.yml", "mpq5.yml"]


def test_an_instance_that_is_out_of_service_needs_no_wan_and_comes_back_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "mpq5.yml"
    path.write_text(yaml.safe_dump({**CLIENT, "enabled": False}))
    files = instances.InstanceFiles(tmp_path)
    assert files.read() == ({}, {})
    assert files.changed == {"mpq5"}
    assert files.read() == ({}, {})
    assert files.changed == set()
    path.write_text(yaml.safe_dump(CLIENT))
    assert files.read() == ({"mpq5": (("wan5", int(socket.AF_INET)),)}, {})
    assert files.changed == {"mpq5"}


def test_only_well_formed_requests_name_a_device() -> None:
    assert parse_request(b"renew enp7s7\n") == ("renew", "enp7s7")
    assert parse_request(b"works enp7s7") == ("works", "enp7s7")
    wrong = (
        b"",
        b"renew",
        b"renew ",
        b"reboot enp7s7",
        b"renew a b",
        b"renew ../x",
        b"renew " + b"a" * 16,
        b"\xff\xfe",
    )
    assert [parse_request(request) for request in wrong] == [None] * len(wrong)


def test_running_units_are_those_active_or_on_the_way() -> None:
    output = (
        "mpquic@mpq4.service loaded active running Tunnel mpq4\n"
        "mpquic@mpq5.service loaded activating start Tunnel mpq5\n"
        "mpquic@mpq6.service loaded failed failed Tunnel mpq6\n"
        "mpquic@br-1.service loaded inactive dead Tunnel br-1\n"
    )
    assert parse_units(output) == {"mpq4", "mpq5"}
