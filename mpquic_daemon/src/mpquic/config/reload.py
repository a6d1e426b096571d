"""Which keys differ between two configurations, and what a running daemon can take over of the new one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from mpquic.config import ClientConfig, InstanceConfig, ServerConfig
from mpquic.config.schema import fields_of, is_hot

if TYPE_CHECKING:
    from collections.abc import Iterator


class Changes(NamedTuple):
    """Keys that differ between two configurations, by what it takes to apply them."""

    hot: tuple[str, ...]
    restart: tuple[str, ...]


def compare(old: InstanceConfig, new: InstanceConfig) -> Changes:
    """Tell which keys a reload applies and which need a restart; a changed role needs one by itself."""
    if type(old) is not type(new):
        return Changes((), ("role",))
    hot: list[str] = []
    restart: list[str] = []
    for key, applies in _differences(old, new, type(old), ""):
        (hot if applies else restart).append(key)
    return Changes(tuple(hot), tuple(restart))


def take_hot(old: InstanceConfig, new: InstanceConfig) -> InstanceConfig:
    """`old` with every hot key of `new`; keys that need a restart keep the value that is in force."""
    merged = _merge_hot(old, new)
    assert isinstance(merged, ClientConfig | ServerConfig)
    return merged


def hot_keys(model: type[msgspec.Struct]) -> frozenset[str]:
    """Names of the keys of `model` that a reload applies."""
    return frozenset(name for name, annotation in fields_of(model).items() if is_hot(annotation))


def _merge_hot(old: msgspec.Struct, new: msgspec.Struct) -> msgspec.Struct:
    changed: dict[str, Any] = {}
    for name, annotation in fields_of(type(old)).items():
        if is_hot(annotation):
            changed[name] = getattr(new, name)
        elif isinstance(getattr(old, name), msgspec.Struct):
            changed[name] = _merge_hot(getattr(old, name), getattr(new, name))
    return msgspec.structs.replace(old, **changed)


def _differences(
    old: msgspec.Struct, new: msgspec.Struct, model: type[msgspec.Struct], path: str
) -> Iterator[tuple[str, bool]]:
    for name, annotation in fields_of(model).items():
        before, after = getattr(old, name), getattr(new, name)
        if before == after:
            continue
        if isinstance(before, msgspec.Struct) and isinstance(after, msgspec.Struct) and not is_hot(annotation):
            yield from _differences(before, after, type(before), f"{path}{name}.")
        else:
            yield f"{path}{name}", is_hot(annotation)
