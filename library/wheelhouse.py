#!/usr/bin/python
"""Ansible module for the controller: all wheels that the daemon needs on a host of a given Python and machine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: wheelhouse
short_description: Build and cache the wheels of a Python package and its locked requirements for another machine
description:
  - Runs on the controller. The hosts need no package index, as what they install is complete and pinned by hashes.
  - The result is one tar file below I(cache), named by the sum of the package's sources, the lock, the Python version
    and the machine. When it is there, nothing is done.
  - What was downloaded is kept beside it, by the sum of the lock, the Python version and the machine. Where only the
    package itself has changed, nothing is downloaded.
options:
  source: {description: Folder of the package (pyproject.toml)., type: path, required: true}
  requirements: {description: Locked requirements with hashes., type: path, required: true}
  cache: {description: Folder that keeps the results., type: path, required: true}
  python_version: {description: "Python of the host, for example C(3.11).", type: str, required: true}
  machine: {description: "Machine of the host, for example C(x86_64).", type: str, required: true}
  pip: {description: Command that runs pip., type: list, elements: str, required: true}
  limit: {description: Bytes that the archive may have at most., type: int, default: 8000000}
"""

RETURN = r"""
release:
  description: Version, build hash of the package and its lock, Python, machine.
  returned: always
  type: str
  sample: 0.2.0-0123456789ab-3.11-x86_64
archive: {description: Path of the tar file on the controller., returned: always, type: str}
sha256: {description: Its SHA-256; empty in check mode when it isn't there yet., returned: always, type: str}
size: {description: Its bytes; 0 in check mode when it isn't there yet., returned: always, type: int}
"""

import hashlib
import os
import shutil
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from packaging.requirements import Requirement
from packaging.utils import parse_wheel_filename

# Oldest first; Debian 12 has glibc 2.36. pip doesn't derive the older tags of a newer one by itself.
GLIBC_TAGS = ("2014", "_2_17", "_2_24", "_2_26", "_2_27", "_2_28", "_2_31", "_2_34", "_2_35")
NO_PIP = "This checkout has no pip of its own: prepare it by `make bootstrap`, or as docs/first-site.md says"
HASH_MODULE = "src/mpquic/build_hash.py"
LITTER = {"__pycache__", "build", "dist"}


def source_files(source: Path) -> list[Path]:
    """Files that make the package: pyproject.toml, what is below src and share, without what tools leave behind."""
    found = [
        path
        for folder in ("src", "share")
        for path in (source / folder).rglob("*")
        if path.is_file() and not any(part in LITTER or part.endswith(".egg-info") for part in path.parts)
    ]
    return sorted([source / "pyproject.toml", *found])


