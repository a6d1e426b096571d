"""Checks plain data against annotated msgspec structs, and says in a sentence what is wrong with which key.

msgspec itself stops at the first error and names types; an operator wants all errors, and what the key means.
Each annotation therefore carries what is expected as the `description` of a `msgspec.Meta`, and optionally
`extra={"format": ...}` for texts with a grammar of their own, and the mark `HOT`.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

HOT = msgspec.Meta(extra={"apply": "hot"})
IFACE_PREFIX = "iface:"


class Problem(NamedTuple):
    """One error: the key with its path (`peers[0].allowed[1]`, empty for the whole file) and a sentence."""

    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.key}: {self.message}" if self.key else self.message


class ConfigError(Exception):
    """The configuration can't be used; `problems` lists every reason."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = problems


def fields_of(model: type[msgspec.Struct]) -> dict[str, Any]:
    """Map each key of `model` to its annotation with all marks."""
    hints = get_type_hints(model, include_extras=True)
    return {field.name: hints[field.name] for field in msgspec.structs.fields(model)}


def _metas(annotation: Any) -> Iterator[msgspec.Meta]:
    """Every Meta of an annotation, outermost first, also those behind Optional."""
    if get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        yield from (mark for mark in reversed(marks) if isinstance(mark, msgspec.Meta))
        yield from _metas(inner)
    elif _is_union(annotation):
        for member in get_args(annotation):
            yield from _metas(member)


def is_hot(annotation: Any) -> bool:
    """Tell whether a reload applies a key of this annotation."""
    return any((meta.extra or {}).get("apply") == "hot" for meta in _metas(annotation))


def expected(model: type[msgspec.Struct], key: str) -> str:
    """Return what a key of `model` expects, in words."""
    return _expected(fields_of(model)[key])


def _expected(annotation: Any) -> str:
    return next((meta.description for meta in _metas(annotation) if meta.description), "another type")


def _format(annotation: Any) -> str | None:
    return next((meta.extra["format"] for meta in _metas(annotation) if meta.extra and "format" in meta.extra), None)


def _bare(annotation: Any) -> Any:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation


def _is_union(annotation: Any) -> bool:
    # `X | None` over Annotated members is a typing.Union in Python 3.11, whatever it was written as.
    return get_origin(annotation) is Union or type(annotation).__name__ == "UnionType"


def check_struct(
    data: object, model: type[msgspec.Struct], path: str = "", elsewhere: Mapping[str, str] | None = None
) -> Iterator[Problem]:
    """Yield every problem of `data` as a `model`.

    `path` goes before each key ("tls."); `elsewhere` explains keys that are unknown here but valid in another place.
    """
    if not isinstance(data, dict):
        yield Problem(path.removesuffix("."), f"expected a mapping of keys, not {shown(data)}")
        return
    fields = fields_of(model)
    for key in data:
        if key not in fields:
            yield Problem(f"{path}{key}", _unknown_key(str(key), fields, elsewhere or {}))
    required = {field.name for field in msgspec.structs.fields(model) if field.required}
    for name, annotation in fields.items():
        if name in data:
            yield from _check_value(data[name], annotation, f"{path}{name}")
        elif name in required:
            bare = _bare(annotation)
            nested = isinstance(bare, type) and issubclass(bare, msgspec.Struct)
            wanted = f"a mapping with {', '.join(fields_of(bare))}" if nested else _expected(annotation)
            yield Problem(f"{path}{name}", f"missing; expected {wanted}")


def _check_value(value: object, annotation: Any, key: str) -> Iterator[Problem]:
    bare = _bare(annotation)
    if isinstance(bare, type) and issubclass(bare, msgspec.Struct):
        yield from check_struct(value, bare, f"{key}.")
        return
    if get_origin(bare) is tuple:
        item = get_args(bare)[0]
        minimum = max((meta.min_length or 0 for meta in _metas(annotation)), default=0)
        maximum = min((meta.max_length for meta in _metas(annotation) if meta.max_length), default=None)
        if not isinstance(value, list) or len(value) < minimum or (maximum is not None and len(value) > maximum):
            wanted = _expected(annotation) if minimum or maximum else "a list"
            yield Problem(key, f"expected {wanted}, not {shown(value)}")
            return
        for index, member in enumerate(value):
            yield from _check_value(member, item, f"{key}[{index}]")
        return
    try:
        converted = msgspec.convert(value, annotation)
    except msgspec.ValidationError:
        choices = get_args(bare) if get_origin(bare) is Literal else ()
        yield Problem(key, f"expected {_expected(annotation)}, not {shown(value)}{nearest_value(value, choices)}")
        return
    name = _format(annotation)
    if name is not None and converted is not None and not _FORMATS[name](str(converted)):
        yield Problem(key, f"expected {_expected(annotation)}, not {shown(value)}{_prefix_hint(name, str(value))}")


def _unknown_key(key: str, fields: Iterable[str], elsewhere: Mapping[str, str]) -> str:
    if key in elsewhere:
        return f"unknown key; {elsewhere[key]}"
    near = difflib.get_close_matches(key, fields, n=1, cutoff=0.6)
    if near:
        return f"unknown key; did you mean {near[0]}?"
    return f"unknown key; expected one of {', '.join(sorted(fields))}"


def nearest_value(value: object, choices: Iterable[str]) -> str:
    """Return "; did you mean X?" for the choice that resembles `value`, or an empty text."""
    near = difflib.get_close_matches(value, list(choices), n=1, cutoff=0.6) if isinstance(value, str) else []
    return f"; did you mean {near[0]}?" if near else ""


def _prefix_hint(name: str, value: str) -> str:
    if name != "prefix":
        return ""
    try:
        return f"; did you mean {ipaddress.ip_network(value, strict=False)}?"
    except ValueError:
        return ""


def shown(value: object) -> str:
    """Return `value` as an error sentence shows it: short, and on one line."""
    if value is None:
        return "an empty value"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _is_address(text: str) -> bool:
    try:
        return "%" not in text and ipaddress.ip_address(text) is not None
    except ValueError:
        return False


def _is_bind(text: str) -> bool:
    if text.startswith(IFACE_PREFIX):
        return re.fullmatch(r"(?!\.{1,2}\Z)[^\s/:]{1,15}", text.removeprefix(IFACE_PREFIX)) is not None
    return _is_address(text)


def _is_prefix(text: str) -> bool:
    try:
        return "%" not in text and ipaddress.ip_network(text) is not None
    except ValueError:
        return False


_FORMATS: dict[str, Callable[[str], bool]] = {"address": _is_address, "bind": _is_bind, "prefix": _is_prefix}
