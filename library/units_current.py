#!/usr/bin/python
"""Ansible module: running services run with the files that are on disk."""

from __future__ import annotations

DOCUMENTATION = r"""
module: units_current
short_description: Restart or reload running services whose files changed since they were started
description:
  - Keeps copies of what each unit was started with below I(state). A play that was interrupted between writing a file
    and restarting is made good by the next one.
  - Unit files that changed on disk are read again first.
  - Only running units are touched; whether a unit runs is decided elsewhere. Running units of ours that aren't named
    are stopped, as they are gone or out of service.
  - A masked unit that runs is left alone. systemd refuses to restart and to reload it.
options:
  units:
    description:
      - Units, each with C(name), C(restart_files), and optionally C(config), a file of which parts may be hot, and
        C(reload_files), which a reload reads again.
    type: list
    elements: dict
    required: true
  compare:
    description:
      - Command that says how an old and a new C(config) differ; C(%old) and C(%new) are replaced. It prints C(restart)
        when a reload is not enough. Without it every change restarts.
    type: list
    elements: str
    default: []
  patterns: {description: Shell patterns of running units that are ours., type: list, elements: str, default: []}
  state: {description: Folder for the copies., type: path, required: true}
  force: {description: "Units that are known to change, for check mode.", type: list, elements: str, default: []}
"""

RETURN = r"""
restarted: {description: Units., returned: always, type: list}
reloaded: {description: Units., returned: always, type: list}
stopped: {description: Units., returned: always, type: list}
masked: {description: Units that run with former files as somebody has masked them., returned: always, type: list}
late: {description: Restarted units that didn't start at once and are tried again., returned: always, type: list}
"""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule


def sum_of(files: list[str]) -> str:
    """Sum over the contents of files, following links; a missing one counts as empty."""
    digest = hashlib.sha256()
    for name in files:
        path = Path(name).resolve()
        digest.update(f"{path}\0".encode())
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


class Applied:
    """What a unit was started with."""

    def __init__(self, state: Path, unit: dict[str, Any]) -> None:
        self.sum_file = state / f"{unit['name']}.sum"
        self.config_copy = state / f"{unit['name']}.config"
        self.config = Path(unit["config"]) if unit.get("config") else None
        self._restart_files = list(unit["restart_files"])
        self.reload_sum_file = state / f"{unit['name']}.reload"
        self._reload_files = list(unit.get("reload_files", []))

    def need(self) -> str:
        """`none`, `restart`, `config` when only the configuration differs, or `reload` when only other hot files do."""
        if not self.sum_file.is_file() or self.sum_file.read_text() != sum_of(self._restart_files):
            return "restart"
        if self.config is not None:
            if not self.config_copy.is_file():
                return "restart"
            if self.config.is_file() and self.config_copy.read_bytes() != self.config.read_bytes():
                return "config"
        if self._reload_files:
            former = self.reload_sum_file.read_text() if self.reload_sum_file.is_file() else ""
            if former != sum_of(self._reload_files):
                return "reload"
        return "none"

    def remember(self) -> None:
        """Note the files of now as those the unit runs with."""
        state = self.sum_file.parent
        state.mkdir(parents=True, exist_ok=True)
        # Copies of configurations are root's alone, whatever the umask was or is.
        state.chmod(0o700)
        if self.config is not None and self.config.is_file():
            shutil.copyfile(self.config, self.config_copy)
        self.sum_file.write_text(sum_of(self._restart_files))
        if self._reload_files:
            self.reload_sum_file.write_text(sum_of(self._reload_files))
        else:
            self.reload_sum_file.unlink(missing_ok=True)

    def forget(self) -> None:
        """Remove the notes of a unit."""
        self.sum_file.unlink(missing_ok=True)
        self.config_copy.unlink(missing_ok=True)
        self.reload_sum_file.unlink(missing_ok=True)


def needs_restart(module: AnsibleModule, applied: Applied) -> bool:
    """Ask whether a changed configuration needs a restart."""
    command = module.params["compare"]
    if not command:
        return True
    places = {"%old": str(applied.config_copy), "%new": str(applied.config)}
    code, out, err = module.run_command([places.get(word, word) for word in command])
    if code != 0:
        # The old copy may have been written for a release that knew other keys.
        module.warn(f"{applied.config}: restart, as it can't be compared with the running one: {err.strip()[-300:]}")
        return True
    return "restart" in out.split()


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "list", "elements": "dict", "required": True},
            "compare": {"type": "list", "elements": "str", "default": []},
            "patterns": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "path", "required": True},
            "force": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    systemctl = module.get_bin_path("systemctl", required=True)
    os.umask(0o022)
    state = Path(module.params["state"])

    def run(*words: str) -> str:
        code, out, err = module.run_command([systemctl, *words])
        if code != 0:
            module.fail_json(msg=f"systemctl {' '.join(words)}: {err.strip() or out.strip()}")
        return str(out)

    listed: list[str] = []
    if module.params["patterns"]:
        listing = run(
            "list-units", "--plain", "--no-legend", "--full", "--all", "--type=service", *module.params["patterns"]
        )
        # Unit, whether it is loaded, whether it is active: what is listed may have ended long ago.
        fields = [line.split() for line in listing.splitlines()]
        listed = [words[0] for words in fields if len(words) > 2 and words[2] != "inactive"]
    names = [unit["name"] for unit in module.params["units"]]
    stale = run("show", "--property=NeedDaemonReload", "--value", *names).split() if names else []
    if "yes" in stale and not module.check_mode:
        run("daemon-reload")
    stopped = sorted(set(listed) - set(names))
    restarted: list[str] = []
    late: list[str] = []
    reloaded: list[str] = []
    masked: list[str] = []
    for unit in module.params["units"]:
        shown = run("show", "--property=ActiveState,LoadState", unit["name"])
        states = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        applied = Applied(state, unit)
        if states.get("ActiveState") in ("inactive", "failed"):
            # It starts with the files of then; a copy of an earlier run would only mislead.
            if not module.check_mode:
                applied.remember()
            continue
        need = applied.need()
        if need == "none" and unit["name"] in module.params["force"]:
            need = "restart"
        if need != "none" and states.get("LoadState") == "masked":
            masked.append(unit["name"])
        elif need == "reload" or (need == "config" and not needs_restart(module, applied)):
            reloaded.append(unit["name"])
        elif need != "none":
            restarted.append(unit["name"])
    if not module.check_mode:
        if stopped:
            run("stop", *stopped)
            module.run_command([systemctl, "reset-failed", *stopped])
        if reloaded:
            run("reload", *reloaded)
        if restarted:
            # One that doesn't start, say for want of its port, is tried again by systemd, with the files of then: no
            # reason to leave the others half-way. The verification at the end of the run waits, and tells the cause.
            module.run_command([systemctl, "try-restart", *restarted])
            after = run("show", "--property=ActiveState", "--value", *restarted).split()
            late = [name for name, state_ in zip(restarted, after, strict=True) if state_ != "active"]
            if late:
                module.warn(f"{', '.join(late)} did not start at once and will be tried again")
        for unit in module.params["units"]:
            if unit["name"] in (*reloaded, *restarted):
                Applied(state, unit).remember()
        for name in stopped:
            Applied(state, {"name": name, "restart_files": []}).forget()
    module.exit_json(
        changed=bool(restarted or reloaded or stopped),
        restarted=restarted,
        reloaded=reloaded,
        stopped=stopped,
        masked=masked,
        late=late,
    )


if __name__ == "__main__":
    main()
