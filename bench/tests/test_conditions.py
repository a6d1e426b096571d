"""Keeping the conditions of several measurements, of which later ones replace parts of earlier ones."""

from dataclasses import replace
from pathlib import Path

from mpqbench.conditions import Conditions, Measurement, kind, load, merge, observe, save, unmeasured

OLD = Conditions("2030-01-02", "Debian", "6.1", "Some CPU", 2, "3.11.2", {"tinc": "1.0"}, 3, 4.0)
NEW = replace(OLD, date="2030-02-03")


def test_conditions_are_kept_as_observed(tmp_path: Path) -> None:
    seen = Measurement(observe(3, 5.0), (("tcp1", "veth"), ("ping", "tinc")))
    save({"Some CPU": [seen]}, tmp_path / "conditions.json")
    assert load(tmp_path / "conditions.json") == {"Some CPU": [seen]}
    assert seen.conditions.processors >= 1


def test_what_is_measured_again_leaves_the_earlier_measurement() -> None:
    kept = [Measurement(OLD, (("tcp1", "veth"), ("tcp1", "tinc"), ("ping", "tinc")))]
    assert merge(kept, Measurement(NEW, (("tcp1", "tinc"),))) == [
        Measurement(OLD, (("tcp1", "veth"), ("ping", "tinc"))),
        Measurement(NEW, (("tcp1", "tinc"),)),
    ]


def test_a_measurement_of_which_nothing_is_left_is_gone() -> None:
    assert merge([Measurement(OLD, (("tcp1", "veth"),))], Measurement(NEW, (("tcp1", "veth"),))) == [
        Measurement(NEW, (("tcp1", "veth"),))
    ]


def test_the_same_conditions_are_one_measurement() -> None:
    kept = [Measurement(OLD, (("tcp1", "veth"), ("ping", "tinc")))]
    assert merge(kept, Measurement(OLD, (("tcp1", "veth"), ("small", "tinc")))) == [
        Measurement(OLD, (("ping", "tinc"), ("tcp1", "veth"), ("small", "tinc")))
    ]


def test_models_belong_to_kinds_of_which_those_that_were_not_measured_are_named() -> None:
    assert kind("Intel(R) Xeon(R) Processor") == "Intel"
    assert kind("AMD EPYC") == "AMD"
    assert kind("Neoverse-N1") == "Neoverse-N1"
    assert unmeasured(["AMD EPYC", "AMD EPYC 7B13", "Neoverse-N1"]) == ["Intel"]
    assert unmeasured(["AMD EPYC", "Intel(R) Xeon(R) Processor"]) == []
