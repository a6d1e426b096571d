"""What one direction of an emulated link does to packets: the keys, their units, their ranges, and how they are read.

Every key can be changed while packets flow. A key's unit is in its name; `mtu` is bytes of an IP packet.
"""

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

DirectionName = Literal["up", "down"]
"""`up` is from the site to the internet, `down` the other way."""
DirectionChoice = Literal["up", "down", "both"]
DIRECTIONS: tuple[DirectionName, ...] = get_args(DirectionName)

_TRUE = ("on", "true", "yes", "1")
_FALSE = ("off", "false", "no", "0")


class ConfigError(ValueError):
    """One or more wrong keys; `problems` holds a sentence for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(" ".join(problems))
        self.problems = problems


def _key(default: float | bool, low: float, high: float, meaning: str) -> Any:
    return dataclasses.field(default=default, metadata={"low": low, "high": high, "meaning": meaning})


def _share(default: float, meaning: str) -> Any:
    return _key(default, 0.0, 100.0, meaning)


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectionConfig:
    """One direction of a link. The defaults are a perfect wire. 0 switches a limit off."""

    rate_mbit: float = _key(0.0, 0.0, 100_000.0, "capacity in 10^6 bits of IP packets a second; 0 is unlimited")
    queue_ms: float = _key(
        100.0, 0.0, 60_000.0, "longest wait for the capacity; a packet that would wait longer is lost"
    )
    delay_ms: float = _key(0.0, 0.0, 60_000.0, "one-way propagation delay")
    jitter_ms: float = _key(0.0, 0.0, 10_000.0, "the delay wanders within +- this, in order; at most delay_ms")
    loss_percent: float = _share(0.0, "independent loss")
    burst_enter_percent: float = _share(0.0, "Gilbert-Elliott p: chance for each packet to go from good to bad")
    burst_leave_percent: float = _share(0.0, "Gilbert-Elliott r: chance for each packet to go from bad to good")
    burst_bad_loss_percent: float = _share(100.0, "loss in the bad state")
    burst_good_loss_percent: float = _share(0.0, "loss in the good state")
    reorder_percent: float = _share(0.0, "chance that a packet is held back so that later ones overtake it")
    reorder_ms: float = _key(5.0, 0.0, 10_000.0, "for how long it is held back")
    duplicate_percent: float = _share(0.0, "chance that a packet arrives twice")
    corrupt_percent: float = _share(0.0, "chance that one bit behind the IP header is flipped")
    mtu: int = _key(0, 0, 65_535, "largest IP packet; 0 leaves it to the devices")
    mtu_icmp: bool = _key(True, 0, 1, "on: behave as a router (fragment or say 'too big'); off: lose it silently")
    flow_rate_mbit: float = _key(0.0, 0.0, 100_000.0, "cap for each 5-tuple; 0 is none")
    flow_queue_ms: float = _key(100.0, 0.0, 60_000.0, "longest wait for the cap of the flow")
    blackhole: bool = _key(False, 0, 1, "everything vanishes silently")
    leo: bool = _key(False, 0, 1, "15-second slots of a low-orbit constellation; capacity from leo_*_mbit")
    leo_min_mbit: float = _key(35.0, 0.1, 100_000.0, "lowest capacity of a slot")
    leo_max_mbit: float = _key(75.0, 0.1, 100_000.0, "highest capacity of a slot")
    seed: int = _key(1, 0, 2**63 - 1, "all chance follows from it; setting it starts the sequences again")

    def __post_init__(self) -> None:
        problems = []
        if self.jitter_ms > self.delay_ms:
            problems.append(f"jitter_ms={self.jitter_ms:g} must not exceed delay_ms={self.delay_ms:g}.")
        if self.burst_enter_percent and not self.burst_leave_percent:
            problems.append("burst_enter_percent needs burst_leave_percent above 0, or a burst never ends.")
        if self.leo_min_mbit > self.leo_max_mbit:
            problems.append(f"leo_min_mbit={self.leo_min_mbit:g} must not exceed leo_max_mbit={self.leo_max_mbit:g}.")
        if 0 < self.mtu < 68:
            problems.append(f"mtu={self.mtu} must be 0 or at least 68 (RFC 791).")
        if problems:
            raise ConfigError(problems)

    @property
    def treats_single_packets(self) -> bool:
        """Whether the fate of a packet may differ from its neighbour's, so that superframes can't be carried whole."""
        return bool(
            self.loss_percent
            or self.burst_enter_percent
            or self.burst_good_loss_percent
            or self.reorder_percent
            or self.duplicate_percent
            or self.corrupt_percent
        )

    def changed(self, values: Mapping[str, object]) -> "DirectionConfig":
        """Return a copy with `values` (numbers, booleans or their text) set.

        Raises:
            ConfigError: with a sentence for each unknown key and each value of the wrong type or out of range.
        """
        problems: list[str] = []
        parsed: dict[str, Any] = {}
        for key, value in values.items():
            try:
                parsed[key] = _parse(key, value)
            except ConfigError as error:
                problems += error.problems
        if problems:
            raise ConfigError(problems)
        return dataclasses.replace(self, **parsed)

    def as_dict(self) -> dict[str, float | bool]:
        """Return all keys with their values, JSON-able."""
        return dataclasses.asdict(self)


_FIELDS = {field.name: field for field in dataclasses.fields(DirectionConfig)}


def _parse(key: str, value: object) -> float | bool:
    field = _FIELDS.get(key)
    if field is None:
        nearest = difflib.get_close_matches(key, _FIELDS, n=1, cutoff=0.4)
        hint = f"did you mean {nearest[0]}?" if nearest else f"known keys: {', '.join(_FIELDS)}."
        raise ConfigError([f"Unknown key {key}: {hint}"])
    if field.type is bool:
        text = str(value).lower()
        if text not in _TRUE + _FALSE:
            raise ConfigError([f"{key}={value}: expected on or off."])
        return text in _TRUE
    low, high = field.metadata["low"], field.metadata["high"]
    wanted = f"expected {'a whole number' if field.type is int else 'a number'} from {low:g} to {high:g}."
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ConfigError([f"{key}={value}: {wanted}"])
    try:
        number = int(value) if field.type is int and not isinstance(value, float) else float(value)
    except ValueError:
        raise ConfigError([f"{key}={value}: {wanted}"]) from None
    if not math.isfinite(number) or not low <= number <= high or (field.type is int and number != int(number)):
        raise ConfigError([f"{key}={value}: {wanted}"])
    return int(number) if field.type is int else number


def parse_pairs(pairs: Iterable[str]) -> dict[DirectionName, dict[str, str]]:
    """Read `key=value` (both directions), `up.key=value` and `down.key=value`.

    The values are still text: `DirectionConfig.changed` checks them.

    Raises:
        ConfigError: a pair without `=`, a prefix that is no direction, or a key that is given twice.
    """
    result: dict[DirectionName, dict[str, str]] = {name: {} for name in DIRECTIONS}
    problems = []
    for pair in pairs:
        left, equals, value = pair.partition("=")
        prefix, dot, key = left.rpartition(".")
        if not equals or not key or (dot and prefix not in DIRECTIONS):
            problems.append(f"{pair}: expected key=value, up.key=value or down.key=value.")
            continue
        for name in DIRECTIONS:
            if dot and name != prefix:
                continue
            if key in result[name]:
                problems.append(f"{pair}: {key} is given twice for the direction {name}.")
            result[name][key] = value
    if problems:
        raise ConfigError(problems)
    return result


def describe_keys() -> str:
    """Return a line for each key, with its default, for a help text."""
    lines = []
    for name, field in _FIELDS.items():
        default = ("on" if field.default else "off") if field.type is bool else f"{field.default:g}"
        lines.append(f"  {name}={default}  {field.metadata['meaning']}")
    return "\n".join(lines)
