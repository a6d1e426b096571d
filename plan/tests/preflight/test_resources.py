"""Clock, disk, memory and kernel of a host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpquic_plan.preflight import Host

    Make = Callable[..., Host]
    Told = Callable[..., list[str]]

MIB = 1 << 20
HOUR = 3600.0
DAY = 24 * HOUR


@pytest.mark.parametrize("ahead", [0.0, 299.0, -299.0])
def test_clocks_that_agree_within_five_minutes_are_fine(client: Make, notices: Told, ahead: float) -> None:
    assert notices(client(clock_ahead=ahead)) == []


@pytest.mark.parametrize(
    ("ahead", "told"),
    [
        (301.0, "the clock is 5 minutes ahead of the controller's"),
        (-3 * HOUR, "the clock is 3 hours behind the controller's"),
    ],
)
def test_some_minutes_and_hours_are_only_told(
    client: Make, problems: Told, notices: Told, ahead: float, told: str
) -> None:
    host = client(clock_ahead=ahead)
    assert problems(host) == []
    (only,) = notices(host)
    assert told in only
    assert "timedatectl" in only


@pytest.mark.parametrize(
    ("ahead", "told"),
    [
        (-DAY, "24 hours behind"),
        (3 * DAY, "3 days ahead of"),
        (-5.2 * 365 * DAY, "5 years behind"),
        (10 * 365 * DAY, "10 years ahead of"),
    ],
)
def test_a_day_or_more_stops_the_host_unless_it_is_accepted(vps: Make, problems: Told, ahead: float, told: str) -> None:
    host = vps(clock_ahead=ahead)
    (only,) = problems(host)
    assert f"clock: the clock is {told} the controller's" in only
    assert "mpquic_accept=clock" in only
    assert problems(host, ["clock"]) == []


def test_a_full_file_system_is_told_once_with_what_needs_most(client: Make, problems: Told) -> None:
    host = client()
    for folder in ("/", "/opt", "/var/lib"):
        host.survey["disk"][folder]["bytes"] = 3 * MIB
    assert problems(host) == [
        "disk-full: /opt has 3 MiB free, and 160 MiB are needed for two releases of the daemon; make room there"
    ]


def test_each_full_file_system_is_told(client: Make, problems: Told) -> None:
    host = client()
    host.survey["disk"]["/tmp"]["bytes"] = 0
    host.survey["disk"]["/var/tmp"] = {"bytes": MIB, "inodes": 9999, "device": 9}
    text = "\n".join(problems(host))
    assert "/tmp has 0 MiB free" in text
    assert "/var/tmp has 1 MiB free, and 4 MiB are needed" in text


def test_too_few_inodes_are_told(client: Make, problems: Told) -> None:
    host = client()
    host.survey["disk"]["/opt"]["inodes"] = 12
    (only,) = problems(host)
    assert "/opt has 12 inodes free" in only


def test_a_file_system_without_a_number_of_inodes_is_fine(client: Make, problems: Told) -> None:
    host = client()
    for free in host.survey["disk"].values():
        free["inodes"] = -1
    assert problems(host) == []


@pytest.mark.parametrize(("free", "stopped"), [(100, False), (60, True)])
def test_a_small_disk_that_had_room_for_the_first_run_has_it_for_the_next(
    client: Make, problems: Told, free: int, stopped: bool
) -> None:
    """/opt as a file system of 200 MiB: with two releases in it there was no later run, even without a new one."""
    host = client(("ours", True))
    host.survey["disk"]["/opt"] = {"bytes": free * MIB, "inodes": 9999, "device": 9}
    found = problems(host)
    assert bool(found) is stopped
    assert found == [] or "80 MiB are needed for another release of the daemon" in found[0]


def test_a_disk_that_the_kernel_has_made_read_only_is_told_once(client: Make, problems: Told) -> None:
    host = client()
    host.survey["disk"]["/"]["read_only"] = True
    assert problems(host) == []
    for folder in ("/opt", "/var/lib"):
        host.survey["disk"][folder]["read_only"] = True
    (only,) = problems(host)
    assert "read-only: /opt is on a file system that is mounted read-only" in only


def test_the_daemon_can_not_be_run_from_a_mount_that_forbids_it(client: Make, problems: Told) -> None:
    host = client()
    host.survey["disk"]["/tmp"]["noexec"] = True
    assert problems(host) == [], "hardened hosts have it there, and nothing is run from it"
    host.survey["disk"]["/opt"]["noexec"] = True
    (only,) = problems(host)
    assert "/opt is mounted with noexec" in only


def test_a_full_disk_can_not_be_accepted(client: Make, problems: Told) -> None:
    host = client()
    host.survey["disk"]["/opt"]["bytes"] = 0
    assert problems(host, ["disk-full"])


@pytest.mark.parametrize(("memory", "stops"), [(0, False), (256 * MIB, True), (460 * MIB, False)])
def test_too_little_memory_stops_the_host_and_a_small_vps_is_enough(
    vps: Make, problems: Told, memory: int, stops: bool
) -> None:
    host = vps(("memory", memory))
    assert bool(problems(host)) is stops
    assert problems(host, ["memory"]) == []


def test_a_host_without_tun_can_not_have_tunnels(vps: Make, problems: Told) -> None:
    (only,) = problems(vps(("tun", False)))
    assert "modprobe tun" in only
    assert problems(vps(("tun", False)), ["kernel"])


def test_a_kernel_that_can_not_filter_is_named_with_what_it_lacks(vps: Make, problems: Told) -> None:
    (only,) = problems(vps(("missing_modules", ["nft_fib_inet", "8021q"])))
    assert "has no nft_fib_inet: " in only, "the VPS has no VLANs, so that 8021q doesn't matter"


def test_a_kernel_without_vlans_matters_only_where_the_plan_has_one(vps: Make, problems: Told) -> None:
    assert problems(vps(("missing_modules", ["8021q"]))) == []


@pytest.mark.parametrize(
    ("system", "version"),
    [("debian", "12"), ("debian", "13"), ("debian", ""), ("ubuntu", "24.04"), ("ubuntu", "26.04")],
)
def test_the_systems_that_the_roles_know_are_fine(vps: Make, problems: Told, system: str, version: str) -> None:
    assert problems(vps(("system/ID", system), ("system/VERSION_ID", version))) == []


@pytest.mark.parametrize(
    "change",
    [
        ("system/VERSION_ID", "11"),
        ("system/ID", "fedora"),
        ("system/init", "init"),
        ("system/apt", False),
    ],
)
def test_another_system_is_named(vps: Make, problems: Told, change: tuple[str, object]) -> None:
    (only,) = problems(vps(change))
    assert only.startswith("system: Debian GNU/Linux 12 (bookworm) with ")
    assert "Debian 12 or newer, or Ubuntu 24.04 or newer" in only


def test_a_system_without_a_name_is_told_as_such(vps: Make, problems: Told) -> None:
    nameless = {"ID": "", "VERSION_ID": "", "PRETTY_NAME": "", "init": "", "apt": False}
    (only,) = problems(vps(("system", nameless)))
    assert "an unknown system with an unknown process as its first process" in only
