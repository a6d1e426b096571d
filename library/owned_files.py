#!/usr/bin/python
"""Ansible module: a directory holds exactly the given files among those whose names match the owned patterns."""

from __future__ import annotations

DOCUMENTATION = r"""
module: owned_files
short_description: Write the files that are ours in directories and remove the ones that are no longer named
description:
  - Each of I(sets) is about a directory. All of its files whose names match one of the set's C(patterns) belong to the
    caller. Those in C(files) are written when they differ, all others are removed. Other files are never looked at.
  - Every new content of all sets is validated before the first file is touched, so a wrong one changes nothing at all.
    Then one set after the other is written, in the order in which they are given.
options:
  sets:
    description: Sets of files. They are given together since each call of a module costs a round trip to the site.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: Name of the set in the result., type: str, required: true}
      directory: {description: Directory that holds the files; made when it is missing., type: path, required: true}
      directory_mode:
        description:
          - Mode of the directory, octal. A directory that is there is brought to it. Without this option one that is
            there is somebody else's and stays as it is, and one that is missing is made with 0755.
        type: str
      directory_owner:
        description: Owner of the directory; only compared together with C(directory_mode).
        type: str
      directory_group:
        description: Group of the directory; only compared together with C(directory_mode).
        type: str
      directory_from:
        description:
          - The first folder on the way to C(directory) that is ours; all from there have its mode, owner and group.
            Others that are missing are made with 0755, whatever the umask is.
        type: path
      patterns:
        description: Shell patterns of the file names that are owned.
        type: list
        elements: str
        required: true
      files: {description: Content of each file by its name., type: dict, required: true}
      owner: {description: Owner of files., type: str}
      group: {description: Group of files., type: str}
      mode: {description: "Mode of files, octal.", type: str, default: "0644"}
      validate:
        description:
          - Command that checks one file, with C(%s) for its path. The path ends in the file's own name.
        type: str
"""

RETURN = r"""
sets:
  description: What was done, by the name of the set.
  returned: always
  type: dict
  contains:
    changed: {description: Whether anything was done., type: bool}
    directory: {description: Its directory., type: str}
    written: {description: Names of files that were made or got another content or mode., type: list}
    missing: {description: Those among them that weren't there., type: list}
    removed: {description: Names of files that were removed., type: list}
    directories: {description: Folders that were made or got another mode or owner., type: list}
"""

import fnmatch
import grp
import os
import pwd
import shlex
import stat
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule


class Attributes(NamedTuple):
    """Wanted ownership of a file or directory; None leaves what is there."""

    uid: int | None
    gid: int | None
    mode: int


class Changes(NamedTuple):
    """What has to be done to a directory."""

    written: list[str]
    removed: list[str]


class FileSet(NamedTuple):
    """One of the sets, and what has to be done for it."""

    name: str
    directory: Path
    files: dict[str, str]
    wanted: Attributes
    validate: str | None
    changes: Changes
    first: Path | None
    directory_wanted: Attributes | None

    def directories(self) -> list[tuple[Path, Attributes]]:
        """Directories to make or to mend as things are now: a set before may have made some."""
        return plan_directories(self.directory, self.first, self.directory_wanted)

    def result(self) -> dict[str, Any]:
        """Its part of the module's result; as it is before anything is done."""
        directories = [str(path) for path, _ in self.directories()]
        return {
            "changed": bool(any(self.changes) or directories),
            "directory": str(self.directory),
            "written": self.changes.written,
            "missing": [name for name in self.changes.written if not os.path.lexists(self.directory / name)],
            "removed": self.changes.removed,
            "directories": directories,
        }

    def apply(self) -> None:
        """Do it."""
        for path, attributes in self.directories():
            set_directory(path, attributes)
        for name in self.changes.written:
            write_atomically(self.directory / name, self.files[name], self.wanted)
        for name in self.changes.removed:
            (self.directory / name).unlink()


