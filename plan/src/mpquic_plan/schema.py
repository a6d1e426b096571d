"""Shape and ranges of the variables by JSON Schema, each error as a sentence with its path."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from jsonschema import Draft202012Validator
from jsonschema.validators import extend

from mpquic_plan.formats import NotOfAHostError, checker, conforms
from mpquic_plan.problem import Problem, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jsonschema.exceptions import ValidationError

ROOTS: Final = ("site", "vps")
"""The variables that have a schema, each `schemas/<name>.schema.json`."""

_TYPE_NAMES: Final = {
    "object": "a dict",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "boolean": "true or false",
}


@dataclass(frozen=True, slots=True)
class Checked:
    """The variables of a host after the check of their shape.

    `value` has its defaults and None in place of each list item that holds an error; it is None itself if too little is
    sound to go on. `broken` holds the names of those items by the key of their list ('*' for an item without a name).
    """

    value: dict[str, Any] | None
    broken: dict[str, set[str]]
    problems: list[Problem]


@cache
def load(root: str) -> dict[str, Any]:
    """Return the schema of `site` or `vps`."""
    text = resources.files("mpquic_plan").joinpath(f"schemas/{root}.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def _is_whole(_: object, value: object) -> bool:
    """JSON Schema takes 1500.0 for an integer; what is derived from it would be a fraction all the same."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(_: object, value: object) -> bool:
    """YAML's .nan and .inf pass every range."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_TYPES: Final = Draft202012Validator.TYPE_CHECKER.redefine_many({"integer": _is_whole, "number": _is_number})
_STRICT: Final[Any] = extend(Draft202012Validator, type_checker=_TYPES)  # type: ignore[no-untyped-call]


@cache
def _validator(root: str) -> Any:
    return _STRICT(load(root), format_checker=checker())


def resolve(root: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a subschema with its `$ref` followed; what stands beside the reference wins."""
    if "$ref" not in schema:
        return dict(schema)
    target = load(root)["$defs"][schema["$ref"].rpartition("/")[2]]
    return {**resolve(root, target), **{key: value for key, value in schema.items() if key != "$ref"}}


def check(host: str, root: str, value: Any) -> Checked:
    """Check the variable `root` of a host and return what is sound of it, with all problems."""
    errors = list(_validator(root).iter_errors({root: value}))
    problems: list[Problem] = []
    broken: dict[str, set[str]] = {}
    document: dict[str, Any] | None = {root: copy.deepcopy(value)}
    for error in errors:
        problems += [Problem(host, path, message) for path, message in _sentences(error)]
        if document is not None and not _prune(document, error, broken, load(root)["$defs"][root]["required"]):
            document = None
    if document is None:
        return Checked(None, broken, problems)
    return Checked(with_defaults(root, load(root)["$defs"][root], document[root]), broken, problems)


def path_text(parts: Iterable[str | int]) -> str:
    """Return a path as people write it: `site.lans[0].vlans[2].id`."""
    text = ""
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else str(part)
    return text


def _schema_of(error: ValidationError) -> Mapping[str, Any]:
    """Return the subschema that an error breaks; none of ours is `true` or `false`."""
    schema = error.schema
    if not isinstance(schema, dict):
        raise TypeError(f"{path_text(error.absolute_path)}: the schema is no object")
    return schema


def _extra_keys(error: ValidationError) -> list[str]:
    instance: Any = error.instance
    return [str(key) for key in instance if key not in _schema_of(error)["properties"]]


def _missing_keys(error: ValidationError) -> list[str]:
    required: Any = error.validator_value
    instance: Any = error.instance
    return [key for key in required if key not in instance]


def _sentences(error: ValidationError) -> list[tuple[str, str]]:
    """Return (path, message) for an error; one error of jsonschema may name several keys."""
    path = list(error.absolute_path)
    schema = _schema_of(error)
    if error.validator == "additionalProperties":
        return [(path_text([*path, key]), _unknown_key(key, schema["properties"])) for key in _extra_keys(error)]
    if error.validator == "required":
        # jsonschema yields one error for each missing key, all alike but for the text.
        key = next(key for key in _missing_keys(error) if error.message.startswith(repr(key)))
        why = schema["properties"].get(key, {}).get("x-missing", "it must be stated")
        return [(path_text([*path, key]), f"is missing; {why}")]
    return [(path_text(path), f"expected {_expected(error)}, got {_shown(error.instance)}{_hint(error)}")]


