#!/usr/bin/python
"""Ansible module: systemd-networkd runs with the files that are on disk and understood every line of them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: networkd_apply
short_description: Reload systemd-networkd when its files aren't the applied ones
description:
  - The sum of the files that were applied last is kept in I(stamp), so a play that was interrupted between writing and
    reloading is made good by the next one.
  - systemd-networkd only logs a key that it doesn't know. The journal of the reload is read; such a line is a failure.
  - A VLAN device that somebody has deleted isn't made again by a reload, but when the link below is configured anew; a
    changed file of a VLAN that there has been is read by a restart only (systemd 252).
options:
  directory: {description: Where the files are., type: path, default: /etc/systemd/network}
  patterns: {description: Shell patterns of our files., type: list, elements: str, required: true}
  extra_files: {description: Files that need a restart when they change., type: list, elements: path, default: []}
  stamp: {description: File that holds the sums of what was applied., type: path, required: true}
  force: {description: Reload although the sums agree., type: bool, default: false}
  restart: {description: Restart although a reload would do., type: bool, default: false}
  links: {description: Virtual links that must exist afterwards., type: list, elements: str, default: []}
  vlans:
    description: VLAN devices that must exist where the link below them does; that link by their name.
    type: dict
    default: {}
  timeout: {description: Seconds to wait for the links., type: int, default: 20}
"""

RETURN = r"""
action: {description: What was done., returned: always, type: str, sample: reload}
"""

import hashlib
import os
import re
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

COMPLAINT = re.compile(
    r"(unknown (key|section|lvalue)|ignoring|failed to parse|missing '='|invalid (section|line)|not a valid)",
    re.IGNORECASE,
)
# These name a state of a link, not a mistake in a file.
HARMLESS = re.compile(r"(ignoring DHCP|ignoring DHCPv6|ignoring the (received|assigned))", re.IGNORECASE)


def matching(directory: Path, patterns: list[str]) -> list[Path]:
    """Files of a directory that match a pattern, each once."""
    return sorted({path for pattern in patterns for path in directory.glob(pattern)})


def sum_of(paths: list[Path]) -> str:
    """One sum over names and contents, and who may enter the folders: networkd reads them as a user of its own."""
    digest = hashlib.sha256()
    for folder in sorted({path.parent for path in paths}):
        digest.update(f"{folder.stat().st_mode if folder.is_dir() else 0:o}\0".encode())
    for path in sorted(paths):
        digest.update(f"{path.name}\0".encode())
        digest.update(path.read_bytes() if path.is_file() else b"-")
        digest.update(b"\0")
    return digest.hexdigest()


def absent(links: list[str], vlans: dict[str, str], present: Path = Path("/sys/class/net")) -> list[str]:
    """Names of links that aren't there; of VLANs those whose link below is."""
    made = [*links, *(name for name, below in vlans.items() if (present / below).exists())]
    return [name for name in made if not (present / name).exists()]


def complaints(journal: str, names: list[str]) -> list[str]:
    """Lines of the journal that say that a line of one of our files was not understood."""
    return [
        line
        for line in journal.splitlines()
        if COMPLAINT.search(line) and not HARMLESS.search(line) and any(name in line for name in names)
    ]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "default": "/etc/systemd/network"},
            "patterns": {"type": "list", "elements": "str", "required": True},
            "extra_files": {"type": "list", "elements": "path", "default": []},
            "stamp": {"type": "path", "required": True},
            "force": {"type": "bool", "default": False},
            "restart": {"type": "bool", "default": False},
            "links": {"type": "list", "elements": "str", "default": []},
            "vlans": {"type": "dict", "default": {}},
            "timeout": {"type": "int", "default": 20},
        },
        supports_check_mode=True,
    )
    params = module.params
    files = matching(Path(params["directory"]), params["patterns"])
    extra = [Path(path) for path in params["extra_files"]]
    stamp = Path(params["stamp"])
    wanted = [sum_of(files), sum_of(extra)]
    applied = stamp.read_text().split() if stamp.is_file() else ["", ""]
    missing = absent(params["links"], params["vlans"])
    if wanted[1:] != applied[1:] or params["restart"]:
        action = "restart"
    elif wanted != applied or params["force"] or missing:
        action = "reload"
    else:
        action = "none"
    if action == "none" or module.check_mode:
        module.exit_json(changed=action != "none", action=action)

    def run(*words: str) -> str:
        code, out, err = module.run_command(list(words))
        if code != 0:
            module.fail_json(msg=f"{' '.join(words)}: {err.strip() or out.strip()}")
        return str(out)

    since = f"@{time.time():.6f}"
    if action == "restart":
        run("systemctl", "restart", "systemd-networkd.service")
    else:
        run("networkctl", "reload")
        # A restart sees to all links by itself.
        missing = absent(params["links"], params["vlans"])
        for below in sorted({params["vlans"][name] for name in missing if name in params["vlans"]}):
            run("networkctl", "reconfigure", below)
    deadline = time.monotonic() + params["timeout"]
    while missing := absent(params["links"], params["vlans"]):
        if time.monotonic() > deadline:
            module.fail_json(
                msg=f"systemd-networkd did not make {', '.join(missing)} within {params['timeout']} s; "
                "see journalctl -u systemd-networkd",
            )
        time.sleep(0.1)
    run("journalctl", "--sync")
    journal = run("journalctl", "--unit=systemd-networkd.service", "--output=cat", "--no-pager", f"--since={since}")
    bad = complaints(journal, [path.name for path in [*files, *extra]])
    if bad:
        module.fail_json(msg="systemd-networkd did not understand its files: " + "; ".join(bad), lines=bad)
    os.umask(0o022)
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text("\n".join(wanted) + "\n")
    module.exit_json(changed=True, action=action)


if __name__ == "__main__":
    main()
