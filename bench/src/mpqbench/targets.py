"""What this project wants to reach, and whether the results say that it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpqbench.table import number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mpqbench.results import Result


@dataclass(frozen=True, slots=True)
class Value:
    """Names one measured value."""

    bench: str
    case: str
    metric: str
    system: str


@dataclass(frozen=True, slots=True)
class Target:
    """A value, as a multiple of another one if that is given, and how large it is to be at least, or at most."""

    text: str
    value: Value
    bound: float
    unit: str = ""
    over: Value | None = None
    at_most: bool = False

    @property
    def wanted(self) -> str:
        """The bound, for people."""
        return f"{'at most' if self.at_most else 'at least'} {self.bound:g}{self._unit}"

    def reached(self, values: Mapping[Value, float]) -> float | None:
        """Return what was reached; None when something of it wasn't measured."""
        if self.value not in values or (self.over is not None and self.over not in values):
            return None
        return values[self.value] / (values[self.over] if self.over is not None else 1)

    def holds(self, reached: float) -> bool:
        """Whether that is enough."""
        return reached <= self.bound if self.at_most else reached >= self.bound

    @property
    def _unit(self) -> str:
        return " x" if self.over is not None else f" {self.unit}" if self.unit else ""

    def row(self, values: Mapping[Value, float]) -> list[str]:
        """Return cells: the target, what is wanted, what was reached, whether it holds."""
        reached = self.reached(values)
        if reached is None:
            return [self.text, self.wanted, "-", "not measured"]
        return [self.text, self.wanted, number(reached) + self._unit, "yes" if self.holds(reached) else "**no**"]


def _goodput(system: str) -> Value:
    return Value("tcp1", "up", "goodput", system)


def _over(system: str, other: str, bound: float) -> Target:
    text = f"one TCP connection up: {system} against {other}"
    return Target(text, _goodput(system), bound, over=_goodput(other))


def _small(case: str, text: str, bound: float) -> Target:
    ours, other = (Value("small", case, "packet rate", system) for system in ("stripe", "openvpn"))
    return Target(f"{text}: stripe against openvpn", ours, bound, over=other)


def _ping(metric: str, system: str) -> Value:
    return Value("ping", "idle", metric, system)


def _lossy(case: str, bound: float) -> Target:
    text = f"lossy link, {case}: stripe's share of the erasure limit"
    return Target(text, Value("lossy", case, "share", "stripe"), bound)


def _flowcap(pipes: int, name: str, bound: float) -> Target:
    text = f"capped flows, {pipes} pipes: {name} of what the link lets through"
    return Target(text, Value("flowcap", f"{pipes} pipes", name, "stripe"), bound)


FLAT = 3.0
"""MB by which the memory of a daemon may grow from 5 GB carried to 10 GB."""

TARGETS = (
    _over("stripe", "openvpn", 3.5),
    _over("stripe", "wireguard-go-deb12", 5),
    _over("stripe", "wireguard-go-deb13", 1),
    _over("stripe-fec-always", "openvpn", 2),
    _over("quic-reliable", "aioquic-stock", 2.2),
    _over("quic-datagram", "aioquic-stock", 2.2),
    _small("up", "small packets", 1.2),
    _small("up, USO", "small packets from a sender with UDP_SEGMENT", 1.5),
    Target(
        "idle ping, p50: stripe against openvpn",
        _ping("p50", "stripe"),
        1.3,
        over=_ping("p50", "openvpn"),
        at_most=True,
    ),
    Target("idle ping, p99: stripe", _ping("p99", "stripe"), 2, "ms", at_most=True),
    Target(
        "memory of a stripe daemon after 10 GB",
        Value("cpu", "10 GB up", "memory at the end", "stripe"),
        120,
        "MB",
        at_most=True,
    ),
    Target(
        "its growth from 5 GB to 10 GB",
        Value("cpu", "10 GB up", "growth since 5 GB", "stripe"),
        FLAT,
        "MB",
        at_most=True,
    ),
    *(_lossy(f"{percent} %", 0.88) for percent in (0, 1, 2, 5, 10)),
    _lossy("30 %", 0.78),
    *(
        _flowcap(pipes, name, bound)
        for pipes in (4, 12)
        for name, bound in (("wire share", 0.95), ("goodput share", 0.88))
    ),
    Target(
        "10 busy clients of 1,000 registered, against 10 of 10",
        Value("sessions", "1,000 registered", "ratio", "stripe"),
        0.9,
    ),
)


def rows(results: Sequence[Result]) -> list[list[str]]:
    """Return a heading row and one for each target."""
    values = {Value(each.bench, each.case, each.metric, each.system): each.value for each in results}
    return [["target", "wanted", "reached", "holds"], *(target.row(values) for target in TARGETS)]