def _unknown_key(key: str, valid: Iterable[str]) -> str:
    close = nearest(key, valid)
    hint = f"did you mean '{close}'?" if close else f"valid keys are {', '.join(sorted(valid))}"
    return f"unknown key; {hint}"


def _expected(error: ValidationError) -> str:
    schema = _schema_of(error)
    if "x-expects" in schema:
        return str(schema["x-expects"])
    if error.validator == "enum":
        return "one of " + ", ".join(str(choice) for choice in schema["enum"])
    if error.validator == "minItems":
        return "a list with at least one item"
    if error.validator == "maxItems":
        return f"a list with at most {schema['maxItems']} items"
    if "minimum" in schema:
        return f"a whole number from {schema['minimum']} to {schema['maximum']}"
    if "enum" in schema:
        return "one of " + ", ".join(str(choice) for choice in schema["enum"])
    return _TYPE_NAMES[schema["type"]]


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"'{value}'"
    if isinstance(value, dict):
        return "a dict"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return str(value)


def _hint(error: ValidationError) -> str:
    """Return what to add to an error: what the value is instead, and the remedy where it is known."""
    schema = _schema_of(error)
    choices = schema.get("enum", ())
    if isinstance(error.cause, NotOfAHostError):
        return f", {error.cause}"
    if isinstance(error.instance, str):
        for name, remedy in schema.get("x-instead", {}).items():
            if conforms(error.instance, name):
                return f"; {remedy}"
    if isinstance(error.instance, float) and schema.get("type") == "integer" and error.instance.is_integer():
        return f"; write {int(error.instance)}"
    if isinstance(error.instance, bool):
        word = "on" if error.instance else "off"
        taken = f"; YAML takes {word} without quotes for {_shown(error.instance)}, write '{word}'"
        return taken if word in choices else ""
    if error.validator == "type" and schema.get("type") == "array" and isinstance(error.instance, str | int):
        return f"; write [{error.instance}]"
    close = nearest(error.instance, choices) if isinstance(error.instance, str) else None
    return f"; did you mean '{close}'?" if close else ""


def _prune(
    document: dict[str, Any], error: ValidationError, broken: dict[str, set[str]], required: Sequence[str]
) -> bool:
    """Take what is wrong out of the document; False if what is left can't be judged."""
    path = list(error.absolute_path)
    if error.validator == "additionalProperties":
        holder = _at(document, path)
        for key in _extra_keys(error) if isinstance(holder, dict) else ():
            del holder[key]
        return True
    last_index = max((place for place, part in enumerate(path) if isinstance(part, int)), default=None)
    if last_index is not None:
        items, index = _at(document, path[:last_index]), path[last_index]
        if isinstance(items, list) and items[int(index)] is not None:
            item = items[int(index)]
            # An item whose name is wrong may be the one that others mean.
            name = item.get("name") if isinstance(item, dict) and path[-1] != "name" else None
            broken.setdefault(str(path[last_index - 1]), set()).add(name if isinstance(name, str) else "*")
            items[int(index)] = None
        return True
    if (
        len(path) < 2
        or path[1] in required
        or path[1] in ("classes", "wans", "lans", "tunnels", "listeners", "management")
    ):
        return False
    document[str(path[0])].pop(path[1], None)
    return True


def _at(document: Any, path: Sequence[str | int]) -> Any:
    """Return the value at a path, or None where an earlier error has taken it out."""
    for part in path:
        if isinstance(part, int):
            document = document[part]
        elif isinstance(document, dict):
            document = document.get(part)
        if document is None:
            return None
    return document


def with_defaults(root: str, schema: Mapping[str, Any], value: Any) -> Any:
    """Return a value with the defaults of its schema, at every depth."""
    schema = resolve(root, schema)
    if isinstance(value, dict):
        filled = dict(value)
        for key, subschema in schema.get("properties", {}).items():
            resolved = resolve(root, subschema)
            if key not in filled and "default" in resolved:
                filled[key] = copy.deepcopy(resolved["default"])
            if key in filled:
                filled[key] = with_defaults(root, resolved, filled[key])
        return filled
    if isinstance(value, list):
        return [with_defaults(root, schema.get("items", {}), item) for item in value]
    return value
