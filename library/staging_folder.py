#!/usr/bin/python
"""Ansible module: a folder that root alone can enter, with nothing of anybody else in it, and room for what comes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: staging_folder
short_description: Make or check the folder in which files wait for being installed, and the room for them
description:
  - The folder belongs to root with mode 0700. A wrong mode is mended. A symbolic link in its place, another owner, a
    parent that others may write to, or an entry that isn't a plain file of root's is refused, as somebody could have
    prepared it.
  - Files that an interrupted run has left are removed, but for I(keep).
  - Where I(space) isn't free, the module fails before anything is sent.
options:
  path: {description: The folder., type: path, required: true}
  keep: {description: Name of the file that may already be there., type: str, default: ""}
  space: {description: Bytes that each path will take; paths of one file system are added., type: dict, default: {}}
  owner_id: {description: Number of the only user who may enter., type: int, default: 0}
"""

RETURN = r"""
removed: {description: Files that an earlier run had left., returned: always, type: list}
"""

import os
import stat
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

MODE = 0o700


class Refused(Exception):  # noqa: N818
    """Somebody else has had a hand in it."""


def examine(path: Path, owner: int) -> list[Path]:
    """What is in the folder; empty when it isn't there. Refused."""
    for parent in path.parents:
        try:
            status = parent.stat()
        except FileNotFoundError:
            continue
        loose = stat.S_IMODE(status.st_mode) & 0o022 and not status.st_mode & stat.S_ISVTX
        if status.st_uid not in (0, owner) or loose:
            raise Refused(
                f"{parent} belongs to user {status.st_uid} with mode {stat.S_IMODE(status.st_mode):04o}: "
                f"nobody but root may write there, or {path} could be anybody's; mend it with chown and chmod"
            )
    try:
        status = path.lstat()
    except FileNotFoundError:
        return []
    if not stat.S_ISDIR(status.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "no folder"
        raise Refused(f"{path} is {what}, which no run of ours made: look who did, and remove it")
    if status.st_uid != owner:
        raise Refused(f"{path} belongs to user {status.st_uid}, not to root: look who made it, and remove it")
    entries = sorted(path.iterdir())
    for entry in entries:
        inside = entry.lstat()
        if not stat.S_ISREG(inside.st_mode) or inside.st_uid != owner or inside.st_nlink != 1:
            raise Refused(f"{entry} is not a plain file of root's, as a run of ours would leave it: remove it")
    return entries


def free_bytes(path: Path) -> tuple[int, int]:
    """File system (its device number) that `path` is or will be on, and its free bytes."""
    while not path.exists():
        path = path.parent
    room = os.statvfs(path)
    return path.stat().st_dev, room.f_bavail * room.f_frsize


def shortages(space: dict[Path, int]) -> list[str]:
    """Sentences about file systems that haven't the room for the given bytes below each path."""
    needs: dict[int, list[tuple[Path, int]]] = {}
    free: dict[int, int] = {}
    for path, size in space.items():
        device, free[device] = free_bytes(path)
        needs.setdefault(device, []).append((path, size))
    result = []
    for device, entries in needs.items():
        wanted = sum(size for _, size in entries)
        if free[device] < wanted:
            names = " and ".join(str(path) for path, _ in entries)
            result.append(
                f"the disk is full: {names} needs {wanted / 1e6:.1f} MB, {free[device] / 1e6:.1f} MB are free there; "
                "free some and run site.yml again"
            )
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "keep": {"type": "str", "default": ""},
            "space": {"type": "dict", "default": {}},
            "owner_id": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    path = Path(module.params["path"])
    try:
        entries = examine(path, module.params["owner_id"])
    except Refused as error:
        module.fail_json(msg=str(error))
    surplus = [entry for entry in entries if entry.name != module.params["keep"]]
    make = not path.is_dir()
    mend = not make and stat.S_IMODE(path.stat().st_mode) != MODE
    if not module.check_mode:
        if make:
            os.umask(0o022)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(mode=MODE)
        elif mend:
            path.chmod(MODE)
        for entry in surplus:
            entry.unlink()
    problems = shortages({Path(name): int(size) for name, size in module.params["space"].items()})
    if problems:
        module.fail_json(msg="; ".join(problems))
    module.exit_json(changed=bool(make or mend or surplus), removed=[entry.name for entry in surplus])


if __name__ == "__main__":
    main()
