"""The daemon's own Python: Debian's, with the locked libraries, as the roles deploy it on a host.

A machine may have another Python first in its path, built without Debian's optimisations: a tenth slower.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from mpqbench import debian
from mpqbench.errors import BenchError
from mpqbench.processes import run

DEBIAN_PYTHON = "/usr/bin/python3"


def install(cache: Path, checkout: Path) -> Path:
    """Make the environment below `cache` if it isn't there; return its interpreter.

    `checkout` holds the daemon, which is used in place, and the lock of its libraries.
    """
    lock = checkout / "requirements" / "daemon.txt"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    home = cache / f"daemon-{digest}"
    python = home / "bin" / "python"
    if not (home / "complete").exists():
        debian.install("python3", "python3-venv")
        run([DEBIAN_PYTHON, "-m", "venv", "--clear", str(home)], timeout=120)
        run([str(python), "-m", "pip", "install", "-q", "--require-hashes", "-r", str(lock)], timeout=600)
        places = run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], timeout=30)
        source = checkout / "mpquic_daemon" / "src"
        if not source.is_dir():
            raise BenchError(f"{source} is missing: the bench measures the daemon of its own checkout")
        Path(places.strip(), "mpquic.pth").write_text(f"{source}\n")
        (home / "complete").touch()
    return python
