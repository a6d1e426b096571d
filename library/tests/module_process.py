"""Runs a module as Ansible does: a process of its own, arguments on standard input, one line of JSON back."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LIBRARY = Path(__file__).parent.parent


def run_module(name: str, arguments: dict[str, Any], *, path: str = "") -> dict[str, Any]:
    """Return what the module `name` answers; `path` comes before PATH, for imitations of programs."""
    outcome = subprocess.run(
        [sys.executable, str(LIBRARY / f"{name}.py")],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": f"{path}:/usr/sbin:/usr/bin:/sbin:/bin" if path else "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    assert outcome.stdout, outcome.stderr
    answer: dict[str, Any] = json.loads(outcome.stdout.splitlines()[-1])
    return answer