def owned_names(directory: Path, patterns: list[str]) -> list[str]:
    """Names of regular files and links in `directory` that match a pattern."""
    if not directory.is_dir():
        return []
    return sorted(
        entry.name
        for entry in directory.iterdir()
        if (entry.is_symlink() or entry.is_file()) and any(fnmatch.fnmatchcase(entry.name, p) for p in patterns)
    )


def read_if_there(path: Path) -> str | None:
    """Content of a regular file, None when there is none (a link counts as none: it is replaced)."""
    if path.is_symlink() or not path.is_file():
        return None
    return path.read_bytes().decode("utf-8", "surrogateescape")


def attributes_differ(path: Path, wanted: Attributes) -> bool:
    """Whether owner, group or mode of an existing file differ from the wanted ones."""
    status = path.lstat()
    return (
        (wanted.uid is not None and status.st_uid != wanted.uid)
        or (wanted.gid is not None and status.st_gid != wanted.gid)
        or stat.S_IMODE(status.st_mode) != wanted.mode
    )


def plan_directories(directory: Path, first: Path | None, wanted: Attributes | None) -> list[tuple[Path, Attributes]]:
    """Directories to make or to mend, the outermost first.

    `directory`, and those on the way to it from `first` on, are brought to `wanted`; with None they only have to exist.
    """
    plain = Attributes(None, None, 0o755)
    ours = {directory}
    if first is not None:
        ours |= {path for path in directory.parents if path == first or first in path.parents}
    changes = []
    for path in reversed([directory, *directory.parents]):
        attributes = wanted if wanted is not None and path in ours else None
        if not path.is_dir():
            changes.append((path, attributes or plain))
        elif attributes is not None and attributes_differ(path.resolve(), attributes):
            changes.append((path, attributes))
    return changes


def set_directory(path: Path, wanted: Attributes) -> None:
    """Make a directory if need be and give it these attributes: `mkdir` alone leaves its mode to the umask."""
    if not path.is_dir():
        path.mkdir(mode=0o700)
    os.chown(path, -1 if wanted.uid is None else wanted.uid, -1 if wanted.gid is None else wanted.gid)
    path.chmod(wanted.mode)


def plan_changes(directory: Path, patterns: list[str], files: dict[str, str], wanted: Attributes) -> Changes:
    """Compare a directory with the wanted files."""
    written = []
    for name, content in sorted(files.items()):
        path = directory / name
        if read_if_there(path) != content or attributes_differ(path, wanted):
            written.append(name)
    removed = [name for name in owned_names(directory, patterns) if name not in files]
    return Changes(written, removed)


def misplaced_names(files: dict[str, str], patterns: list[str]) -> list[str]:
    """Names in `files` that no pattern owns, so that they would never be removed again."""
    return [
        name
        for name in sorted(files)
        if "/" in name or name in ("", ".", "..") or not any(fnmatch.fnmatchcase(name, p) for p in patterns)
    ]


