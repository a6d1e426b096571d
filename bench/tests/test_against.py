"""Pairs of two commits: order, ratios, spread, verdicts, and what can't be measured."""

import json
import signal
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpqbench import against
from mpqbench.against import REPEATED, Checkout, judge, place, status, values
from mpqbench.errors import BenchError
from mpqbench.pairing import (
    HIGHER,
    LOWER,
    NEUTRAL,
    Comparison,
    Key,
    Side,
    Values,
    compare,
    interval,
    order,
    ratio,
    rows,
)
from mpqbench.results import load

GOODPUT = Key("tcp1", "up", "stripe", "goodput", "Mbit/s")
DELAY = Key("ping", "idle", "stripe", "p50", "ms")


def test_order_alternates_so_that_a_steady_drift_hits_both_sides_alike() -> None:
    assert [order(pair)[0] for pair in range(4)] == ["present", "other", "present", "other"]


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=40))
def test_interval_holds_the_median_of_the_sample(ratios: list[float]) -> None:
    low, high = interval(ratios)
    assert min(ratios) <= low <= sorted(ratios)[(len(ratios) - 1) // 2]
    assert sorted(ratios)[len(ratios) // 2] <= high <= max(ratios)


@pytest.mark.parametrize(("count", "rank"), [(1, 1), (5, 1), (6, 1), (9, 2), (15, 4), (25, 8)])
def test_interval_has_the_ends_of_the_sign_test(count: int, rank: int) -> None:
    # Tables of the sign test for 95 %, for example W. J. Conover, Practical Nonparametric Statistics.
    assert interval(range(1, count + 1)) == (rank, count + 1 - rank)


@pytest.mark.parametrize(
    ("key", "ratios", "worse"),
    [
        (GOODPUT, [0.9, 0.91, 0.92], True),
        (GOODPUT, [0.9, 0.91, 1.01], False),
        (GOODPUT, [0.98, 0.98, 0.98], False),
        (GOODPUT, [1.2, 1.2, 1.2], False),
        (DELAY, [1.2, 1.1, 1.05], True),
        (DELAY, [0.5, 0.6, 0.5], False),
        (DELAY, [1.2, 1.1, 0.99], False),
        (GOODPUT._replace(metric="server CPU"), [3.0, 3.0, 3.0], False),
        (GOODPUT, [], False),
    ],
)
def test_worse_is_beyond_the_tolerance_and_the_spread_in_the_bad_direction(
    key: Key, ratios: list[float], worse: bool
) -> None:
    assert Comparison(key, tuple(ratios)).worse is worse


def test_ratios_of_nothing() -> None:
    assert ratio(0, 0) == 1
    assert ratio(1, 0) == float("inf")


def test_every_metric_that_is_kept_has_a_direction() -> None:
    assert not HIGHER & LOWER | HIGHER & NEUTRAL | LOWER & NEUTRAL
    kept = load(Path(__file__).parents[1] / "results/latest.json")
    assert {row.metric for rows in kept.values() for row in rows} <= HIGHER | LOWER | NEUTRAL


def test_what_one_side_lacks_is_named_and_pairs_with_both_count() -> None:
    pairs: list[dict[Side, Values]] = [
        {"present": {GOODPUT: 8.0, DELAY: 1.0}, "other": {GOODPUT: 10.0}},
        {"present": {DELAY: 1.0}, "other": {GOODPUT: 10.0}},
    ]
    first, second = compare(pairs)
    assert (first.key, first.ratios, first.missing) == (GOODPUT, (0.8,), "")
    assert (second.key, second.ratios, second.missing) == (DELAY, (), "other")
    table = rows([first, second], frozenset({GOODPUT}), "abc")
    assert table[1][-2:] == ["1", "WORSE"]
    assert table[2][-1] == "not measured at abc"
    assert status([second], frozenset()) == 0
    assert status([first], frozenset({GOODPUT})) == 1
    assert status([Comparison(DELAY, (), "present")], frozenset()) == 1


class Bench:
    """Gives the present side `first` as its goodput in the first pairs, then `later`; the other side has 100."""

    def __init__(self, first: float, later: float) -> None:
        self.present = [first] * 3 + [later] * REPEATED
        self.sides: list[Side] = []

    def measure(self, side: Side, system: str, bench: str) -> Values:
        assert (system, bench) == ("stripe", "tcp1")
        self.sides.append(side)
        return {GOODPUT: self.present.pop(0) if side == "present" else 100.0}


@pytest.mark.parametrize(("first", "later", "believed"), [(90, 90, {GOODPUT}), (90, 100, set()), (99, 0, set())])
def test_what_looks_worse_is_repeated_before_it_is_believed(first: float, later: float, believed: set[Key]) -> None:
    bench = Bench(first, later)
    told: list[str] = []
    (comparison,), worse = judge(bench.measure, [("stripe", "tcp1")], 3, told.append)
    assert worse == believed
    assert ("WORSE" in told[-1]) == bool(believed)  # at once, not after all other benches
    repeated = first < 97
    assert len(comparison.ratios) == (REPEATED if repeated else 3)
    assert bench.sides[:6] == ["present", "other", "other", "present", "present", "other"]


def test_a_subject_that_neither_side_measures_is_not_skipped() -> None:
    comparisons, worse = judge(lambda _side, _system, _bench: {}, [("stripe", "tcp1")], 1, lambda _: None)
    assert status(comparisons, worse) == 1
    assert rows(comparisons, worse, "abc")[1][-1] == "not measured at the present commit"


def test_results_of_other_commits_may_have_more_fields_but_not_fewer() -> None:
    row = {"bench": "tcp1", "case": "up", "system": "stripe", "metric": "goodput", "unit": "Mbit/s", "value": 5}
    assert values(json.dumps([{**row, "later": True}])) == {GOODPUT: 5.0}
    assert values(json.dumps({"Some CPU": [row]})) == {GOODPUT: 5.0}
    for text in ("{", '{"x": 1}', "1", "[1]", json.dumps([{**row, "value": "5"}])):
        with pytest.raises(BenchError, match="result"):
            values(text)


def test_files_of_a_commit_are_unpacked_once_without_touching_the_repository(tmp_path: Path) -> None:
    repository, cache = tmp_path / "repository", tmp_path / "cache"

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(repository), "-c", "user.name=n", "-c", "user.email=e@example.net", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    (repository / "scripts").mkdir(parents=True)
    script = repository / "scripts/bootstrap"
    script.write_text('#!/bin/sh\ncd "$(dirname "$0")/.." && echo made >>made\n')
    script.chmod(0o755)
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    name = against.commit(repository, "HEAD")
    script.write_text("#!/bin/sh\nexit 1\n")
    for _ in range(2):
        made = against.check_out(repository, name, cache)
    assert made.folder == place(cache, name) == cache / "against" / name
    assert made.python == made.folder / ".venv/bin/python"
    assert (made.folder / "made").read_text() == "made\nmade\n"
    assert git("worktree", "list").count("\n") == 0
    assert git("status", "--short") == "M scripts/bootstrap"
    with pytest.raises(BenchError, match="no-such: no such commit"):
        against.commit(repository, "no-such")


def test_a_bench_that_is_interrupted_ends_what_it_has_started(tmp_path: Path) -> None:
    python = tmp_path / "python"
    # In place of a bench: says that it runs, and that it was told to end.
    python.write_text(
        f"#!/bin/sh\ntrap 'touch {tmp_path}/told; exit 1' TERM\ntouch {tmp_path}/runs\nwhile :; do sleep 0.05; done\n"
    )
    python.chmod(0o755)
    sides = against.Sides({"other": Checkout(tmp_path, python)}, 1.0, lambda _: None)

    def interrupt(_number: int, _frame: object) -> None:
        if (tmp_path / "runs").exists():
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        with pytest.raises(KeyboardInterrupt):
            sides.measure("other", "stripe", "tcp1")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert (tmp_path / "told").exists()
