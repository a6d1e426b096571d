"""The nodes that are machines: a persistent root file system, boot and power-off by systemd-nspawn, a way in.

A machine lives in the network namespace that the lab made for it, and in a control group of its own. Its root is an
overlay whose upper layer outlives a reboot.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from mpqlab import cgroup, guest
from mpqlab.errors import LabError
from mpqlab.mounts import mount_overlay, remove_tree
from mpqlab.run import SERVICES, run, spawn
from mpqlab.state import Process, State, leader_name, supervisor_name
from mpqlab.topology import (
    HOSTNAMES,
    LAB_NAME,
    MANAGEMENT,
    VPS_ADDRESS,
    VPS_ADDRESS6,
    VPS_DEVICE,
    VPS_GATEWAY,
    VPS_GATEWAY6,
    namespace,
)
from mpqlab.waiting import wait_for

if TYPE_CHECKING:
    from mpqlab.image import Image

STORAGE = Path("/var/lib") / LAB_NAME
BOOT_SECONDS = 90.0
POWER_OFF_SECONDS = 60.0
TUN_DEVICE = os.makedev(10, 200)
_POWER_OFF = signal.SIGRTMIN + 4  # systemd(1), "SIGNALS"


class Machine:
    """One systemd-nspawn machine."""

    def __init__(self, name: str, state: State, storage: Path = STORAGE) -> None:
        self.name = name
        self.hostname = HOSTNAMES[name]
        self._state = state
        self._storage = storage / name
        self._root = self._storage / "root"
        self._supervisor = supervisor_name(name)

    @property
    def root(self) -> Path:
        """Its root file system as a directory of the controller."""
        return self._root

    @property
    def leader(self) -> Process | None:
        """Its init process, None when it is off."""
        return self._state.leader(self.name)

    def create(self, image: Image) -> None:
        """Make its root file system, as the installer or the provider of the VPS leaves it."""
        if not self.root.is_mount():
            mount_overlay(self.root, image.layers(self.name), self._storage / "upper", self._storage / "work")
        tun = self._storage / "tun"
        if not tun.exists():
            # Its own node: the mode that Debian gives (0666) must not be set on the controller's device.
            os.mknod(tun, stat.S_IFCHR | 0o666, TUN_DEVICE)
            tun.chmod(0o666)
        machine_id = self.root / "etc/machine-id"
        if not machine_id.exists():
            machine_id.write_text(uuid.uuid4().hex + "\n")
            for path, text in _first_files(self.name).items():
                target = self.root / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text)
            # An inventory names the same interpreter for each kind of machine.
            interpreter = self.root / guest.INTERPRETER.relative_to("/")
            interpreter.parent.mkdir()
            interpreter.symlink_to("/usr/bin/python3")
            self.change_root(["ssh-keygen", "-A"])
            if self.name == "vps":
                self.change_root(["systemctl", "enable", "--quiet", "systemd-networkd"])

    def change_root(self, argv: list[str], *, stdin: str = "") -> None:
        """Run a command in its root file system, whether it is on or off."""
        # In a group of the lab, so that an interrupted command leaves nothing that keeps the file system busy.
        run(cgroup.joining(SERVICES, ["chroot", str(self.root), *argv]), stdin=stdin)

    def power_on(self) -> None:
        """Start booting; `wait_until_up` waits for the end."""
        path = self._state.run / f"{self.name}.notify"
        path.unlink(missing_ok=True)
        environment = {
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            "NOTIFY_SOCKET": str(path),
            "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",
            "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
            "SYSTEMD_LOG_LEVEL": "warning",
        }
        nspawn = [
            "systemd-nspawn",
            f"--directory={self.root}",
            "--boot",
            "--register=no",
            "--keep-unit",
            "--settings=no",
            f"--machine={namespace(self.name)}",
            f"--hostname={self.hostname}",
            f"--network-namespace-path=/run/netns/{namespace(self.name)}",
            "--resolv-conf=off",
            "--timezone=off",
            "--link-journal=no",
            "--suppress-sync=yes",
            "--notify-ready=yes",
            "--capability=all",
            # The clock is the controller's own: no machine of the lab may set it.
            "--drop-capability=CAP_SYS_TIME",
            f"--bind={self._storage / 'tun'}:/dev/net/tun",
            "--console=pipe",
        ]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications:
            notifications.bind(str(path))
            supervisor = spawn(self._state, self._supervisor, nspawn, group=self.name, environment=environment)
            self._wait_until_booted(notifications, supervisor)
        path.unlink(missing_ok=True)

    def _wait_until_booted(self, notifications: socket.socket, supervisor: Process) -> None:
        """Follow sd_notify messages: first nspawn's with the leader's id, then the init's READY=1."""
        deadline = time.monotonic() + BOOT_SECONDS
        notifications.settimeout(0.5)
        ready = False
        while not ready:
            if not supervisor.alive or time.monotonic() > deadline:
                log = self._state.logs / f"{supervisor.name}.log"
                raise LabError(f"the machine {self.name} didn't boot within {BOOT_SECONDS:.0f} s: see {log}")
            with contextlib.suppress(TimeoutError):
                for line in notifications.recv(4096).decode().splitlines():
                    key, _, value = line.partition("=")
                    if key == "X_NSPAWN_LEADER_PID":
                        self._state.remember(Process.of(leader_name(self.name), int(value)))
                    ready = ready or line == "READY=1"

    def wait_until_up(self) -> str:
        """Wait for multi-user; return `running`, or `degraded` when a unit has failed."""
        said = ""

        def finished() -> bool:
            nonlocal said
            # The exit status is not 0 for a degraded machine, so only the word counts.
            said = run(self.enter(["sh", "-c", "systemctl is-system-running || true"])).strip()
            return said in {"running", "degraded"}

        wait_for(finished, BOOT_SECONDS, f"the machine {self.name} reaches multi-user", self.leader)
        return said

    def power_off(self) -> None:
        """Shut down in order and wait for the end."""
        leader = self.leader
        if leader is not None:
            leader.send(_POWER_OFF)
        self._reap(POWER_OFF_SECONDS)

    def kill(self) -> None:
        """Pull the plug."""
        leader = self.leader
        if leader is not None:
            leader.send(signal.SIGKILL)
        self._reap(5.0)

    def freeze(self, *, frozen: bool) -> None:
        """Stop the machine where it is, as a hypervisor does, or let it go on. Time passes for it meanwhile."""
        cgroup.freeze(self.name, frozen=frozen)

    def _reap(self, seconds: float) -> None:
        supervisor = self._state.process(self._supervisor)
        if supervisor is not None and not supervisor.wait(seconds):
            leader = self.leader
            if leader is not None:
                leader.send(signal.SIGKILL)
            supervisor.end(seconds=5.0)
        self._state.forget(leader_name(self.name))
        self._state.forget(self._supervisor)
        cgroup.remove(self.name)

    def enter(self, argv: list[str]) -> list[str]:
        """Return the command that runs `argv` as root inside the machine.

        Raises:
            LabError: the machine is off.
        """
        leader = self.leader
        if leader is None:
            raise LabError(f"the machine {self.name} isn't running: start it again with `mpqlab up`")
        return enter_command(leader.pid, argv)

    def delete(self) -> None:
        """Unmount and remove its root file system."""
        remove_tree(self._storage)


