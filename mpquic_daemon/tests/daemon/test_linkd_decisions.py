"""linkd runs what has a usable WAN, and renews a lease without disturbing tunnels that are up."""

from mpquic.linkd.reconcile import Action, Reconciler
from mpquic.linkd.renew import LeaseEvidence, RenewLimiter, parse_request
from mpquic.linkd.systemd import parse_units

INSTANCES = {"mpq4": ("wan4",), "mpq5": ("wan5",), "srv": ()}
NONE: set[str] = set()


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


def evidence(*, up: bool = False, failed: bool = False, stamp: int = 1) -> LeaseEvidence:
    return LeaseEvidence(up, failed, stamp)


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
    limiter.healthy("wan5")
    assert limiter.decide("wan5", evidence(), 199.0) == "renew"


def test_only_well_formed_requests_name_a_device() -> None:
    assert parse_request(b"renew enp7s7\n") == "enp7s7"
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
