#!/usr/bin/python
"""Ansible module: what runs and routes on a host at this moment, for `playbooks/check.yml` to judge."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_check
short_description: Look at units, processes, rules, routes and files of ours
description:
  - Reads, and changes nothing. What it finds is judged on the controller (package C(mpquic_plan.check)).
options:
  units: {description: Shell patterns of units that are ours., type: list, elements: str, default: ["mpquic*"]}
  releases: {description: Folder of the releases., type: path, default: /opt/mpquic/releases}
  pki: {description: Folder of the certificates., type: path, default: /etc/mpquic/pki}
  mpquicctl: {description: The operator's command., type: path, default: /usr/local/bin/mpquicctl}
"""

RETURN = r"""
look: {description: Plain data; each part is described where it is gathered., returned: always, type: dict}
"""

import glob
import json
import os
import re
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

PROPERTIES = (
    "Id", "LoadState", "ActiveState", "UnitFileState", "Result", "MainPID", "NRestarts", "NeedDaemonReload",
    "ActiveEnterTimestampMonotonic",
)  # fmt: skip
FILTER_FILE = "/etc/mpquic/nftables.nft"
LOAD_APART = 'nft --file "$0" && nft --stateless list table inet mpquic'
# What a run of site.yml writes when it starts or restarts something.
STAMPS = ("/var/lib/mpquic/applied/*", "/var/lib/mpquic/networkd.applied", FILTER_FILE)
# Where administrators keep rules of their own, and a table of ours in such a file.
FILTER_FILES = ("/etc/nftables.conf", "/etc/nftables.d/*", "/etc/nftables/*", "/etc/sysconfig/nftables.conf")
OUR_TABLE = re.compile(
    r"^[ \t]*(?:(?:add|create)[ \t]+)?table[ \t]+inet[ \t]+(mpquic(?:_guard)?)(?![\w-])", re.MULTILINE
)
OUR_NETWORK_FILES = "/etc/systemd/network/*-mpquic-*"
LARGEST_FILE = 1 << 20


def read(path: str | Path) -> str | None:
    """Text of a regular file of a sensible size, None when it can't be read or is none."""
    try:
        if not os.path.isfile(path):  # noqa: PTH113
            return None
        with open(path, "rb") as stream:  # noqa: PTH123
            return stream.read(LARGEST_FILE).decode("utf-8", "replace")
    except OSError:
        return None


def unit_blocks(text: str) -> dict[str, dict[str, str]]:
    """Properties of each unit in the output of `systemctl show`; not those of units that don't exist."""
    units = {}
    for block in text.strip().split("\n\n"):
        fields = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if fields.get("Id") and fields.get("LoadState") != "not-found":
            units[fields["Id"]] = fields
    return units


def unit_names(listing: str) -> list[str]:
    """Names in `systemctl list-units` and `list-unit-files` without legend; templates are no units."""
    words = (line.split()[0] for line in listing.splitlines() if line.split())
    return [name for name in dict.fromkeys(words) if "@." not in name]


def running_release(maps: str, releases: str) -> str | None:
    """The release whose files a process has mapped (/proc/PID/maps), also if they are deleted; None if it has none.

    The link `current`, and the command line that goes by it, tell what the next start would run.
    """
    found = re.findall(re.escape(releases) + r"/([^/\s]+)/", maps)
    return found[-1] if found else None


def last_stamp(patterns: tuple[str, ...]) -> float | None:
    """When the newest of these files was written, in seconds of the clock; None without any."""
    times = []
    for path in (path for pattern in patterns for path in glob.glob(pattern)):  # noqa: PTH207
        try:
            times.append(os.stat(path).st_mtime)  # noqa: PTH116
        except OSError:
            continue
    return max(times, default=None)


def saved_tables(patterns: tuple[str, ...]) -> dict[str, list[str]]:
    """The tables of ours that these files make, by file; not the files that make none."""
    found = {}
    for path in sorted(path for pattern in patterns for path in glob.glob(pattern)):  # noqa: PTH207
        tables = sorted(set(OUR_TABLE.findall(read(path) or "")))
        if tables:
            found[path] = tables
    return found


def carriers(folder: str = "/sys/class/net") -> dict[str, bool]:
    """Links by name, and whether each is up and connected."""
    return {name: (read(f"{folder}/{name}/carrier") or "").strip() == "1" for name in os.listdir(folder)}  # noqa: PTH208


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "list", "elements": "str", "default": ["mpquic*"]},
            "releases": {"type": "path", "default": "/opt/mpquic/releases"},
            "pki": {"type": "path", "default": "/etc/mpquic/pki"},
            "mpquicctl": {"type": "path", "default": "/usr/local/bin/mpquicctl"},
        },
        supports_check_mode=True,
    )
    params = module.params

    def output(*words: str) -> str:
        """Standard output of a command, '' when it isn't installed or fails."""
        program = module.get_bin_path(words[0], opt_dirs=["/usr/sbin", "/sbin"])
        if program is None:
            return ""
        code, out, _ = module.run_command([program, *words[1:]])
        return str(out) if code == 0 else ""

    def listing(*words: str) -> list[dict[str, Any]]:
        return [entry for entry in json.loads(output(*words) or "[]") if entry]

    names = unit_names(
        output("systemctl", "list-unit-files", "--no-legend", "--full", "--type=service", *params["units"])
        + output(
            "systemctl", "list-units", "--no-legend", "--plain", "--full", "--all", "--type=service", *params["units"]
        )
    )
    units = unit_blocks(output("systemctl", "show", f"--property={','.join(PROPERTIES)}", *names)) if names else {}
    for unit in units.values():
        maps = read(f"/proc/{unit['MainPID']}/maps") if unit.get("MainPID", "0") != "0" else None
        unit["Release"] = running_release(maps, params["releases"]) if maps else None
    pki = Path(params["pki"])
    current = Path(params["releases"]).with_name("current")
    look: dict[str, Any] = {
        "time": time.time(),
        # What systemd counts its timestamps by.
        "monotonic": time.clock_gettime(time.CLOCK_MONOTONIC),
        "uptime": float((read("/proc/uptime") or "0").split()[0]),
        "units": units,
        "current_release": Path(os.readlink(current)).name if current.is_symlink() else None,  # noqa: PTH115
        "versions": json.loads(output(params["mpquicctl"], "version", "--json") or "[]"),
        "applied": last_stamp(STAMPS),
        # Whether each is up and connected.
        "links": carriers(),
        # -N: numbers in place of names, which are anybody's to choose (/etc/iproute2).
        "rules": {
            family: listing("ip", f"-{family[-1]}", "-json", "-N", "rule", "show") for family in ("ipv4", "ipv6")
        },
        "routes": {
            family: listing("ip", f"-{family[-1]}", "-json", "-N", "route", "show", "table", "all")
            for family in ("ipv4", "ipv6")
        },
        "network_files": {path: read(path) or "" for path in sorted(glob.glob(OUR_NETWORK_FILES))},  # noqa: PTH207
        "filter_file": read(FILTER_FILE),
        # As nft writes it: what is loaded, and what the file makes in a network namespace that ends with the command.
        "filter": output("nft", "--stateless", "list", "table", "inet", "mpquic"),
        "filter_wanted": output("unshare", "--net", "sh", "-c", LOAD_APART, FILTER_FILE),
        "saved_tables": saved_tables(FILTER_FILES),
        "resolv_conf": read("/etc/resolv.conf"),
        "revoked": read(pki / "revoked"),
    }
    module.exit_json(changed=False, look=look)


if __name__ == "__main__":
    main()
