#!/usr/bin/python
"""Ansible module: a release of a Python program is installed from an archive of wheels and is the current one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: venv_release
short_description: Install wheels into a virtual environment of their own and switch to it
description:
  - Installs beside the running release, without any index, each wheel checked by its hash. Only a complete release
    becomes C(current), by the replacement of one symbolic link.
options:
  root: {description: "Folder that holds C(releases) and C(current).", type: path, required: true}
  release: {description: Name of the release., type: str, required: true}
  archive:
    description: Tar file on the host with the wheels and install.txt, and nothing else.
    type: path
  sha256: {description: "What the archive must have, as the controller knows it; needed with I(archive).", type: str}
  limit: {description: Bytes that the files of the archive may have together., type: int, default: 8000000}
  python: {description: Python for the virtual environment., type: path, default: /usr/bin/python3}
  commands: {description: Commands that are linked into I(links)., type: list, elements: str, default: []}
  links: {description: Folder of the links to commands., type: path, default: /usr/local/bin}
  shared:
    description: Files below C(share) of the virtual environment that are linked into I(share), at the same place.
    type: list
    elements: str
    default: []
  share: {description: Folder of the links to man pages and completions., type: path, default: /usr/local/share}
  keep: {description: How many releases stay., type: int, default: 3}
"""

RETURN = r"""
installed: {description: Whether the release was installed now., returned: always, type: bool}
switched: {description: Whether it became the current one now., returned: always, type: bool}
removed: {description: Old releases that were removed., returned: always, type: list}
"""

import errno
import hashlib
import io
import os
import shutil
import stat
import tarfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

MARKER = "complete"
OVERHEAD = 1 << 20
"""Bytes of an archive beside its files, at most."""
FULL = 1 << 20
"""Free bytes with which a tool that failed, failed for want of room."""


def surplus(releases: Path, current: str, keep: int) -> list[str]:
    """Releases to remove: all but the current one and the latest complete others; incomplete ones always."""
    if not releases.is_dir():
        return []
    others = [path for path in releases.iterdir() if path.is_dir() and path.name != current]
    complete = [path for path in others if (path / MARKER).is_file()]
    complete.sort(key=lambda path: (path / MARKER).stat().st_mtime, reverse=True)
    stay = {path.name for path in complete[: max(keep - 1, 0)]}
    return sorted(path.name for path in others if path.name not in stay)


