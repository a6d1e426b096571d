"""linkd renews a lease without disturbing tunnels that are up, and reads instance files when they have changed."""

import itertools
import socket
from pathlib import Path

import pytest
import yaml
from mpquic import config
from mpquic.config import InstanceConfig
from mpquic.linkd import instances
from mpquic.linkd.renew import LeaseEvidence, Rediscovery, RenewLimiter, parse_request

CLIENT = {
    "name": "mpq5",
    "role": "client",
    "tun_name": "mpq5",
    "bind_ip": "iface:wan5",
    "inner_addresses": ["10.200.5.1/32"],
    "remote_addr": "203.0.113.10",
    "remote_port": 45005,
    "tls": {"ca_file": "/a", "cert_file": "/b", "key_file": "/c", "server_name": "vps1"},
}


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


def test_a_device_by_which_servers_are_heard_has_a_good_lease() -> None:
    limiter = RenewLimiter()
    heard = LeaseEvidence(True, False, frozenset({(2, 1)}), OLD, all_heard=True)
    assert [limiter.decide("wan5", heard, float(second)) for second in range(30)] == [None] * 30
    assert limiter.decide("wan5", evidence(failed=True), 30.0) == "reconfigure", "no pause has begun by that"


def test_a_server_that_is_heard_between_two_outages_makes_them_two() -> None:
    limiter = RenewLimiter()
    assert [t for t in range(60) if limiter.decide("wan5", evidence(), float(t))] == [0, 8, 24, 56]
    heard = LeaseEvidence(True, False, frozenset({(2, 1)}), OLD, all_heard=True)
    assert limiter.decide("wan5", heard, 120.0) is None
    assert limiter.decide("wan5", evidence(), 121.0) == "renew", "with the first pause again"


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
    assert files.changed == {"mpq5", "odd"}, "a change is known until somebody has used it"
    files.changed.clear()
    assert files.read() == first
    assert files.changed == set()
    assert parsed == ["mpq5.yml", "odd.yml"]
    replacement = tmp_path / "mpq5.new"
    replacement.write_text(yaml.safe_dump({**CLIENT, "bind_ip": "iface:wan6"}))
    replacement.rename(tmp_path / "mpq5.yml")
    (tmp_path / "odd.yml").unlink()
    assert files.read() == ({"mpq5": (("wan6", int(socket.AF_INET)),)}, {})
    assert parsed == ["mpq5.yml", "odd.yml", "mpq5.yml"]


def test_an_instance_over_several_wans_depends_on_each_of_them(tmp_path: Path) -> None:
    entries = [
        {"name": "wan5", "bind_ip": "iface:wan5", "remote_addr": "203.0.113.10", "remote_port": 45011},
        {"name": "wan6", "bind_ip": "iface:wan6", "remote_addr": "2001:db8::10", "remote_port": 45011},
    ]
    one = {key: value for key, value in CLIENT.items() if key not in ("bind_ip", "remote_addr", "remote_port")}
    data = {**one, "name": "mp1", "multipath_enabled": True, "multipath_paths": entries}
    (tmp_path / "mp1.yml").write_text(yaml.safe_dump(data))
    wans, broken = instances.InstanceFiles(tmp_path).read()
    assert (wans, broken) == ({"mp1": (("wan5", socket.AF_INET), ("wan6", socket.AF_INET6))}, {})


def test_an_instance_that_its_file_puts_out_of_service_is_disabled_and_has_no_wans(tmp_path: Path) -> None:
    (tmp_path / "mpq5.yml").write_text(yaml.safe_dump({**CLIENT, "enabled": False}))
    files = instances.InstanceFiles(tmp_path)
    assert (files.read(), files.disabled) == (({}, {}), {"mpq5"})
    (tmp_path / "mpq5.yml").write_text(yaml.safe_dump({**CLIENT, "enabled": True}))
    assert (list(files.read()[0]), files.disabled, files.changed) == (["mpq5"], set(), {"mpq5"})


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
