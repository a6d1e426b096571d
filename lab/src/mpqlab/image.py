"""The machines' disk images: a clean Debian by debootstrap, built once and kept below /var/cache/mpqlab.

An image is two directories: `base`, what Debian's installer leaves on a bare host, and `vps`, an overlay upper layer
without ifupdown, as cloud images come. The directory's name carries a hash of everything that decides its content, so
a changed recipe makes a new image and never a half-old one.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mpqlab import cgroup
from mpqlab.errors import LabError
from mpqlab.lock import locked
from mpqlab.mounts import overlay, remove_tree
from mpqlab.run import run

if TYPE_CHECKING:
    from mpqlab.progress import Progress

CACHE = Path("/var/cache/mpqlab")
PACKAGES = (
    "adduser",
    "ca-certificates",
    "curl",
    "dbus",
    "ifupdown",
    "iperf3",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "libfaketime",
    "libpam-systemd",
    "netbase",
    "nftables",
    "openssh-server",
    "polkitd",
    "procps",
    "python3",
    "python3-apt",
    "python3-cffi-backend",  # named since debootstrap doesn't resolve the virtual package behind it
    "python3-cryptography",
    "python3-venv",
    "python3-yaml",
    "sudo",
    "systemd",
    "systemd-sysv",
    "systemd-timesyncd",
    "tcpdump",
    "udev",
)
# Machines of the lab have no way to a mirror: these would only fail, at a random time.
DISABLED_UNITS = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
)
PURGED_ON_VPS = ("ifupdown",)
# Goes up with a change of what `_finish_base` does.
_REVISION = 1
_DEBOOTSTRAP_SECONDS = 900.0
_REPORT_EVERY = 5.0
_GROUP = "image"


class Image:
    """The image of one Debian suite."""

    def __init__(self, suite: str, cache: Path = CACHE) -> None:
        self.suite = suite
        recipe = json.dumps([suite, PACKAGES, DISABLED_UNITS, PURGED_ON_VPS, _REVISION])
        self.directory = cache / f"{suite}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"

    @property
    def built(self) -> bool:
        """Whether the image is complete."""
        return self.directory.is_dir()

    def layers(self, machine: str) -> list[Path]:
        """Return the lower layers of a machine's root file system, the topmost first."""
        base = self.directory / "base"
        return [self.directory / "vps", base] if machine == "vps" else [base]

    def build(self, progress: Progress) -> None:
        """Build the image unless it is there.

        Raises:
            LabError: debootstrap failed; the text names its log.
        """
        with locked("image", lambda: progress.say("waiting for another command that builds an image")):
            if not self.built:
                self._build(progress)

    def _build(self, progress: Progress) -> None:
        partial = self.directory.with_suffix(".partial")
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        cgroup.remove(_GROUP)
        remove_tree(partial)
        (partial / "vps").mkdir(parents=True)
        with progress.step(f"building the machine image ({self.suite}); this takes a minute or two, once"):
            _debootstrap(self.suite, partial / "base", self.directory.with_suffix(".log"), progress)
            _finish_base(partial / "base")
            cgroup.remove(_GROUP)
            progress.say("  removing what a cloud image doesn't have")
            with overlay(partial / "merged", [partial / "base"], partial / "vps", partial / "work") as root:
                run(["chroot", str(root), "dpkg", "--purge", *PURGED_ON_VPS])
            partial.rename(self.directory)
        self._remove_older()

    def _remove_older(self) -> None:
        """Remove this suite's images of earlier recipes, unless a lab still runs from one."""
        mounts = Path("/proc/self/mountinfo").read_text()
        for path in self.directory.parent.glob(f"{self.suite}-*"):
            if path.is_dir() and path != self.directory and f"{path}/" not in mounts:
                remove_tree(path)


def _debootstrap(suite: str, target: Path, log: Path, progress: Progress) -> None:
    bootstrap = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", suite, str(target)]
    argv = cgroup.joining(_GROUP, bootstrap)
    deadline = time.monotonic() + _DEBOOTSTRAP_SECONDS
    reported = time.monotonic()
    counts: dict[str, int] = {}
    with (
        log.open("w") as copy,
        subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child,
    ):
        assert child.stdout is not None
        for line in child.stdout:
            copy.write(line)
            words = line.split(maxsplit=2)
            if len(words) > 1:
                counts[words[1]] = counts.get(words[1], 0) + 1
            now = time.monotonic()
            if now - reported > _REPORT_EVERY:
                reported = now
                shown = (
                    f"{counts[word]} {word.lower()}"
                    for word in ("Retrieving", "Unpacking", "Configuring")
                    if word in counts
                )
                progress.say(f"  debootstrap: {', '.join(shown)}")
            if now > deadline:
                child.kill()
                raise LabError(f"debootstrap took longer than {_DEBOOTSTRAP_SECONDS:.0f} s: see {log}")
    if child.returncode != 0:
        raise LabError(f"debootstrap failed with status {child.returncode} (is a Debian mirror reachable?): see {log}")


def _finish_base(root: Path) -> None:
    """Remove what must differ between machines, and what needs a mirror."""
    run(["chroot", str(root), "apt-get", "clean"])
    run(["chroot", str(root), "systemctl", "disable", "--quiet", *DISABLED_UNITS])
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    for name in ("etc/machine-id", "var/lib/dbus/machine-id", "etc/resolv.conf", "etc/hostname"):
        (root / name).unlink(missing_ok=True)
    (root / "var/log/journal").mkdir(exist_ok=True)
    os.sync()
