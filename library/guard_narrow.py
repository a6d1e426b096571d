#!/usr/bin/python
"""Ansible module: the guard keeps nothing in place that this run may take away or change."""

from __future__ import annotations

DOCUMENTATION = r"""
module: guard_narrow
short_description: Take out of the guard's file what is no longer wanted
description:
  - A run changes addresses, rules, routes, devices and kernel parameters step by step. What is in the file before the
    run and isn't wanted any more would be put back by mpquic-guard in between; so it leaves the file first.
  - What is wanted and not in the file yet is added when all is in place, by whoever writes the whole file.
  - Without a file there is nothing to do.
options:
  path: {description: The guard's file., type: path, required: true}
  wanted: {description: What the whole file is going to hold., type: dict, required: true}
"""

RETURN = r"""
dropped: {description: Names of the parts that lost something., returned: always, type: list}
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule


def narrowed(present: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """What is in both: entries of lists, keys of dicts with equal values, equal values."""
    result: dict[str, Any] = {}
    for name, value in present.items():
        other = wanted.get(name)
        if isinstance(value, list) and isinstance(other, list):
            result[name] = [entry for entry in value if entry in other]
        elif isinstance(value, dict) and isinstance(other, dict):
            result[name] = {key: entry for key, entry in value.items() if key in other and other[key] == entry}
        elif value == other:
            result[name] = value
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "wanted": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    path = Path(module.params["path"])
    if not path.is_file():
        module.exit_json(changed=False, dropped=[])
    try:
        present = json.loads(path.read_text())
    except ValueError:
        # The guard doesn't read it either, and goes on with what it has read before: an empty one has it forget that.
        present = None
    wanted = module.params["wanted"]
    kept = narrowed(present, wanted) if isinstance(present, dict) else {}
    dropped = sorted(name for name in present if kept.get(name) != present[name]) if isinstance(present, dict) else []
    changed = kept != present
    if changed and not module.check_mode:
        status = path.stat()
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".guard")
        with os.fdopen(handle, "w") as file:
            json.dump(kept, file)
        Path(temporary).chmod(status.st_mode & 0o7777)
        os.chown(temporary, status.st_uid, status.st_gid)
        module.atomic_move(temporary, str(path))
    module.exit_json(changed=changed, dropped=dropped)


if __name__ == "__main__":
    main()
