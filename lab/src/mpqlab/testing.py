"""What scenarios of the lab share: the nodes, the links, and a probe that measures interruptions of traffic."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import testinfra.backend
from testinfra.backend.base import BaseBackend

if TYPE_CHECKING:
    from collections.abc import Callable

PROJECT = Path(__file__).resolve().parents[3]
INTERNET = "192.0.2.80"
INTERNET6 = "2001:db8:80::80"
VPS_ADDRESS = "203.0.113.10"
VPS_ADDRESS6 = "2001:db8:113::10"


testinfra.backend.BACKENDS["mpqlab"] = f"{__name__}.NodeBackend"


class NodeBackend(BaseBackend):  # type: ignore[misc]  # testinfra is untyped
    """Runs testinfra's commands in a node of the lab."""

    NAME = "mpqlab"

    def __init__(self, name: str, *args: Any, **kwargs: Any) -> None:
        self.name = name
        super().__init__(name, *args, **kwargs)

    def run(self, command: str, *args: str, **_kwargs: Any) -> Any:
        """Result of a shell command in the node."""
        return self.run_local("mpqlab exec %s -- /bin/sh -c %s", self.name, self.get_command(command, *args))


class Lab:
    """The running lab, by its command `mpqlab`."""

    def run(self, node: str, command: str, *, check: bool = True, timeout: float = 60) -> str:
        """Standard output of a shell command in `node`; raises AssertionError with its errors when `check`."""
        done = subprocess.run(
            ["mpqlab", "exec", node, "--", "/bin/sh", "-c", command],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, f"{node}: {command}: exit {done.returncode}: {done.stderr}"
        return done.stdout

    def start(self, node: str, *command: str) -> subprocess.Popen[str]:
        """A command that goes on in `node`; the caller ends it."""
        return subprocess.Popen(["mpqlab", "exec", node, "--", *command], stdout=subprocess.PIPE, text=True)

    def mpqlab(self, *arguments: str, timeout: float = 120) -> str:
        """Standard output of `mpqlab ...`."""
        done = subprocess.run(["mpqlab", *arguments], capture_output=True, text=True, timeout=timeout, check=False)
        assert done.returncode == 0, f"mpqlab {' '.join(arguments)}: exit {done.returncode}: {done.stderr}"
        return done.stdout

    def link(self, *arguments: str) -> None:
        """`mpqlab link ...`."""
        self.mpqlab("link", *arguments)

    def status(self, node: str = "client") -> dict[str, dict[str, Any]]:
        """`mpquicctl status` of a node, by instance."""
        return {row["name"]: row for row in json.loads(self.run(node, "mpquicctl status --json"))}

    def state(self, tunnel: str, node: str = "client") -> str:
        """State of a tunnel as `mpquicctl status` shows it: up, connecting, down or inactive."""
        return str(self.status(node)[tunnel]["state"])

    def wait_state(self, tunnel: str, state: str, within: float, node: str = "client") -> float:
        """Seconds until `tunnel` was in `state`; fails when that takes longer than `within`."""
        return wait_until(lambda: self.state(tunnel, node) == state, within, f"{tunnel} {state}")

    def counters(self, wan: str) -> dict[str, Any]:
        """The emulator's counters of a WAN, both directions."""
        links = json.loads(self.mpqlab("status", "--json"))["links"]
        return dict(next(link for link in links if link["wan"] == wan)["counters"])

    def playbook(self, *arguments: str, inventory: Path | None = None) -> str:
        """Output of `ansible-playbook site.yml`; fails when the play fails."""
        done = subprocess.run(
            ["ansible-playbook", "site.yml", "-i", str(inventory or PROJECT / "inventories/lab"), *arguments],
            cwd=PROJECT,
            env=os.environ
            | {"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0", "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
        return done.stdout


def changed_tasks(output: str) -> list[str]:
    """Names of the tasks that a play's output shows as changed, with their host."""
    tasks, name = [], ""
    for line in output.splitlines():
        if found := re.match(r"(?:TASK|RUNNING HANDLER) \[(.+?)\]", line):
            name = found[1]
        elif found := re.match(r"changed: \[([^\]]+)\]", line):
            tasks.append(f"{found[1]}: {name}")
    return tasks


def wait_until(condition: Callable[[], bool], within: float, what: str) -> float:
    """Seconds until `condition` held; fails, naming `what`, when it takes longer than `within` seconds."""
    start = time.monotonic()
    while not condition():
        waited = time.monotonic() - start
        assert waited < within, f"not {what} after {waited:.1f} s"
        time.sleep(0.05)
    return time.monotonic() - start


class Probe:
    """A ping every 50 ms from a LAN host to the Internet, with the times of its answers."""

    def __init__(self, lab: Lab, lan: int, target: str = INTERNET) -> None:
        # Not ping's own deadline: with it the first "unreachable" ends it.
        command = ("timeout", "300", "ping", "-n", "-D", "-i", "0.05", target)
        self._process = lab.start(f"host{lan}", *command)
        self._times: list[float] = []
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._rest = ""

    def answers(self) -> list[float]:
        """Unix times of all answers so far."""
        assert self._process.stdout is not None
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self._process.stdout.fileno(), 65536):
                self._rest += chunk.decode()
        *lines, self._rest = self._rest.split("\n")
        self._times += [float(found[1]) for line in lines if (found := re.match(r"\[([\d.]+)\] \d+ bytes from", line))]
        return self._times

    def wait_answers(self, count: int, within: float, *, after: float = 0.0) -> float:
        """Unix time of the `count`-th answer later than `after`."""
        wait_until(
            lambda: sum(moment > after for moment in self.answers()) >= count, within, f"{count} answers after an event"
        )
        return [moment for moment in self._times if moment > after][count - 1]

    def longest_gap(self, since: float) -> float:
        """Longest time in seconds without an answer, from `since` on."""
        times = [since, *(moment for moment in self.answers() if moment > since)]
        return max(later - earlier for earlier, later in itertools.pairwise(times))

    def close(self) -> None:
        """End the ping."""
        self._process.terminate()
        self._process.wait(timeout=10)
