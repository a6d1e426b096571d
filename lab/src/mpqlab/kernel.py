"""Debian's cloud kernel for a machine that has a kernel of its own: fetched once, with the initial RAM disk it needs.

It is kept beside the image, below /var/cache/mpqlab. The package comes from the sources of the image and is checked
with its keys, by the controller's apt: it is of the image's release, whatever the controller runs.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import shutil
from typing import TYPE_CHECKING

from mpqlab.errors import LabError
from mpqlab.image import CACHE
from mpqlab.lock import locked
from mpqlab.mounts import remove_tree
from mpqlab.run import run

if TYPE_CHECKING:
    from pathlib import Path

    from mpqlab.image import Image
    from mpqlab.progress import Progress

PACKAGE = "linux-image-cloud-amd64"
# What the root disk needs; the file system itself is part of this kernel.
_BOOT_MODULES = (
    "virtio",
    "virtio_ring",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_blk",
)
_BUSYBOX = "/bin/busybox"
_DISK_TENTHS = 100
_INIT = f"""\
#!{_BUSYBOX} sh
{_BUSYBOX} mount -t proc proc /proc
{_BUSYBOX} mount -t devtmpfs dev /dev
for module in {" ".join(_BOOT_MODULES)}; do
    # Some kernels have one of them built in.
    [ ! -e "/modules/$module.ko" ] || {_BUSYBOX} insmod "/modules/$module.ko"
done
tenths=0
while [ ! -b /dev/vda ] && [ "$tenths" -lt {_DISK_TENTHS} ]; do
    {_BUSYBOX} sleep 0.1
    tenths=$((tenths + 1))
done
{_BUSYBOX} mount -t ext4 -o noatime /dev/vda /root && exec {_BUSYBOX} switch_root /root /lib/systemd/systemd
echo "the root disk can't be mounted"
"""
_REVISION = 1
_DOWNLOAD_SECONDS = 300.0


class Kernel:
    """The kernel of one Debian suite: `vmlinuz`, `initrd` and `modules`, the folder of its modules."""

    def __init__(self, image: Image, cache: Path = CACHE) -> None:
        self._image = image
        recipe = json.dumps([PACKAGE, _BOOT_MODULES, _INIT, _REVISION])
        self.directory = cache / f"kernel-{image.suite}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
        self.vmlinuz = self.directory / "vmlinuz"
        self.initrd = self.directory / "initrd"
        self.modules = self.directory / "modules"

    @property
    def release(self) -> str:
        """What `uname -r` says on it."""
        return next(self.modules.iterdir()).name

    def build(self, progress: Progress) -> None:
        """Fetch it unless it is there; the image is there.

        Raises:
            LabError: apt found none, or the package lacks something.
        """
        with locked("kernel", lambda: progress.say("waiting for another command that fetches a kernel")):
            if self.directory.is_dir():
                return
            partial = self.directory.with_suffix(".partial")
            remove_tree(partial)
            partial.mkdir(parents=True)
            with progress.step(f"fetching {PACKAGE} ({self._image.suite}), once"):
                unpacked = _fetch(self._image, partial / "apt")
                shutil.move(next((unpacked / "boot").glob("vmlinuz-*")), partial / "vmlinuz")
                # Packages for a merged /usr name it themselves.
                folders = (unpacked / "usr/lib/modules", unpacked / "lib/modules")
                shutil.move(next(folder for folder in folders if folder.is_dir()), partial / "modules")
                remove_tree(partial / "apt")
                _make_initrd(partial / "modules", partial / "initrd", partial / "tree")
                partial.rename(self.directory)

    def install(self, root: Path) -> None:
        """Put its modules into a machine's root file system; depmod has to be run there."""
        target = root / "usr/lib/modules" / self.release
        shutil.copytree(self.modules / self.release, target, symlinks=True, dirs_exist_ok=True)


def _fetch(image: Image, folder: Path) -> Path:
    """Download the package that `PACKAGE` stands for, and return the folder into which it was unpacked."""
    base = image.directory / "base"
    for name in ("state/lists/partial", "cache/archives/partial", "unpacked"):
        (folder / name).mkdir(parents=True)
    settings = {
        "Dir::Etc::sourcelist": base / "etc/apt/sources.list",
        "Dir::Etc::sourceparts": base / "etc/apt/sources.list.d",
        "Dir::Etc::trusted": base / "usr/share/keyrings/debian-archive-keyring.gpg",
        "Dir::Etc::trustedparts": base / "etc/apt/trusted.gpg.d",
        "Dir::State": folder / "state",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": folder / "cache",
        "APT::Architecture": "amd64",
        "APT::Sandbox::User": "root",
    }
    options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    run(["apt-get", *options, "-qq", "update"], timeout=_DOWNLOAD_SECONDS)
    shown = run(["apt-cache", *options, "depends", PACKAGE])
    packages = [line.split()[1] for line in shown.splitlines() if line.split()[:1] == ["Depends:"]]
    if not packages:
        raise LabError(f"Debian {image.suite} has no package {PACKAGE}: look at {base / 'etc/apt/sources.list'}")
    # Into the working directory, apt-get says no other.
    run(["env", f"--chdir={folder}", "apt-get", *options, "-qq", "download", packages[0]], timeout=_DOWNLOAD_SECONDS)
    archive = next(folder.glob("*.deb"))
    run(["dpkg", "-x", str(archive), str(folder / "unpacked")])
    return folder / "unpacked"


def _make_initrd(modules: Path, path: Path, tree: Path) -> None:
    """Make the RAM disk that mounts the root disk: busybox, the modules and a script, in cpio's format `newc`."""
    for name in ("bin", "modules", "root", "proc", "dev"):
        (tree / name).mkdir(parents=True)
    busybox = shutil.which("busybox")
    if busybox is None:
        raise LabError("the program 'busybox' is missing: `make qemu` installs it")
    shutil.copy(busybox, tree / "bin/busybox")
    for name in _BOOT_MODULES:
        for found in modules.glob(f"*/kernel/**/{name}.ko*"):
            _copy_module(found, tree / "modules" / f"{name}.ko")
    init = tree / "init"
    init.write_text(_INIT)
    init.chmod(0o755)
    names = "".join(f"{each.relative_to(tree)}\n" for each in sorted(tree.rglob("*")))
    archive = path.with_suffix(".cpio")
    run(["sh", "-c", 'cd "$1" && exec "$2" cpio -o -H newc >"$3"', "sh", str(tree), busybox, str(archive)], stdin=names)
    path.write_bytes(gzip.compress(archive.read_bytes(), compresslevel=1))
    archive.unlink()
    shutil.rmtree(tree)


def _copy_module(found: Path, target: Path) -> None:
    if found.suffix == ".ko":
        shutil.copy(found, target)
    elif found.suffix == ".xz":
        target.write_bytes(lzma.decompress(found.read_bytes()))
    else:
        raise LabError(f"{found.name}: the module is compressed in a way that this program doesn't read")
