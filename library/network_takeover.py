#!/usr/bin/python
"""Ansible module: other programs no longer configure the interfaces of a host, now and after a boot."""

from __future__ import annotations

DOCUMENTATION = r"""
module: network_takeover
short_description: Take the network over from other programs, and keep what they had
description:
  - Files are moved below I(kept), with their former path; one of a package is masked by a link to /dev/null instead.
  - A program that makes files at boot (a generator of systemd) is masked, so they don't come back. A service is stopped
    in a way that leaves its addresses, and is masked. So are the DHCP clients that ifupdown has started, which are
    units of nobody.
  - Links keep their names, as the variables know them by these; what a program has written to /run for udev is copied
    to /etc where it names a link.
  - What was taken over is noted in I(note), by which later runs know that this isn't the first.
options:
  files: {description: Files of systemd-networkd and udev., type: list, elements: path, default: []}
  managers: {description: Programs by name., type: list, elements: str, default: []}
  kept: {description: Folder for what was there., type: path, default: /var/lib/mpquic/before}
  note: {description: File that says what was taken over., type: path, default: /var/lib/mpquic/taken-over.json}
  root: {description: Where the host's files are., type: path, default: /}
"""

RETURN = r"""
taken: {description: Sentences on what was done., returned: always, type: list}
"""

import contextlib
import glob
import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

NAMING = re.compile(r"^\s*Name\s*=\s*\S", re.MULTILINE)
GENERATORS = "etc/systemd/system-generators"
CLOUD = "etc/cloud/cloud.cfg.d/99-mpquic-network.cfg"
CLOUD_TEXT = "# Written by Ansible (role networkd): systemd-networkd has the network.\nnetwork: {config: disabled}\n"
FILES_OF = {
    "netplan": ("etc/netplan/*.yaml", "run/netplan/*.yaml"),
    "cloud-init": ("etc/network/interfaces.d/50-cloud-init*", "etc/systemd/network/10-cloud-init*.network"),
}
SERVICES_OF = {
    "NetworkManager": (
        "NetworkManager.service",
        "NetworkManager-wait-online.service",
        "NetworkManager-dispatcher.service",
    ),
    "dhcpcd": ("dhcpcd.service",),
}
# What ifupdown starts for `inet dhcp`: the first it finds. On Debian 13 that is dhcpcd, without a unit of its own.
DHCP_CLIENTS = frozenset({"dhclient", "dhcpcd", "udhcpc"})
PACKAGED = ("usr/lib/", "usr/local/lib/", "lib/")


class Host:
    """The files of a host, and what is to be done to them."""

    def __init__(self, root: Path, kept: Path, *, dry: bool) -> None:
        self._root = root
        self._kept = kept
        self._dry = dry
        self.taken: list[str] = []

    def move(self, path: str) -> None:
        """Move a file below the folder of what is kept; mask one that a package brings."""
        relative = path.lstrip("/")
        place = self._root / relative
        if not place.exists() and not place.is_symlink():
            return
        if relative.startswith(PACKAGED):
            self.mask(f"etc/systemd/network/{place.name}")
            return
        self.taken.append(f"moved {path}")
        if self._dry:
            return
        self._keep(place, relative)

    def _keep(self, place: Path, relative: str) -> None:
        """Move a file to where things are kept."""
        target = self._kept / relative
        folder = self._kept
        for part in ("", *Path(relative).parent.parts):
            folder = folder / part
            if folder.is_symlink():
                raise NotADirectoryError(f"{folder} is a symbolic link, and the former files would go elsewhere")
        target.parent.mkdir(parents=True, exist_ok=True)
        # An earlier one stays: the first is what the host had before the suite.
        names = [target.name, *(f"{target.name}.{number}" for number in range(1, 1000))]
        free = next(name for name in names if not os.path.lexists(target.with_name(name)))
        shutil.move(str(place), target.with_name(free))

    def mask(self, relative: str) -> None:
        """Make a link to /dev/null, which says that a file of that name in a later folder doesn't count."""
        place = self._root / relative
        if place.is_symlink() and os.readlink(place) == os.devnull:  # noqa: PTH115
            return
        self.taken.append(f"masked /{relative}")
        if not self._dry:
            place.parent.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(place):
                self._keep(place, relative)
            place.symlink_to(os.devnull)

    def give_way(self, relative: str) -> None:
        """Move a file, but no link, below the folder of what is kept."""
        place = self._root / relative
        if place.is_file() and not place.is_symlink():
            self.move(f"/{relative}")

    def write(self, relative: str, text: str) -> None:
        """Write a file that isn't there with this text."""
        place = self._root / relative
        if place.is_file() and place.read_text() == text:
            return
        self.taken.append(f"wrote /{relative}")
        if not self._dry:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
            place.chmod(0o644)

    def keep_name(self, path: str) -> None:
        """Copy a .link file of /run that names a link to /etc, where it stays."""
        source, place = self._root / path.lstrip("/"), self._root / "etc/systemd/network" / Path(path).name
        text = source.read_text(errors="replace")
        if NAMING.search(text.partition("[Link]")[2]) and not os.path.lexists(place):
            self.write(str(place.relative_to(self._root)), text)

    def matching(self, pattern: str) -> list[str]:
        """Paths on the host that match a pattern."""
        return [f"/{Path(path).relative_to(self._root)}" for path in sorted(glob.glob(str(self._root / pattern)))]  # noqa: PTH207