def build_hash(source: Path, requirements: Path) -> str:
    """Twelve hex digits over the package and its lock: the same for each Python and machine that it is built for."""
    digest = hashlib.sha256()
    for path in [*source_files(source), requirements]:
        digest.update(f"{path.relative_to(source) if path.is_relative_to(source) else path.name}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def download_sum(lock: str) -> str:
    """Twelve hex digits over what is downloaded: the lock as that machine and Python has it."""
    return hashlib.sha256(lock.encode()).hexdigest()[:12]


def requirements_for(text: str, python_version: str, machine: str) -> str:
    """The lock without what its markers leave out on that machine; pip itself would ask the controller's Python."""
    environment = {
        "python_version": python_version,
        "python_full_version": f"{python_version}.0",
        "platform_machine": machine,
        "sys_platform": "linux",
        "os_name": "posix",
        "platform_system": "Linux",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    kept = []
    for entry in text.replace("\\\n", " ").splitlines():
        if not entry.strip() or entry.lstrip().startswith("#"):
            continue
        words = entry.split(" --hash=")
        requirement = Requirement(words[0].strip())
        if requirement.marker is None or requirement.marker.evaluate(environment):
            requirement.marker = None
            kept.append(" ".join([str(requirement), *(f"--hash={word.strip()}" for word in words[1:])]))
    return "".join(f"{line}\n" for line in kept)


def install_list(wheels: list[Path]) -> str:
    """Requirements that name exactly these wheels, each with its hash."""
    lines = []
    for wheel in sorted(wheels):
        name, version, _, _ = parse_wheel_filename(wheel.name)
        lines.append(f"{name}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n")
    return "".join(lines)


def build_own_wheel(source: Path, target: Path, hash_: str, module: AnsibleModule) -> None:
    """Build the package with its hash from a copy: no build litter lands in the sources (PEP 517, no isolation)."""
    with tempfile.TemporaryDirectory(prefix="wheelhouse-") as scratch:
        copy = Path(scratch) / "package"
        for path in source_files(source):
            place = copy / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
        # By it a running process knows its build.
        text = f'"""The build hash of this package."""\n\nBUILD_HASH = "{hash_}"\n'
        (copy / HASH_MODULE).write_text(text)
        call = f"import setuptools.build_meta as b; b.build_wheel({str(target)!r})"
        code, out, err = module.run_command(
            [sys.executable, "-c", call], cwd=str(copy), environ_update={"SOURCE_DATE_EPOCH": "315532800"}
        )
        if code != 0:
            module.fail_json(msg=f"building the wheel of {source} failed: {err.strip()[-2000:]}", stdout=out[-2000:])


def download(module: AnsibleModule, lock: Path, target: Path) -> None:
    """Download the locked wheels for the host's Python."""
    version, machine = module.params["python_version"], module.params["machine"]
    platforms = [f"--platform=manylinux{tag}_{machine}" for tag in reversed(GLIBC_TAGS)]
    code, _, err = module.run_command(
        [
            *module.params["pip"], "download", "--quiet", "--disable-pip-version-check", "--no-deps",
            "--only-binary=:all:", "--implementation=cp", f"--python-version={version}", *platforms,
            f"--abi=cp{version.replace('.', '')}", "--abi=abi3", "--abi=none",
            "--require-hashes", f"--requirement={lock}", f"--dest={target}",
        ]
    )  # fmt: skip
    if code != 0:
        remedy = f". {NO_PIP}" if "No module named pip" in err else ""
        module.fail_json(
            msg=f"downloading the wheels for Python {version} on {machine} failed: {err.strip()[-2000:]}{remedy}"
        )


def locked_wheels(module: AnsibleModule, lock: str) -> Path:
    """Folder with the downloaded wheels; only filled when it isn't there yet, and then in one step."""
    cache = Path(module.params["cache"])
    name = f"locked-{module.params['python_version']}-{module.params['machine']}-{download_sum(lock)}"
    folder = cache / name
    if not folder.is_dir():
        with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=cache) as scratch:
            filtered = Path(scratch) / "lock.txt"
            filtered.write_text(lock)
            wheels = Path(scratch) / "wheels"
            wheels.mkdir()
            download(module, filtered, wheels)
            wheels.rename(folder)
    return folder


def oversize(wheels: list[Path], size: int, limit: int) -> str:
    """Return what to say of an archive that is too large for the links that it goes over; empty when it isn't."""
    if size <= limit:
        return ""
    largest = sorted(wheels, key=lambda path: path.stat().st_size, reverse=True)[:3]
    names = ", ".join(f"{path.name} ({path.stat().st_size / 1e6:.1f} MB)" for path in largest)
    return f"the wheels make {size / 1e6:.1f} MB, more than {limit / 1e6:.1f} MB: the largest are {names}"


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "source": {"type": "path", "required": True},
            "requirements": {"type": "path", "required": True},
            "cache": {"type": "path", "required": True},
            "python_version": {"type": "str", "required": True},
            "machine": {"type": "str", "required": True},
            "pip": {"type": "list", "elements": "str", "required": True},
            "limit": {"type": "int", "default": 8_000_000},
        },
        supports_check_mode=True,
    )
    params = module.params
    # The modes of our files are in the wheel, and the wheel's sum names the release.
    os.umask(0o022)
    source, lock = Path(params["source"]), Path(params["requirements"])
    version = tomllib.loads((source / "pyproject.toml").read_text())["project"]["version"]
    hash_ = build_hash(source, lock)
    # What a process calls its release, and for which Python and machine this one is.
    release = f"{version}-{hash_}-{params['python_version']}-{params['machine']}"
    archive = Path(params["cache"]) / f"{release}.tar"

    def done() -> None:
        data = archive.read_bytes() if archive.is_file() else b""
        sha256 = hashlib.sha256(data).hexdigest() if data else ""
        # The cache is the controller's own matter: filling it is no change of the site.
        module.exit_json(changed=False, release=release, archive=str(archive), sha256=sha256, size=len(data))

    if archive.is_file() or module.check_mode:
        done()
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{release}.", dir=archive.parent) as scratch:
        wheels = Path(scratch) / "wheels"
        wheels.mkdir()
        build_own_wheel(source, wheels, hash_, module)
        needed = requirements_for(lock.read_text(), params["python_version"], params["machine"])
        for path in locked_wheels(module, needed).iterdir():
            shutil.copyfile(path, wheels / path.name)
        (wheels / "install.txt").write_text(install_list(list(wheels.glob("*.whl"))))
        unfinished = Path(scratch) / "wheels.tar"
        with tarfile.open(unfinished, "w") as tar:
            for path in sorted(wheels.iterdir()):
                tar.add(path, arcname=path.name)
        problem = oversize(list(wheels.glob("*.whl")), unfinished.stat().st_size, params["limit"])
        if problem:
            module.fail_json(msg=problem)
        unfinished.replace(archive)
    os.chmod(archive, 0o644)  # noqa: PTH101
    done()


if __name__ == "__main__":
    main()
