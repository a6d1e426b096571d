"""The ssh way into the machines: what a controller at a provider has, instead of the lab's own way by namespaces.

The controller's side is the namespace `mgmt`, in which the programs `mpqlab-ssh`, `mpqlab-sftp` and `mpqlab-scp` run
OpenSSH's. They read a configuration of the lab and none of the user's: an own key, and the machines' host keys, which
are checked. In the machines a user without password may do everything by sudo.
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mpqlab import topology
from mpqlab.errors import LabError
from mpqlab.run import inside, run
from mpqlab.topology import CLIENT, HOSTNAMES, MACHINES, MANAGEMENT, MGMT, RUN, VPS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mpqlab.machine import Machine
    from mpqlab.state import State

USER = "operator"
INVENTORY = RUN / "ssh.yml"
ADDRESSES = {
    CLIENT: (str(MANAGEMENT[0].client.ip), str(MANAGEMENT[1].client.ip)),
    VPS: (str(topology.VPS_ADDRESS.ip),),
}
"""Addresses of the machines as the controller knows them, the one that it uses first."""
PROGRAMS = ("ssh", "sftp", "scp")
FROM = "MPQLAB_SSH_FROM"
"""Environment variable with the node in which the programs run: the controller is elsewhere, say behind a LAN."""
_FOLDER = RUN / "ssh"
_KEY = _FOLDER / "id_ed25519"
_KNOWN_HOSTS = _FOLDER / "known_hosts"
_CONFIG = _FOLDER / "config"
CONTROL = _FOLDER / "control"
"""Folder of the sockets of connections that are kept open."""

_CONFIG_TEXT = f"""\
Host *
    User {USER}
    IdentityFile {_KEY}
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile {_KNOWN_HOSTS}
    GlobalKnownHostsFile none
    StrictHostKeyChecking yes
    PasswordAuthentication no
    KbdInteractiveAuthentication no
    ServerAliveInterval 5
    ServerAliveCountMax 3
"""
_SUDO_FILE = Path("etc/sudoers.d") / USER
_PAM_FILES = ("etc/pam.d/common-session", "etc/pam.d/common-session-noninteractive")
_PAM_UMASK = "session optional pam_umask.so umask="
_USER_SCRIPT = f"""
set -eu
# Debian has a group of the same name, which is not a user's own.
id -u {USER} >/dev/null 2>&1 || useradd --create-home --shell /bin/bash --gid users {USER}
install -d -m 0700 -o {USER} -g users /home/{USER}/.ssh
umask 077
cat > /home/{USER}/.ssh/authorized_keys
chown {USER}:users /home/{USER}/.ssh/authorized_keys
"""


@dataclass(frozen=True, slots=True)
class Access:
    """What the ssh way in is like.

    `umask` is the one that sudo and each session of the user get, three or four octal digits; None leaves Debian's.
    """

    umask: str | None = None


def set_up(state: State, machines: Mapping[str, Machine], access: Access) -> bool:
    """Make the controller's key and configuration, and the user in both machines; return whether anything changed."""
    umask = access.umask
    wanted = asdict(access)
    if state.read("ssh") == wanted:
        return False
    for folder in (_FOLDER, CONTROL):
        folder.mkdir(mode=0o700, exist_ok=True)
    if not _KEY.exists():
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "controller of the lab", "-f", str(_KEY)])
    _CONFIG.write_text(_CONFIG_TEXT)
    for machine in machines.values():
        machine.change_root(["sh", "-c", _USER_SCRIPT], stdin=_KEY.with_suffix(".pub").read_text())
        _allow_sudo(machine.root, umask)
        _set_session_umask(machine.root, umask)
    _KNOWN_HOSTS.write_text("".join(known_hosts(name, machine.root) for name, machine in machines.items()))
    INVENTORY.write_text(inventory())
    state.write("ssh", wanted)
    return True


def known_hosts(machine: str, root: Path) -> str:
    """Return the lines of known_hosts for a machine: the public host keys in its root file system."""
    names = ",".join(ADDRESSES[machine])
    keys = sorted(path.read_text().split()[:2] for path in (root / "etc/ssh").glob("ssh_host_*_key.pub"))
    return "".join(f"{names} {kind} {key}\n" for kind, key in keys)


def _allow_sudo(root: Path, umask: str | None) -> None:
    lines = [f"{USER} ALL=(ALL:ALL) NOPASSWD: ALL"]
    if umask is not None:
        # Without umask_override sudo would join the user's umask and its own.
        lines.insert(0, f"Defaults umask={umask.zfill(4)}, umask_override")
    path = root / _SUDO_FILE
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o440)


def _set_session_umask(root: Path, umask: str | None) -> None:
    for name in _PAM_FILES:
        path = root / name
        lines = [line for line in path.read_text().splitlines() if not line.startswith(_PAM_UMASK)]
        if umask is not None:
            lines.append(_PAM_UMASK + umask)
        path.write_text("\n".join(lines) + "\n")


def inventory() -> str:
    """Return the inventory that is named after the lab's own one: how Ansible reaches the machines, and nothing else.

    The programs stand at all hosts, so that a host which a scenario adds is reached from the same controller.
    """
    programs = {name: str(Path(sys.executable).with_name(f"mpqlab-{name}")) for name in PROGRAMS}
    lines = ["---", "# Written by `mpqlab up --ssh`.", "all:", "  vars:"]
    lines += [f"    ansible_{name}_executable: {program}" for name, program in programs.items()]
    lines += [f"    ansible_control_path_dir: {CONTROL}", f"    ansible_user: {USER}", "  hosts:"]
    for machine in MACHINES:
        lines += [
            f"    {HOSTNAMES[machine]}:",
            "      ansible_connection: ssh",
            f"      ansible_host: {ADDRESSES[machine][0]}",
        ]
    return "\n".join(lines) + "\n"


def close_connections(state: State) -> None:
    """End the connections that Ansible keeps open: after a reboot nobody would answer on them."""
    if not state.read("ssh"):
        return
    for socket in CONTROL.glob("*"):
        # A socket may have outlived its process.
        with contextlib.suppress(LabError):
            run(command("ssh", ["-o", f"ControlPath={socket}", "-O", "exit", "machine"]), timeout=10.0)
        socket.unlink(missing_ok=True)


def command(program: str, arguments: Sequence[str]) -> list[str]:
    """Return the command that runs one of `PROGRAMS` on the controller of the lab, or on the node that `FROM` names.

    Raises:
        LabError: the lab has no ssh way in.
    """
    if not _CONFIG.exists():
        raise LabError("the lab has no ssh way in: `mpqlab up --ssh` makes it")
    return inside(os.environ.get(FROM, MGMT), [program, "-F", str(_CONFIG), *arguments])


def login(machine: str, arguments: Sequence[str]) -> list[str]:
    """Return the command that opens a shell in a machine, or runs the words `arguments` in it."""
    return command("ssh", [ADDRESSES[machine][0], *arguments])


def main() -> int:
    """Run the program that this one is called after: `mpqlab-ssh`, `mpqlab-sftp` or `mpqlab-scp`."""
    program = Path(sys.argv[0]).name.removeprefix("mpqlab-")
    try:
        argv = command(program, sys.argv[1:])
        os.execvp(argv[0], argv)
    except LabError as error:
        print(f"mpqlab-{program}: {error}", file=sys.stderr)
    return 255
