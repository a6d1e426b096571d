"""Jain's index, what is computed from the goodput, and the control groups that limit a server."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpqbench.cpulimit import PERIOD, Hierarchy, mounted
from mpqbench.errors import BenchError
from mpqbench.fairness import CLIENTS, LOADS, jain, taken

RATES = st.lists(st.floats(0.01, 1e5), min_size=1, max_size=20)


@given(RATES, st.floats(0.01, 100))
def test_index_is_between_one_in_n_and_one_whatever_the_unit(rates: list[float], unit: float) -> None:
    index = jain(rates)
    assert 1 / len(rates) - 1e-9 <= index <= 1 + 1e-9
    assert jain([rate * unit for rate in rates]) == pytest.approx(index)


@pytest.mark.parametrize(
    ("rates", "index"), [([5, 5, 5], 1), ([9, 0, 0], 1 / 3), ([1, 1, 0, 0], 0.5), ([1, 2, 3], 36 / 42)]
)
def test_index_of_known_shares(rates: list[float], index: float) -> None:
    assert jain(rates) == pytest.approx(index)


def test_nothing_carried_has_no_index() -> None:
    with pytest.raises(BenchError, match="no client carried anything"):
        jain([0.0, 0.0])


def test_what_is_missing_of_the_goodput_was_taken_by_the_others() -> None:
    assert taken(90, 100) == pytest.approx(0.1)
    assert taken(110, 100) == pytest.approx(-0.1)


def test_the_first_load_is_the_one_to_which_others_are_compared() -> None:
    assert [load.tcp for load in LOADS] == [CLIENTS, CLIENTS, 9, 9, 8]
    assert len({load.case for load in LOADS}) == len(LOADS)


LINE = "31 25 0:27 / {} rw,nosuid - {} {} rw,{}\n"


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (
            [("/g/cpuset", "cgroup", "cpuset"), ("/g/all", "cgroup2", "x"), ("/g/cpu", "cgroup", "cpu,cpuacct")],
            [Hierarchy(Path("/g/cpu"), 1), Hierarchy(Path("/g/all"), 2)],
        ),
        ([("/sys/fs/cgroup", "cgroup2", "nsdelegate")], [Hierarchy(Path("/sys/fs/cgroup"), 2)]),
        ([("/tmp", "tmpfs", "cpu"), ("/g/acct", "cgroup", "cpuacct")], []),
    ],
)
def test_controller_is_found_in_both_versions(lines: list[tuple[str, str, str]], found: list[Hierarchy]) -> None:
    text = "".join(LINE.format(place, kind, kind, options) for place, kind, options in lines)
    assert mounted(text) == found


def test_three_tenths_of_a_core_in_both_versions() -> None:
    assert Hierarchy(Path("/"), 1).settings(0.3)["cpu.cfs_quota_us"] == str(3 * PERIOD // 10)
    assert Hierarchy(Path("/"), 2).settings(0.3)["cpu.max"] == f"{3 * PERIOD // 10} {PERIOD}"


def test_network_namespaces_are_seen_by_their_own_bench_only() -> None:
    if not Path("/proc/self/ns/mnt").exists() or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("needs root")
    program = (
        "from pathlib import Path; from mpqbench.isolation import NETNS, isolate; isolate(); "
        "(NETNS / 'mpqbench-test').touch(); print(*(each.name for each in NETNS.iterdir()))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["mpqbench-test"]
    assert not Path("/run/netns/mpqbench-test").exists()
