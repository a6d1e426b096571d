#!/usr/bin/python
"""Ansible module: running kernel parameters have the given values."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sysctl_values
short_description: Set running kernel parameters that differ
description:
  - Sets what differs from the wanted values in /proc/sys now; the file that sets them at boot is another task's.
  - A name may hold C(*) for one part (all interfaces that exist now).
options:
  values: {description: Wanted value of each parameter., type: dict, required: true}
  minimums:
    description: Parameters that are only ever raised to this value.
    type: dict
    default: {}
  optional:
    description:
      - Parameters that may be missing (of an absent device; passed over) or read-only (in a container; then reported in
        I(skipped)).
    type: list
    elements: str
    default: []
  root: {description: Where the parameters are., type: path, default: /proc/sys}
"""

RETURN = r"""
set: {description: New value of each parameter that was set., returned: always, type: dict}
skipped: {description: Why an optional parameter was left as it is., returned: always, type: dict}
"""

import errno
import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule


def expand(root: Path, name: str) -> list[Path]:
    """Files of a parameter; interface names may contain dots, so parts are split by `/` when the name has one."""
    parts = name.split("/") if "/" in name else name.split(".")
    relative = "/".join(parts)
    return sorted(root.glob(relative)) if "*" in relative else [root / relative]


def normal(value: str) -> str:
    """A value with single spaces, as a person writes it."""
    return " ".join(str(value).split())


def differs(current: str, wanted: str, *, minimum: bool) -> bool:
    """Whether a parameter has to be set."""
    if minimum:
        return int(current) < int(wanted)
    return current != wanted


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "values": {"type": "dict", "required": True},
            "minimums": {"type": "dict", "default": {}},
            "optional": {"type": "list", "elements": "str", "default": []},
            "root": {"type": "path", "default": "/proc/sys"},
        },
        supports_check_mode=True,
    )
    root = Path(module.params["root"])
    done: dict[str, str] = {}
    skipped: dict[str, str] = {}
    before: dict[str, str] = {}
    wishes = [(name, value, False) for name, value in module.params["values"].items()]
    wishes += [(name, value, True) for name, value in module.params["minimums"].items()]
    for name, value, minimum in wishes:
        for path in expand(root, name):
            shown = str(path.relative_to(root))
            try:
                current = normal(path.read_text())
                if not differs(current, normal(value), minimum=minimum):
                    continue
                if not os.access(path, os.W_OK):
                    raise OSError(errno.EROFS, os.strerror(errno.EROFS))  # noqa: TRY301
                if not module.check_mode:
                    path.write_text(normal(value))
            except OSError as error:
                if name not in module.params["optional"]:
                    module.fail_json(msg=f"kernel parameter {shown} can't be set to {value}: {error.strerror}")
                if error.errno != errno.ENOENT:
                    skipped[shown] = f"{error.strerror}, wanted {value}"
                continue
            before[shown] = current
            done[shown] = normal(value)
    result: dict[str, object] = {"changed": bool(done), "set": done, "skipped": skipped}
    if module._diff and done:
        result["diff"] = {
            "before": "".join(f"{name} = {value}\n" for name, value in before.items()),
            "after": "".join(f"{name} = {value}\n" for name, value in done.items()),
        }
    module.exit_json(**result)


if __name__ == "__main__":
    main()