def take_files(host: Host, manager: str) -> None:
    """Take the files of a program, and keep it from making them again."""
    for pattern in FILES_OF.get(manager, ()):
        for path in host.matching(pattern):
            host.move(path)
    if manager == "netplan":
        for path in host.matching("run/systemd/network/*-netplan-*.link"):
            host.keep_name(path)
        host.mask(f"{GENERATORS}/netplan")
    if manager == "cloud-init":
        host.write(CLOUD, CLOUD_TEXT)


def dhcp_clients(processes: Path = Path("/proc")) -> dict[int, str]:
    """Ids and names of the DHCP clients in our network namespace; those of containers aren't for our links."""
    ours = os.readlink(processes / "self/ns/net")  # noqa: PTH115
    found = {}
    for folder in processes.iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            name = (folder / "comm").read_text().strip()
            if name in DHCP_CLIENTS and os.readlink(folder / "ns/net") == ours:  # noqa: PTH115
                found[int(folder.name)] = name
        except OSError:
            # It has ended meanwhile.
            continue
    return found


def stop_dhcp_clients(host: Host, clients: dict[int, str], *, dry: bool) -> None:
    """Kill DHCP clients: asked to end, they would take their addresses away, and this run with them."""
    for process, name in sorted(clients.items()):
        host.taken.append(f"stopped {name}, process {process}")
        if not dry:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def note_of(path: Path) -> dict[str, list[str]] | None:
    """What earlier runs have noted; None without a note or with a damaged one."""
    try:
        note = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) else None


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "list", "elements": "path", "default": []},
            "managers": {"type": "list", "elements": "str", "default": []},
            "kept": {"type": "path", "default": "/var/lib/mpquic/before"},
            "note": {"type": "path", "default": "/var/lib/mpquic/taken-over.json"},
            "root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )
    params = module.params
    os.umask(0o022)
    host = Host(Path(params["root"]), Path(params["kept"]), dry=module.check_mode)

    def systemctl(*words: str) -> tuple[int, str]:
        code, out, err = module.run_command(["systemctl", *words])
        return code, str(err or out).strip()

    for manager in params["managers"]:
        try:
            take_files(host, manager)
        except OSError as error:
            module.fail_json(msg=str(error))
        for unit in SERVICES_OF.get(manager, ()):
            if systemctl("cat", unit)[0] != 0:
                continue
            # Where somebody has put a unit of his own into /etc, there is no place for the link that masks it.
            host.give_way(f"etc/systemd/system/{unit}")
            host.taken.append(f"masked {unit}")
            if module.check_mode:
                continue
            code, text = systemctl("mask", unit)
            if code != 0:
                module.fail_json(msg=f"{unit} can't be masked: {text}; mask it by hand, then run again")
            # Asked to end, a DHCP client takes its addresses away; systemd-networkd has taken them over.
            systemctl("kill", "--kill-whom=all", "--signal=KILL", unit)
            systemctl("stop", unit)
        if manager == "ifupdown":
            stop_dhcp_clients(host, dhcp_clients(), dry=module.check_mode)
    try:
        for path in params["files"]:
            host.move(path)
    except OSError as error:
        module.fail_json(msg=str(error))
    note = Path(params["note"])
    entry: dict[str, Any] = {"files": params["files"], "managers": params["managers"]}
    before = note_of(note)
    # The note is written at the end: an interrupted run is still the first.
    after = {key: sorted({*(before or {}).get(key, []), *entry[key]}) for key in entry}
    if not module.check_mode and after != before:
        note.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        # In one step: half a note would be none.
        draft = note.with_name(f".{note.name}")
        draft.write_text(json.dumps(after) + "\n")
        draft.chmod(0o644)
        draft.replace(note)
    module.exit_json(changed=bool(host.taken) or after != before, taken=host.taken)


if __name__ == "__main__":
    main()
