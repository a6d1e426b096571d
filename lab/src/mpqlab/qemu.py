"""The client on a kernel of its own: Debian's cloud kernel under qemu, without KVM (TCG), from the image of the lab.

It's for what the controller's kernel lacks, 802.1Q above all: for truth, not for speed. Its NICs are taps in the
namespaces of its neighbours. Before its first boot it is a directory like the other machines; then that becomes its
disk, and from then on the way in is ssh.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpqlab import guest, nics, qmp, ssh, tap, topology
from mpqlab.emulator.tun import NetworkNamespace, SetupError
from mpqlab.errors import LabError
from mpqlab.kernel import Kernel
from mpqlab.machine import STORAGE, Machine, login_environment
from mpqlab.mounts import remove_tree
from mpqlab.run import run, spawn
from mpqlab.state import Process, State, leader_name
from mpqlab.topology import ATTACHED_WANS, CLIENT, ISP_PORT_DEVICE, LANS, MANAGEMENT, MGMT, OPENWRT, Attachment
from mpqlab.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from mpqlab.image import Image
    from mpqlab.progress import Progress

PROGRAM = "qemu-system-x86_64"
BOOT_SECONDS = 240.0
MEMORY_MIB = 1024
# Beside an idle controller a second one halves the time in which the daemons start; beside a busy one it costs some.
PROCESSORS = 2
DISK = "4G"
# The first slot of the PCI bus that qemu's own devices leave free.
_FIRST_SLOT = 4
# Who waits for nothing but work of an emulated processor has no use for defences against other guests; each costs a
# flush of its translations at every system call.
_COMMAND_LINE = "console=ttyS0 quiet mitigations=off nopti systemd.getty_auto=no"
# A frame on a trunk may have a tag, and is then carried by a program that reads it as it comes: complete.
_NO_OFFLOADS = ",csum=off,guest_csum=off,gso=off"
_MULTIPLEXED = ("-o", "ControlMaster=auto", "-o", "ControlPersist=60", "-o", "ConnectTimeout=60")


@dataclass(frozen=True, slots=True)
class Nic:
    """A NIC of the machine: its device and address there, and the tap `outer` in the namespace of `node`."""

    device: str
    mac: str
    node: str
    outer: str
    carrier: bool = True
    offloads: bool = True


def client_nics() -> tuple[Nic, ...]:
    """Return the NICs of the client of the reference site."""
    trunks = {vlan.lan for vlan in topology.VLANS}
    return (
        *(Nic(each.device, each.mac, MGMT, each.peer) for each in MANAGEMENT),
        *(Nic(lan.device, lan.mac, OPENWRT, lan.openwrt_device, offloads=lan not in trunks) for lan in LANS),
        *(
            Nic(wan.device, wan.mac, wan.isp, ISP_PORT_DEVICE, carrier=wan.attachment is not Attachment.NO_CARRIER)
            for wan in ATTACHED_WANS
        ),
    )


class QemuMachine(Machine):
    """A machine with a kernel of its own."""

    def __init__(self, name: str, state: State, progress: Progress, storage: Path = STORAGE) -> None:
        super().__init__(name, state, storage)
        self._progress = progress
        self._supervisor = f"{name}.qemu"
        self._disk = self._storage / "disk"
        self._kernel: Kernel | None = None
        self._control = state.control / f"{name}.qmp"

    @property
    def root(self) -> Path:
        """Its root file system, until it has become a disk.

        Raises:
            LabError: it has.
        """
        if self._disk.exists():
            raise LabError(
                f"the file system of the machine {self.name} is a disk that qemu has open: "
                f"change it from inside, as with `mpqlab ssh {self.name}`"
            )
        return self._root

    def create(self, image: Image) -> None:
        """Make its root file system, and fetch its kernel."""
        super().create(image)
        kernel = Kernel(image)
        kernel.build(self._progress)
        kernel.install(self.root)
        self.change_root(["depmod", kernel.release])
        (self._storage / "kernel").symlink_to(kernel.directory)
        guest.install(self.root)
        self.change_root(["systemctl", "enable", "--quiet", guest.UNIT])
        folder = self.root / "etc/systemd/network"
        folder.mkdir(parents=True, exist_ok=True)
        for nic in client_nics():
            # Names as the hypervisor of a site gives them by its slots.
            path = folder / f"10-slot-{nic.device}.link"
            path.write_text(f"[Match]\nMACAddress={nic.mac}\nType=ether\n\n[Link]\nName={nic.device}\n")

    def power_on(self) -> None:
        """Make its disk before the first time, and start booting."""
        if not self._disk.exists():
            self._make_disk()
        self._control.unlink(missing_ok=True)
        found = client_nics()
        with contextlib.ExitStack() as opened:
            descriptors = [_open(nic, opened) for nic in found]
            argv = self._command(found, descriptors)
            process = spawn(self._state, self._supervisor, argv, group=self.name, descriptors=descriptors)
        self._state.remember(Process(leader_name(self.name), process.pid, process.start_time))
        wait_for(self._control.exists, 10.0, "qemu opens its control socket", process)
        for nic in found:
            if not nic.carrier:
                self.set_carrier(nic.device, on=False)

    def _make_disk(self) -> None:
        partial = self._disk.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        with self._progress.step(f"making the disk of {self.name}"):
            run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(self.root), str(partial), DISK], timeout=300.0)
        remove_tree(self._root)
        remove_tree(self._storage / "upper")
        partial.rename(self._disk)

    def _command(self, found: tuple[Nic, ...], descriptors: list[int]) -> list[str]:
        kernel = self._storage / "kernel"
        argv = [PROGRAM, "-name", topology.namespace(self.name), "-nodefaults", "-no-user-config"]
        argv += ["-machine", "pc", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"]
        argv += ["-smp", str(PROCESSORS), "-m", str(MEMORY_MIB), "-display", "none", "-serial", "stdio"]
        argv += ["-qmp", f"unix:{self._control},server=on,wait=off"]
        argv += ["-kernel", str(kernel / "vmlinuz"), "-initrd", str(kernel / "initrd"), "-append", _COMMAND_LINE]
        argv += ["-drive", f"file={self._disk},format=raw,if=none,id=disk,cache=unsafe,discard=unmap"]
        argv += ["-device", "virtio-blk-pci,drive=disk,addr=2", "-device", "virtio-rng-pci,addr=3"]
        for number, (nic, descriptor) in enumerate(zip(found, descriptors, strict=True)):
            offloads = "" if nic.offloads else _NO_OFFLOADS
            place = f"netdev=net{number},addr={_FIRST_SLOT + number},id={nic_identifier(nic.device)},mac={nic.mac}"
            argv += ["-netdev", f"tap,id=net{number},fd={descriptor},vhost=off"]
            argv += ["-device", f"virtio-net-pci,{place},romfile={offloads}"]
        return argv

    def set_carrier(self, device: str, *, on: bool) -> None:
        """Give or take the carrier of a NIC."""
        qmp.execute(self._control, "set_link", name=nic_identifier(device), up=on)

    def wait_until_up(self) -> str:
        """Wait for ssh and multi-user; return `running`, or `degraded` when a unit has failed."""
        said = ""

        def finished() -> bool:
            nonlocal said
            try:
                words = self.enter(["sh", "-c", "systemctl is-system-running || true"])
                said = run(words, timeout=30.0).strip()
            except LabError:
                # ssh doesn't answer yet.
                return False
            return said in {"running", "degraded"}

        wait_for(finished, BOOT_SECONDS, f"the machine {self.name} reaches multi-user", self.leader)
        return said

    def power_off(self) -> None:
        """Press the power button and wait for the end."""
        if self.leader is not None:
            qmp.execute(self._control, "system_powerdown")
        self._reap(BOOT_SECONDS)

    def enter(self, argv: list[str]) -> list[str]:
        """Return the command that runs `argv` as root inside the machine, by ssh.

        Raises:
            LabError: the machine is off.
        """
        if self.leader is None:
            raise LabError(f"the machine {self.name} isn't running: start it again with `mpqlab up`")
        terminal = ["-t"] if sys.stdin.isatty() and sys.stdout.isatty() else []
        remote = shlex.join(["sudo", "-n", "--", "env", "-i", "--chdir=/", *login_environment(), *(argv or ["true"])])
        options = [*_MULTIPLEXED, "-o", f"ControlPath={ssh.CONTROL / 'enter-%C'}", *terminal]
        return ssh.command("ssh", [*options, ssh.ADDRESSES[self.name][0], remote])


def check_names() -> None:
    """Check that the NICs can be called as the environment says.

    Raises:
        LabError: the kernel gives such names itself, in an order of its own.
    """
    if topology.NICS_SCHEME == "eth":
        raise LabError(f"under qemu a NIC can't be renamed to eth0: leave {nics.VARIABLE} out, or set it to ens")


def nic_identifier(device: str) -> str:
    """Name of a NIC for qemu."""
    return f"nic-{device}"


def _open(nic: Nic, opened: contextlib.ExitStack) -> int:
    """Attach to the tap of a NIC until `opened` closes it."""
    try:
        with NetworkNamespace(topology.namespace(nic.node)):
            descriptor = tap.attach(nic.outer, virtio_header=True, blocking=False)
    except (OSError, SetupError) as error:
        raise LabError(f"the tap {nic.outer} in {nic.node} can't be attached for {CLIENT}: {error}") from error
    opened.callback(os.close, descriptor)
    return descriptor
