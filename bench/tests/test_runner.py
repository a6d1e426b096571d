"""The order of runs, and what becomes of systems that fail; with systems that touch no network."""

from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from mpqbench import runner
from mpqbench.cases import Case
from mpqbench.errors import BenchError
from mpqbench.results import Sample
from mpqbench.runner import Runner
from mpqbench.systems.base import System
from mpqbench.topology import Node, Topology


class NoTopology(Topology):
    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class Fake(System):
    name = "fake"
    benches = frozenset({"tcp1", "ping", "lossy"})

    def __init__(self, journal: list[str], value: float) -> None:
        super().__init__()
        self.journal = journal
        self.value = value

    def start(self, a: Node, b: Node) -> None:
        assert (a.role, b.role) == ("a", "b")
        self.journal.append(f"start {self.name}")

    def stop(self) -> None:
        self.journal.append(f"stop {self.name}")


class NeverInstalled(Fake):
    name = "absent"

    def install(self, cache: Path) -> None:
        raise BenchError(f"no package in {cache}")


class NeverStarts(Fake):
    name = "broken"

    def start(self, a: Node, b: Node) -> None:
        raise BenchError(f"no ping from {a.role} to {b.role}")


def goodput(system: System, _: Topology, seconds: float) -> list[Sample]:
    assert isinstance(system, Fake)
    return [Sample("tcp1", "up", "goodput", system.value * seconds, "Mbit/s")]


def half(system: System, topology: Topology, seconds: float) -> list[Sample]:
    (sample,) = goodput(system, topology, seconds)
    return [replace(sample, case="half", value=sample.value / 2)]


class Apart:
    """Starts nothing on the usual topology, and remembers the runs that it took part in."""

    def __init__(self) -> None:
        self.repetitions: list[int] = []

    def measure(self, system: System, directory: Path, seconds: float, repetition: int) -> list[Sample]:
        assert directory.is_dir()
        self.repetitions.append(repetition)
        if system.name == "broken":
            raise BenchError("no link")
        return [Sample("lossy", "0 %", "share", len(self.repetitions) * seconds, "share")]


def fails(system: System, _topology: Topology, _seconds: float) -> list[Sample]:
    raise BenchError(f"{system.name} does not answer")


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    entries: list[str] = []

    def named(name: str, value: float) -> Fake:
        system = Fake(entries, value)
        system.name = name
        return system

    systems = {
        "x": lambda: named("x", 1), "y": lambda: named("y", 2),
        "absent": lambda: NeverInstalled(entries, 0), "broken": lambda: NeverStarts(entries, 0),
    }  # fmt: skip
    monkeypatch.setattr(runner, "SYSTEMS", systems)
    cases = (
        Case("tcp1", goodput, 2), Case("tcp1", half, 1, only="y"), Case("ping", fails, 2), Case("cpu", goodput, 2)
    )  # fmt: skip
    monkeypatch.setattr(runner, "STARTED", cases)
    monkeypatch.setattr(runner, "ALONE", {"lossy": (Apart, 1)})
    monkeypatch.setattr(runner, "Topology", NoTopology)
    return entries


def test_systems_take_turns(journal: list[str], tmp_path: Path) -> None:
    made = Runner(tmp_path, 3, lambda _: None)
    results = made.run(["x", "y"], ["tcp1"], 2)
    assert journal == ["start x", "stop x", "start y", "stop y"] * 2
    assert [(r.system, r.case, r.value, r.runs) for r in results] == [
        ("x", "up", 3, (3, 3)), ("y", "up", 6, (6, 6)), ("y", "half", 3, (3,))
    ]  # fmt: skip
    assert made.failures == []


def test_no_case_is_repeated_more_often_than_it_wants(journal: list[str], tmp_path: Path) -> None:
    (result,) = Runner(tmp_path, 1, lambda _: None).run(["x"], ["tcp1"], 5)
    assert result.runs == (1, 1)
    assert len(journal) == 4


def test_a_bench_with_a_topology_of_its_own_is_one_object_for_all_systems(journal: list[str], tmp_path: Path) -> None:
    made = Runner(tmp_path, 1, lambda _: None)
    results = made.run(["x", "broken", "y"], ["lossy"], 2)
    assert [(r.system, r.bench, r.value) for r in results] == [("x", "lossy", 1), ("y", "lossy", 3)]
    assert made.failures == ["broken, lossy: no link"]
    assert journal == []


def test_failures_are_reported_and_the_others_go_on(journal: list[str], tmp_path: Path) -> None:
    said: list[str] = []
    made = Runner(tmp_path, 1, said.append)
    results = made.run(["absent", "broken", "y"], ["ping", "tcp1"], 1)
    assert [(r.system, r.bench, r.value) for r in results] == [("y", "tcp1", 2), ("y", "tcp1", 1)]
    assert made.failures == [
        f"absent: no package in {tmp_path}",
        "broken: no ping from a to b",
        "y, ping: y does not answer",
    ]
    assert [text for text in said if text.startswith("FAILED")] == [f"FAILED {text}" for text in made.failures]
    assert journal == ["stop broken", "start y", "stop y"]


def test_a_bench_that_does_not_fit_a_system_is_left_out(journal: list[str], tmp_path: Path) -> None:
    made = Runner(tmp_path, 1, lambda _: None)
    assert made.run(["x"], ["cpu"], 1) == []
    assert made.failures == []
    assert journal == []
