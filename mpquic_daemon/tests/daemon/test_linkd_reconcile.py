"""linkd runs what has a usable WAN and isn't out of service, and tries what fails with pauses."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpquic.linkd.reconcile import RETRY, Action, Reconciler
from mpquic.linkd.systemd import activity
from mpquic.linkd.units import ALIVE, Activity, Unit

INSTANCES: dict[str, tuple[str, ...]] = {"mpq4": ("wan4",), "mpq5": ("wan5",), "srv": ()}
NONE: set[str] = set()
STOPPED: dict[str, Unit] = {}
SRV: dict[str, tuple[str, ...]] = {"srv": ()}


def running(*names: str) -> dict[str, Unit]:
    return doing(Activity.RUNNING, *names)


def doing(what: Activity, *names: str) -> dict[str, Unit]:
    return dict.fromkeys(names, Unit(what))


def starts(reconciler: Reconciler, seconds: range, units: dict[str, Unit] = STOPPED) -> list[int]:
    """The seconds at which srv is started."""
    wanted = Action("start", "srv")
    return [t for t in seconds if wanted in reconciler.decide(SRV, NONE, NONE, units, float(t))]


def test_only_instances_with_a_usable_wan_and_servers_are_started() -> None:
    actions = Reconciler().decide(INSTANCES, NONE, {"wan5"}, STOPPED, 0.0)
    assert actions == [Action("start", "mpq5"), Action("start", "srv")]


def test_what_runs_as_it_should_is_left_alone() -> None:
    assert Reconciler().decide(INSTANCES, NONE, {"wan4", "wan5"}, running("mpq4", "mpq5", "srv"), 0.0) == []


@pytest.mark.parametrize("what", [Activity.STARTING, Activity.STOPPING, Activity.RESTARTING])
def test_what_is_on_the_way_is_not_asked_for(what: Activity) -> None:
    assert Reconciler().decide(SRV, NONE, NONE, doing(what, "srv"), 0.0) == []


def test_an_instance_whose_wan_went_is_stopped_only_after_some_grace() -> None:
    reconciler = Reconciler(grace=10.0)
    units = running("mpq5", "srv")
    assert reconciler.decide(INSTANCES, NONE, NONE, units, 100.0) == []
    assert reconciler.next_time(100.0) == 110.0
    assert reconciler.decide(INSTANCES, NONE, NONE, units, 109.9) == []
    assert reconciler.decide(INSTANCES, NONE, NONE, units, 110.0) == [Action("stop", "mpq5")]


def test_a_wan_that_returns_within_the_grace_begins_another_when_it_goes_again() -> None:
    reconciler = Reconciler(grace=10.0)
    units = running("mpq5", "srv")
    reconciler.decide(INSTANCES, NONE, NONE, units, 0.0)
    reconciler.decide(INSTANCES, NONE, {"wan5"}, units, 5.0)
    assert reconciler.decide(INSTANCES, NONE, NONE, units, 12.0) == []
    assert reconciler.decide(INSTANCES, NONE, NONE, units, 22.0) == [Action("stop", "mpq5")]


def test_an_instance_over_two_wans_needs_one_of_them() -> None:
    assert Reconciler().decide({"mp1": ("wan5", "wan6")}, NONE, {"wan6"}, STOPPED, 0.0) == [Action("start", "mp1")]


def test_an_instance_over_two_wans_is_stopped_when_both_have_gone() -> None:
    reconciler, over_two = Reconciler(), {"mp1": ("wan5", "wan6")}
    assert reconciler.decide(over_two, NONE, {"wan5", "wan6"}, running("mp1"), 0.0) == []
    assert reconciler.decide(over_two, NONE, {"wan6"}, running("mp1"), 1.0) == []
    assert reconciler.decide(over_two, NONE, {"wan6"}, running("mp1"), 60.0) == []
    assert reconciler.decide(over_two, NONE, NONE, running("mp1"), 61.0) == []
    assert reconciler.decide(over_two, NONE, NONE, running("mp1"), 71.0) == [Action("stop", "mp1")]
    assert reconciler.decide(over_two, NONE, {"wan5"}, STOPPED, 72.0) == [Action("start", "mp1")]


def test_a_start_that_does_not_succeed_is_repeated_every_10_s() -> None:
    reconciler = Reconciler()
    assert starts(reconciler, range(60)) == [0, 10, 20, 30, 40, 50]
    assert reconciler.next_time(59.0) == 60.0


def test_a_start_after_a_run_of_10_s_is_no_repetition() -> None:
    reconciler = Reconciler()
    starts(reconciler, range(95))
    reconciler.decide(SRV, NONE, NONE, running("srv"), 95.0)
    reconciler.decide(SRV, NONE, NONE, running("srv"), 105.0)
    assert starts(reconciler, range(106, 130)) == [106, 116, 126]


def test_a_changed_file_or_wan_ends_the_pauses_of_its_instance_alone() -> None:
    reconciler = Reconciler()
    instances = {"mpq5": ("wan5",), "mp1": ("wan5", "wan6"), "srv": ()}
    assert len(reconciler.decide(instances, NONE, {"wan5"}, STOPPED, 0.0)) == 3
    assert reconciler.decide(instances, NONE, {"wan5"}, STOPPED, 1.0) == []
    assert reconciler.decide(instances, NONE, {"wan5", "wan6"}, STOPPED, 2.0) == [Action("start", "mp1")]
    assert reconciler.decide(instances, NONE, {"wan5", "wan6"}, STOPPED, 3.0, {"srv"}) == [Action("start", "srv")]


def test_an_instance_without_a_file_is_stopped_and_one_with_an_unreadable_file_is_not_touched() -> None:
    reconciler = Reconciler(grace=0.0)
    assert reconciler.decide({}, {"odd"}, NONE, running("old", "odd"), 0.0) == [Action("stop", "old")]
    assert reconciler.decide({}, {"odd"}, NONE, doing(Activity.FAILED, "old"), 1.0) == [Action("reset", "old")]
    assert reconciler.decide({}, {"odd"}, NONE, STOPPED, 2.0) == []


def test_a_stopped_instance_is_started_at_once_when_its_wan_returns() -> None:
    reconciler = Reconciler(grace=1.0)
    reconciler.decide(INSTANCES, NONE, {"wan5"}, running("srv"), 0.0)
    reconciler.decide(INSTANCES, NONE, NONE, running("mpq5", "srv"), 1.0)
    assert reconciler.decide(INSTANCES, NONE, NONE, running("mpq5", "srv"), 2.0) == [Action("stop", "mpq5")]
    reconciler.decide(INSTANCES, NONE, NONE, running("srv"), 2.5)
    assert reconciler.decide(INSTANCES, NONE, {"wan5"}, running("srv"), 3.0) == [Action("start", "mpq5")]


# What fails


def test_one_that_systemd_has_given_up_is_started_every_10_s_and_then_once_each_time() -> None:
    reconciler = Reconciler()
    decide = reconciler.decide
    decide(SRV, NONE, NONE, running("srv"), 0.0)
    assert decide(SRV, NONE, NONE, doing(Activity.RESTARTING, "srv"), 1.0) == [], "systemd's own restarts come first"
    assert decide(SRV, NONE, NONE, doing(Activity.FAILED, "srv"), 3.0) == []
    assert reconciler.failing("srv")
    assert reconciler.next_time(3.0) == 13.0
    assert decide(SRV, NONE, NONE, doing(Activity.FAILED, "srv"), 12.9) == []
    again = [Action("reset", "srv"), Action("start", "srv")]
    assert decide(SRV, NONE, NONE, doing(Activity.FAILED, "srv"), 13.0) == again
    assert decide(SRV, NONE, NONE, doing(Activity.STARTING, "srv"), 13.1) == []
    assert decide(SRV, NONE, NONE, doing(Activity.RESTARTING, "srv"), 13.2) == [Action("stop", "srv")]
    assert decide(SRV, NONE, NONE, doing(Activity.RESTARTING, "srv"), 13.3) == [], "it was asked for"
    assert decide(SRV, NONE, NONE, STOPPED, 22.9) == []
    assert decide(SRV, NONE, NONE, STOPPED, 23.0) == [Action("start", "srv")]


def test_a_stop_that_was_refused_is_asked_for_again() -> None:
    reconciler = Reconciler()
    reconciler.decide(SRV, NONE, NONE, running("srv"), 0.0)
    reconciler.decide(SRV, NONE, NONE, doing(Activity.FAILED, "srv"), 1.0)
    reconciler.decide(SRV, NONE, NONE, doing(Activity.FAILED, "srv"), 11.0)
    (stop,) = reconciler.decide(SRV, NONE, NONE, doing(Activity.RESTARTING, "srv"), 12.0)
    reconciler.not_done(stop)
    assert reconciler.decide(SRV, NONE, NONE, doing(Activity.RESTARTING, "srv"), 12.1) == [stop]


def test_one_that_fails_is_tried_at_once_when_its_file_or_its_wan_has_changed() -> None:
    instances = {"mpq5": ("wan5",)}
    again = [Action("reset", "mpq5"), Action("start", "mpq5")]
    for changed, usable in (({"mpq5"}, {"wan5"}), (NONE, {"wan5", "wan6"})):
        reconciler = Reconciler()
        wans = instances if changed else {"mpq5": ("wan5", "wan6")}
        reconciler.decide(wans, NONE, {"wan5"}, running("mpq5"), 0.0)
        failed = doing(Activity.FAILED, "mpq5")
        assert reconciler.decide(wans, NONE, {"wan5"}, failed, 2.0) == []
        assert reconciler.decide(wans, NONE, usable, failed, 3.0, changed) == again
        assert not reconciler.failing("mpq5")
        assert reconciler.decide(wans, NONE, usable, doing(Activity.STARTING, "mpq5"), 3.1) == []
        assert reconciler.decide(wans, NONE, usable, failed, 6.0) == [], "five more failures, and pauses again"


def test_one_that_has_run_for_10_s_is_no_failure_any_more() -> None:
    reconciler = Reconciler()
    reconciler.decide(SRV, NONE, NONE, running("srv"), 0.0)
    reconciler.decide(SRV, NONE, NONE, doing(Activity.FAILED, "srv"), 1.0)
    reconciler.decide(SRV, NONE, NONE, doing(Activity.FAILED, "srv"), 11.0)
    reconciler.decide(SRV, NONE, NONE, running("srv"), 12.0)
    assert reconciler.failing("srv")
    assert reconciler.next_time(12.0) == 21.0
    reconciler.decide(SRV, NONE, NONE, running("srv"), 22.0)
    assert not reconciler.failing("srv")
    assert reconciler.decide(SRV, NONE, NONE, doing(Activity.RESTARTING, "srv"), 23.0) == []


# Out of service on purpose


def test_a_held_instance_is_stopped_at_once_and_started_at_once_when_it_is_released() -> None:
    reconciler = Reconciler()
    reconciler.decide(SRV, NONE, NONE, running("srv"), 0.0)
    assert reconciler.decide(SRV, NONE, NONE, running("srv"), 1.0, held={"srv"}) == [Action("stop", "srv")]
    assert reconciler.decide(SRV, NONE, NONE, doing(Activity.STOPPING, "srv"), 1.1, held={"srv"}) == []
    assert reconciler.decide(SRV, NONE, NONE, STOPPED, 1.2, held={"srv"}) == []
    assert reconciler.decide(SRV, NONE, NONE, STOPPED, 1.3) == [Action("start", "srv")]


def test_a_start_by_hand_ends_a_hold_and_a_start_that_was_asked_for_before_it_does_not() -> None:
    reconciler = Reconciler()
    assert reconciler.decide(SRV, NONE, NONE, STOPPED, 0.0) == [Action("start", "srv")]
    # The start is in the queue, and the hold comes: it must be taken back.
    assert reconciler.decide(SRV, NONE, NONE, STOPPED, 0.1, held={"srv"}) == [Action("stop", "srv")]
    assert reconciler.decide(SRV, NONE, NONE, doing(Activity.STARTING, "srv"), 0.2, held={"srv"}) == []
    assert reconciler.decide(SRV, NONE, NONE, STOPPED, 0.3, held={"srv"}) == []
    by_hand = [Action("by_hand", "srv")]
    assert reconciler.decide(SRV, NONE, NONE, doing(Activity.STARTING, "srv"), 60.0, held={"srv"}) == by_hand


def test_a_hold_is_put_on_a_failing_instance_which_then_shows_no_failure() -> None:
    reconciler = Reconciler()
    failed = doing(Activity.FAILED, "srv")
    reconciler.decide(SRV, NONE, NONE, running("srv"), 0.0)
    reconciler.decide(SRV, NONE, NONE, failed, 1.0)
    assert reconciler.decide(SRV, NONE, NONE, failed, 2.0, held={"srv"}) == [Action("stop", "srv")]
    assert reconciler.decide(SRV, NONE, NONE, failed, 2.1, held={"srv"}) == [Action("reset", "srv")]
    assert not reconciler.failing("srv")
    assert reconciler.decide(SRV, NONE, NONE, STOPPED, 30.0, held={"srv"}) == []


def test_a_hold_also_counts_where_the_file_cannot_be_read() -> None:
    assert Reconciler().decide({}, {"odd"}, NONE, running("odd"), 0.0, held={"odd"}) == [Action("stop", "odd")]


def test_an_instance_that_its_file_disables_is_stopped_also_after_a_start_by_hand() -> None:
    reconciler = Reconciler()
    assert reconciler.decide({}, NONE, NONE, running("mpq5"), 0.0, disabled={"mpq5"}) == [Action("stop", "mpq5")]
    assert reconciler.decide({}, NONE, NONE, STOPPED, 1.0, disabled={"mpq5"}) == []
    assert reconciler.decide({}, NONE, NONE, running("mpq5"), 20.0, disabled={"mpq5"}) == [Action("stop", "mpq5")]


def test_a_masked_instance_is_not_tried_and_starts_at_once_when_the_mask_is_gone() -> None:
    reconciler = Reconciler()
    reconciler.decide(SRV, NONE, NONE, running("srv"), 0.0)
    masked = {"srv": Unit(Activity.STOPPED, masked=True)}
    assert [t for t in range(1, 100) if reconciler.decide(SRV, NONE, NONE, masked, float(t))] == []
    assert reconciler.decide(SRV, NONE, NONE, STOPPED, 100.0) == [Action("start", "srv")]


def test_a_mask_on_a_running_instance_stops_nothing_and_one_that_failed_is_tidied() -> None:
    reconciler = Reconciler()
    assert reconciler.decide(SRV, NONE, NONE, {"srv": Unit(Activity.RUNNING, masked=True)}, 0.0) == []
    failed = {"srv": Unit(Activity.FAILED, masked=True)}
    assert reconciler.decide(SRV, NONE, NONE, failed, 1.0) == [Action("reset", "srv")]


def test_a_start_after_a_stop_by_somebody_else_says_so_and_others_do_not() -> None:
    reconciler = Reconciler()
    reconciler.decide(INSTANCES, NONE, {"wan5"}, running("mpq5"), 0.0)
    by_hand = reconciler.decide(INSTANCES, NONE, {"wan5"}, STOPPED, 1.0)
    assert [(action.instance, action.why) for action in by_hand] == [("mpq5", "stopped")]
    reconciler.decide(INSTANCES, NONE, {"wan5"}, running("mpq5", "srv"), 12.0)
    reconciler.decide(INSTANCES, NONE, NONE, running("mpq5", "srv"), 30.0)
    assert reconciler.decide(INSTANCES, NONE, NONE, running("mpq5", "srv"), 40.0) == [Action("stop", "mpq5")]
    reconciler.decide(INSTANCES, NONE, NONE, running("srv"), 41.0)
    (start,) = reconciler.decide(INSTANCES, NONE, {"wan5"}, running("srv"), 50.0)
    assert (start.instance, start.why) == ("mpq5", "")


# Everything at once


@dataclass
class Host:
    """systemd with the unit of one instance: what is asked for happens, and half a second passes each time."""

    now: float = 0.0
    what: Activity = Activity.STOPPED
    since: float = 0.0
    begun: list[float] = field(default_factory=list)
    masked: bool = False
    fails: bool = False

    def set(self, what: Activity) -> None:
        self.what, self.since = what, self.now
        if what is Activity.STARTING:
            self.begun.append(self.now)

    def ask(self, action: Action) -> None:
        if action.verb == "start":
            assert not self.masked
            if self.what not in ALIVE:
                self.set(Activity.STARTING)
        elif action.verb == "stop":
            self.set(Activity.STOPPED)
        elif action.verb == "reset":
            assert self.what is Activity.FAILED
            self.set(Activity.STOPPED)
            self.begun.clear()

    def passes(self) -> None:
        self.now += 0.5
        if self.what is Activity.STARTING:
            self.set(Activity.RESTARTING if self.fails else Activity.RUNNING)
        elif self.what is Activity.RUNNING and self.fails:
            self.set(Activity.RESTARTING)
        elif self.what is Activity.RESTARTING:
            recent = [at for at in self.begun if at > self.now - 30]
            self.set(Activity.FAILED if len(recent) >= 5 else Activity.STARTING)

    @property
    def units(self) -> dict[str, Unit]:
        return {"mpq5": Unit(self.what, masked=self.masked)}


def step(reconciler: Reconciler, host: Host, *, up: bool, held: bool = False) -> list[Action]:
    actions = reconciler.decide(
        {"mpq5": ("wan5",)}, NONE, {"wan5"} if up else NONE, host.units, host.now, held={"mpq5"} if held else NONE
    )
    for action in actions:
        host.ask(action)
    host.passes()
    return actions


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.integers(1, 40)), max_size=12))
def test_nothing_out_of_service_is_started_and_everything_is_back_within_a_pause(
    history: list[tuple[bool, bool, bool, bool, int]],
) -> None:
    reconciler, host = Reconciler(), Host()
    for up, held, host.masked, host.fails, steps in history:
        for _ in range(steps):
            for action in step(reconciler, host, up=up, held=held):
                assert action.verb != "start" or (up and not held and not host.masked)
                assert action.verb != "by_hand", "nobody started it by hand"
    host.masked = host.fails = False
    for _ in range(int(RETRY / 0.5) + 5):
        step(reconciler, host, up=True)
    assert host.what is Activity.RUNNING


@given(st.lists(st.tuples(st.integers(2, 6), st.integers(2, 40)), min_size=1, max_size=20))
def test_a_wan_that_goes_for_moments_has_its_instance_whenever_it_was_there_for_5_s(
    bursts: list[tuple[int, int]],
) -> None:
    reconciler, host = Reconciler(), Host()
    for down, up in bursts:
        for _ in range(down):
            step(reconciler, host, up=False)
        for half_seconds in range(up):
            step(reconciler, host, up=True)
            assert half_seconds < 10 or host.what is Activity.RUNNING


def test_one_that_always_fails_is_tried_five_times_and_then_every_10_s() -> None:
    reconciler, host = Reconciler(), Host(fails=True)
    tried = []
    while host.now < 120:
        before = host.what
        step(reconciler, host, up=True)
        if host.what is Activity.RESTARTING and before is not Activity.RESTARTING:
            tried.append(host.now)
    assert len([at for at in tried if at < 8]) == 5
    later = [at for at in tried if at >= 8]
    assert len(later) == 11
    assert {round(second - first) for first, second in itertools.pairwise(later)} == {10}


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (("active", "running", 0), Activity.RUNNING),
        (("reloading", "reload", 0), Activity.RUNNING),
        (("activating", "start", 7), Activity.STARTING),
        (("activating", "auto-restart", 0), Activity.RESTARTING),
        (("activating", "auto-restart-queued", 9), Activity.RESTARTING),
        (("deactivating", "stop-sigterm", 4), Activity.STOPPING),
        (("inactive", "dead", 0), Activity.STOPPED),
        (("inactive", "dead", 5), Activity.STARTING),
        (("failed", "failed", 0), Activity.FAILED),
    ],
)
def test_what_systemd_says_of_a_unit_is_understood(states: tuple[str, str, int], expected: Activity) -> None:
    assert activity(*states) is expected
