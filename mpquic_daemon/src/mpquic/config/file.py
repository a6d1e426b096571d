"""Reads an instance's YAML and says all that is wrong with it.

The schema is strict: an unknown key, a wrong type and a value out of range are errors, and all of them are
reported at once, each with the key, what was expected and the nearest valid name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import yaml

from mpquic import files
from mpquic.config.model import ROLES, InstanceConfig
from mpquic.config.rules import check_meaning
from mpquic.config.schema import ConfigError, Problem, check_struct, fields_of, nearest_value, shown

if TYPE_CHECKING:
    from pathlib import Path


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice (YAML 1.2 section 3.2.1.3); PyYAML silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen:
                raise ConfigError([Problem(key, f"given twice, again in line {key_node.start_mark.line + 1}")])
            seen.add(key)
        return super().construct_mapping(node, deep)


def load(path: Path) -> InstanceConfig:
    """Read and check the instance file `path`; ConfigError lists all that is wrong with it."""
    try:
        text = files.read(path).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError([Problem("", f"can't read {path}: {reason}")]) from error
    return parse(text)


def check_files(config: InstanceConfig) -> list[Problem]:
    """Return what is wrong with the files that `config` names: each must be there, and be readable by this user.

    Whether certificate and key fit each other is for the daemon's start to tell.
    """
    problems = []
    for key in ("ca_file", "cert_file", "key_file", "revoked_file"):
        path = getattr(config.tls, key)
        if path is None:
            continue
        try:
            empty = not files.read(path)
        except OSError as error:
            problems.append(Problem(f"tls.{key}", f"can't read {path}: {error.strerror}"))
        else:
            if empty and key != "revoked_file":
                problems.append(Problem(f"tls.{key}", f"{path} is empty"))
    return problems


def parse(text: str) -> InstanceConfig:
    """Check the YAML `text`; ConfigError lists all that is wrong with it."""
    try:
        # _UniqueKeyLoader is a SafeLoader: it builds plain data only.
        data = yaml.load(text, Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        reason = getattr(error, "problem", None) or type(error).__name__
        raise ConfigError([Problem("", f"not valid YAML{where}: {reason}")]) from error
    if not isinstance(data, dict):
        raise ConfigError([Problem("", f"expected a mapping of keys, not {shown(data)}")])
    if "role" not in data:
        raise ConfigError([Problem("role", "missing; expected client or server")])
    role = data["role"]
    model = ROLES.get(role) if isinstance(role, str) else None
    if model is None:
        raise ConfigError(
            [Problem("role", f"expected client or server, not {shown(role)}{nearest_value(role, ROLES)}")]
        )
    problems = list(check_struct(data, model, elsewhere=_keys_of_the_other_role(model)))
    if problems:
        raise ConfigError(problems)
    config = msgspec.convert(data, model)
    problems = list(check_meaning(config))
    if problems:
        raise ConfigError(problems)
    return config


def _keys_of_the_other_role(model: type[msgspec.Struct]) -> dict[str, str]:
    return {
        key: f"it belongs to role {role}"
        for role, other in ROLES.items()
        if other is not model
        for key in fields_of(other)
    }