def write_atomically(path: Path, content: str, wanted: Attributes) -> None:
    """Replace a file in one step; a reader sees the old or the new one, never a part."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content.encode("utf-8", "surrogateescape"))
            stream.flush()
            os.fchown(
                stream.fileno(),
                -1 if wanted.uid is None else wanted.uid,
                -1 if wanted.gid is None else wanted.gid,
            )
            os.fchmod(stream.fileno(), wanted.mode)
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _validate(module: AnsibleModule, owned: FileSet) -> None:
    if not owned.validate or not owned.changes.written:
        return
    executable = shlex.split(owned.validate)[0]
    # Before the first run the checker itself is not installed; only check mode may go on without it.
    if module.check_mode and not module.get_bin_path(executable) and not os.access(executable, os.X_OK):
        return
    with tempfile.TemporaryDirectory(prefix="owned-files-") as scratch:
        for name in owned.changes.written:
            path = Path(scratch) / name
            write_atomically(path, owned.files[name], owned.wanted)
            words = [word.replace("%s", str(path)) for word in shlex.split(owned.validate)]
            code, out, err = module.run_command(words)
            if code != 0:
                module.fail_json(
                    msg=f"{name} is not valid, nothing was changed in {owned.directory}: "
                    f"{(err.strip() or out.strip()).replace(scratch + '/', '')}",
                    file=name,
                    command=" ".join(words),
                )


def _diffs(owned: FileSet) -> list[dict[str, str]]:
    result = []
    for name in [*owned.changes.written, *owned.changes.removed]:
        path = owned.directory / name
        before, after = read_if_there(path) or "", owned.files.get(name, "")
        if before == after:
            before, after = "(other owner or mode)\n", "(owner and mode as wanted)\n"
        result.append({"before_header": str(path), "after_header": str(path), "before": before, "after": after})
    result += [
        {
            "before_header": str(path),
            "after_header": str(path),
            "before": f"{stat.S_IMODE(path.stat().st_mode):04o}\n" if path.is_dir() else "",
            "after": f"{attributes.mode:04o}\n",
        }
        for path, attributes in owned.directories()
    ]
    return result


def _attributes(module: AnsibleModule, arguments: dict[str, Any], prefix: str = "") -> Attributes:
    owner, group = arguments[f"{prefix}owner"], arguments[f"{prefix}group"]
    uid = gid = None
    # On a bare host in check mode the user does not exist yet; the comparison then leaves it out.
    try:
        if owner:
            uid = pwd.getpwnam(owner).pw_uid
        if group:
            gid = grp.getgrnam(group).gr_gid
    except KeyError as error:
        if not module.check_mode:
            module.fail_json(msg=f"{arguments['directory']}: no such user or group: {error}")
    return Attributes(uid, gid, int(arguments[f"{prefix}mode"], 8))


def _file_set(module: AnsibleModule, arguments: dict[str, Any]) -> FileSet:
    """Compare what is there with a set."""
    directory = Path(arguments["directory"])
    files = {name: str(content) for name, content in arguments["files"].items()}
    misplaced = misplaced_names(files, arguments["patterns"])
    if misplaced:
        module.fail_json(msg=f"no owned pattern matches {', '.join(misplaced)}: they could never be removed again")
    wanted = _attributes(module, arguments)
    return FileSet(
        arguments["name"],
        directory,
        files,
        wanted,
        arguments["validate"],
        plan_changes(directory, arguments["patterns"], files, wanted),
        Path(arguments["directory_from"]) if arguments["directory_from"] else None,
        _attributes(module, arguments, "directory_") if arguments["directory_mode"] else None,
    )


def main() -> None:
    options = {
        "name": {"type": "str", "required": True},
        "directory": {"type": "path", "required": True},
        "directory_mode": {"type": "str"},
        "directory_owner": {"type": "str"},
        "directory_group": {"type": "str"},
        "directory_from": {"type": "path"},
        "patterns": {"type": "list", "elements": "str", "required": True},
        "files": {"type": "dict", "required": True},
        "owner": {"type": "str"},
        "group": {"type": "str"},
        "mode": {"type": "str", "default": "0644"},
        "validate": {"type": "str"},
    }
    module = AnsibleModule(
        argument_spec={"sets": {"type": "list", "elements": "dict", "options": options, "required": True}},
        supports_check_mode=True,
    )
    names = [arguments["name"] for arguments in module.params["sets"]]
    if len(set(names)) != len(names):
        module.fail_json(msg=f"two sets have one name: {', '.join(names)}")
    sets = [_file_set(module, arguments) for arguments in module.params["sets"]]
    for owned in sets:
        _validate(module, owned)
    results = {owned.name: owned.result() for owned in sets}
    result: dict[str, Any] = {"changed": any(each["changed"] for each in results.values()), "sets": results}
    if module._diff:
        result["diff"] = [diff for owned in sets for diff in _diffs(owned)]
    if not module.check_mode:
        for owned in sets:
            owned.apply()
    module.exit_json(**result)


if __name__ == "__main__":
    main()
