"""Debian packages: of this release by apt, and single ones of a given release, unpacked without installing them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from mpqbench.errors import BenchError
from mpqbench.processes import run

SOURCES = Path("/etc/apt")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def install(*packages: str) -> None:
    """Install what is missing of `packages` from the machine's own sources."""
    missing = [package for package in packages if not _installed(package)]
    if missing:
        os.environ["DEBIAN_FRONTEND"] = "noninteractive"
        run(["apt-get", "update", "-qq"], timeout=180)
        run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], timeout=300)


def _installed(package: str) -> bool:
    command = ["dpkg-query", "-W", "-f=${db:Status-Status}", package]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=10).stdout == "installed"


def main_archive(text: str) -> str | None:
    """Return the first archive in apt sources (either format) that ends in /debian, None if there is none."""
    found = re.search(r"^(?:URIs:|deb\b(?:\s+\[[^\]]*\])?)\s*(\S+/debian)/?(?:\s|$)", text, re.MULTILINE)
    return found.group(1) if found else None


def unpack(package: str, suite: str, cache: Path) -> Path:
    """Download `package` of the release `suite` and unpack it; return the folder that stands for its root.

    The packages of `suite` are looked up with a private apt configuration below `cache`: the machine's own package
    lists and sources stay as they are, and nothing is installed.
    """
    root = cache / f"{package}-{suite}"
    if root.is_dir():
        return root
    files = [SOURCES / "sources.list", *sorted((SOURCES / "sources.list.d").glob("*"))]
    archive = main_archive("\n".join(file.read_text() for file in files if file.is_file()))
    if archive is None:
        raise BenchError(f"no Debian archive in {SOURCES}: {package} of {suite} can't be found")
    state = cache / "apt" / suite
    for folder in ("lists/partial", "archives/partial", "parts"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    sources = state / "sources.list"
    sources.write_text(f"deb [signed-by={KEYRING}] {archive} {suite} main\n")
    options = [
        f"Dir::Etc::sourcelist={sources}", f"Dir::Etc::sourceparts={state / 'parts'}",
        f"Dir::State::lists={state / 'lists'}", f"Dir::Cache={state}",
        "APT::Sandbox::User=root", "Acquire::Languages=none",
    ]  # fmt: skip
    apt = ["apt-get", "-qq", *(argument for option in options for argument in ("-o", option))]
    run([*apt, "update"], timeout=180)
    uris = run([*apt, "--print-uris", "download", package], timeout=60)
    # "'URI' FILE SIZE HASH": apt downloads into the current directory, so the fetching process needs another one.
    name = uris.split()[1]
    run(["env", "-C", str(state), *apt, "download", package], timeout=180)
    part = cache / f"{package}-{suite}.part"
    run(["dpkg-deb", "-x", str(state / name), str(part)])
    return part.rename(root)
