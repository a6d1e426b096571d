"""Compile `mpquic/proto` below the current directory with mypyc, in place: scripts/compile_proto.py [OPTIMIZATION].

OPTIMIZATION is the C compiler's level, 0 to 3. Sources of what was compiled are removed, so that nothing runs as both.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mypyc.build import mypycify
from setuptools import setup

ROOT = Path(__file__).resolve().parents[1]
INTERPRETED = ("mpquic/proto/control/messages.py",)
"""Declarations that msgspec evaluates: mypyc passes no class keywords on, and keeps no `Annotated`."""


def main() -> None:
    """Compile, or exit with what mypyc or the C compiler says."""
    level = sys.argv[1] if len(sys.argv) > 1 else "3"
    found = sorted(str(path) for path in Path("mpquic/proto").rglob("*.py") if path.name != "__init__.py")
    missing = set(INTERPRETED) - set(found)
    if missing:
        sys.exit(f"{', '.join(sorted(missing))} isn't there: change INTERPRETED in {__file__}")
    chosen = [path for path in found if path not in INTERPRETED]
    extensions = mypycify(["--config-file", str(ROOT / "pyproject.toml"), *chosen], opt_level=level, debug_level="0")
    setup(
        name="mpquic-proto",
        packages=[],
        ext_modules=extensions,
        script_args=["--quiet", "build_ext", "--inplace"],
    )
    for path in chosen:
        Path(path).unlink()


if __name__ == "__main__":
    main()