def point(link: Path, target: str) -> None:
    """Make `link` a symbolic link to `target` in one step."""
    temporary = link.with_name(f".{link.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)


def closed(folder: Path) -> list[Path]:
    """Folders on the way from `folder` to the commands of its releases that others than the owner can't pass."""
    return [
        path for path in (folder, folder / "releases") if path.is_dir() and stat.S_IMODE(path.stat().st_mode) != 0o755
    ]


def leads_to(link: Path, target: str) -> bool:
    """Whether a symbolic link has exactly this target."""
    return link.is_symlink() and os.readlink(link) == target  # noqa: PTH115


class ArchiveError(Exception):
    """The archive isn't what the controller made."""


def read_archive(archive: Path, sha256: str, limit: int) -> dict[str, bytes]:
    """Files of the archive by name. It is read once, and not looked into before its sum is right. ArchiveError."""
    try:
        with os.fdopen(os.open(archive, os.O_RDONLY | os.O_NOFOLLOW), "rb") as stream:
            data = stream.read(limit + OVERHEAD)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ArchiveError(f"{archive} is a symbolic link, which no run of ours made: remove it") from error
        raise ArchiveError(f"{archive}: {error.strerror}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise ArchiveError(
            f"{archive} has the SHA-256 {found}, the controller's has {sha256}: it was cut or changed on the way; "
            "run site.yml again"
        )
    files: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            if not member.isfile() or "/" in member.name or member.name.startswith("."):
                raise ArchiveError(f"{archive} holds {member.name}, which is no wheel")
            limit -= member.size
            if limit < 0:
                raise ArchiveError(f"{archive} holds more than it may")
            source = tar.extractfile(member)
            files[member.name] = source.read() if source is not None else b""
    return files


def explain(error: str, folder: Path) -> str:
    """What a tool said, or that the disk is full, which few of them say themselves."""
    room = os.statvfs(folder)
    free = room.f_bavail * room.f_frsize
    if "No space left" in error or free < FULL:
        return f"the disk is full: {free / 1e6:.1f} MB are free for {folder}; free some and run site.yml again"
    return error


def _install(module: AnsibleModule, folder: Path) -> None:
    if not module.params["archive"]:
        module.fail_json(msg=f"{folder} is not installed and no archive is given")
    try:
        files = read_archive(Path(module.params["archive"]), module.params["sha256"] or "", module.params["limit"])
    except ArchiveError as error:
        module.fail_json(msg=str(error))
    shutil.rmtree(folder, ignore_errors=True)
    wheels, scratch = folder / "wheels", folder / "tmp"
    try:
        wheels.mkdir(parents=True)
        scratch.mkdir()
        for name, data in files.items():
            (wheels / name).write_bytes(data)
        _build(module, folder, wheels, scratch)
        shutil.rmtree(wheels)
        shutil.rmtree(scratch)
        (folder / MARKER).write_text(f"{folder.name}\n")
    except OSError as error:
        message = explain(f"{error.filename}: {error.strerror}", folder.parent)
        shutil.rmtree(folder, ignore_errors=True)
        module.fail_json(msg=message)


def _build(module: AnsibleModule, folder: Path, wheels: Path, scratch: Path) -> None:
    venv = folder / "venv"
    for words in (
        [module.params["python"], "-m", "venv", str(venv)],
        [
            str(venv / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index",
            "--no-deps", "--require-hashes", f"--find-links={wheels}", f"--requirement={wheels / 'install.txt'}",
        ],
    ):  # fmt: skip
        # Their temporary files are where there was room for the release, and nobody else writes.
        environment = {"PIP_CONFIG_FILE": os.devnull, "TMPDIR": str(scratch)}
        code, out, err = module.run_command(words, environ_update=environment, umask=0o022)
        if code != 0:
            message = explain(f"{' '.join(words[:4])}: {(err or out).strip()[-2000:]}", folder.parent)
            shutil.rmtree(folder, ignore_errors=True)
            module.fail_json(msg=message)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "release": {"type": "str", "required": True},
            "archive": {"type": "path"},
            "sha256": {"type": "str"},
            "limit": {"type": "int", "default": 8_000_000},
            "python": {"type": "path", "default": "/usr/bin/python3"},
            "commands": {"type": "list", "elements": "str", "default": []},
            "links": {"type": "path", "default": "/usr/local/bin"},
            "shared": {"type": "list", "elements": "str", "default": []},
            "share": {"type": "path", "default": "/usr/local/share"},
            "keep": {"type": "int", "default": 3},
        },
        supports_check_mode=True,
    )
    params = module.params
    os.umask(0o022)
    root, links = Path(params["root"]), Path(params["links"])
    releases = root / "releases"
    folder, current = releases / params["release"], root / "current"
    target = f"releases/{params['release']}"
    install = not (folder / MARKER).is_file()
    switch = not leads_to(current, target)
    command_targets = {links / name: str(current / "venv/bin" / name) for name in params["commands"]}
    shared_targets = {Path(params["share"]) / name: str(current / "venv/share" / name) for name in params["shared"]}
    unlinked = {link: to for link, to in (command_targets | shared_targets).items() if not leads_to(link, to)}
    mended = closed(root)
    if not module.check_mode:
        if install:
            _install(module, folder)
        for path in mended:
            path.chmod(0o755)
        if switch:
            point(current, target)
        for link, to in unlinked.items():
            link.parent.mkdir(parents=True, exist_ok=True)
            point(link, to)
    removed = surplus(releases, params["release"], params["keep"])
    if not module.check_mode:
        for name in removed:
            shutil.rmtree(releases / name)
    result = {
        "changed": bool(install or switch or unlinked or removed or mended),
        "installed": install,
        "switched": switch,
        "removed": removed,
    }
    if module._diff and switch:
        result["diff"] = {
            "before": f"{current} -> {os.readlink(current) if current.is_symlink() else ''}\n",  # noqa: PTH115
            "after": f"{current} -> {target}\n",
        }
    module.exit_json(**result)


if __name__ == "__main__":
    main()