def enter_command(leader: int, argv: list[str]) -> list[str]:
    """Return the command that enters all namespaces of the init process `leader`, with a login's clean environment."""
    words = ["nsenter", f"--target={leader}", "--all", "--root", "--wd", "--", "env", "-i"]
    return [*words, *login_environment(), *argv]


def login_environment() -> tuple[str, ...]:
    """Return the environment of root's login as `env` takes it."""
    return (
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME=/root",
        "USER=root",
        "LOGNAME=root",
        "SHELL=/bin/bash",
        "LANG=C.UTF-8",
        f"TERM={os.environ.get('TERM', 'dumb')}",
    )


def _first_files(machine: str) -> dict[str, str]:
    """Return what the installer (client) or the provider (VPS) has written, by path below the root."""
    hostname = HOSTNAMES[machine]
    files = {
        "etc/hostname": f"{hostname}\n",
        "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {hostname}\n::1 localhost ip6-localhost ip6-loopback\n",
        "etc/fstab": "# UNCONFIGURED FSTAB FOR BASE SYSTEM\n",
    }
    if machine == "vps":
        files["etc/resolv.conf"] = f"nameserver {VPS_GATEWAY.ip}\n"
        files["etc/systemd/network/50-provider.network"] = (
            f"[Match]\nName={VPS_DEVICE}\n\n[Network]\nAddress={VPS_ADDRESS}\nGateway={VPS_GATEWAY.ip}\n"
            f"Gateway={VPS_GATEWAY6.partition('/')[0]}\nIPv6AcceptRA=no\n\n"
            # The address is usable at once: a machine that has just booted must not answer from its link-local one.
            f"[Address]\nAddress={VPS_ADDRESS6}\nDuplicateAddressDetection=none\n"
        )
        return files
    first, second = MANAGEMENT
    files["etc/resolv.conf"] = f"nameserver {first.controller.ip}\n"
    files["etc/network/interfaces"] = (
        "# This file describes the network interfaces available on your system\n"
        "# and how to activate them. For more information, see interfaces(5).\n\n"
        "source /etc/network/interfaces.d/*\n\n"
        "# The loopback network interface\nauto lo\niface lo inet loopback\n\n"
        "# The primary network interface\n"
        f"auto {first.device}\niface {first.device} inet static\n"
        f"\taddress {first.client}\n\tgateway {first.controller.ip}\n"
        f"\tdns-nameservers {first.controller.ip}\n\n"
        f"auto {second.device}\niface {second.device} inet static\n\taddress {second.client}\n"
    )
    return files
