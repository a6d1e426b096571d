"""What scenarios of the lab share: the nodes, the links, and a probe that measures interruptions of traffic."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import testinfra.backend
from testinfra.backend.base import BaseBackend

from mpqlab.errors import LabError
from mpqlab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PROJECT = Path(__file__).resolve().parents[3]
INTERNET = "192.0.2.80"
INTERNET6 = "2001:db8:80::80"
VPS_ADDRESS = "203.0.113.10"
VPS_ADDRESS6 = "2001:db8:113::10"
LOOK_BACK = 30.0
"""Seconds of a node's journal that are shown where a tunnel isn't in the state that a test waits for."""


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
    """The running lab, by its command `mpqlab`. `changed` holds the WANs to which something was done."""

    def __init__(self) -> None:
        self.changed: set[str] = set()

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

    @contextlib.contextmanager
    def echo(self, *words: str) -> Iterator[IO[str]]:
        """`mpqlab.echo` in the Internet, from when it is ready to the end of the block: what it prints."""
        process = self.start("internet", sys.executable, "-m", "mpqlab.echo", *words)
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process.stdout
        finally:
            process.terminate()
            process.wait(timeout=10)

    def mpqlab(self, *arguments: str, timeout: float = 120) -> str:
        """Standard output of `mpqlab ...`."""
        done = subprocess.run(["mpqlab", *arguments], capture_output=True, text=True, timeout=timeout, check=False)
        assert done.returncode == 0, f"mpqlab {' '.join(arguments)}: exit {done.returncode}: {done.stderr}"
        return done.stdout

    def link(self, verb: str, wan: str, *arguments: str) -> None:
        """`mpqlab link ...`."""
        self.changed.add(wan)
        self.mpqlab("link", verb, wan, *arguments)

    def heal(self) -> None:
        """End whatever was done to WANs: cuts, unplugged devices, loss, small packets."""
        for wan in sorted(self.changed):
            self.link("heal", wan)
            self.link("plug", wan)
            self.link("set", wan, "loss_percent=0", "mtu=0", "mtu_icmp=on")
        self.changed.clear()

    def status(self, node: str = "client") -> dict[str, dict[str, Any]]:
        """`mpquicctl status` of a node, by instance."""
        return {row["name"]: row for row in json.loads(self.run(node, "mpquicctl status --json"))}

    def state(self, tunnel: str, node: str = "client") -> str:
        """State of a tunnel as `mpquicctl status` shows it: up, connecting, down or inactive."""
        return str(self.status(node)[tunnel]["state"])

    def wait_state(self, tunnel: str, state: str, within: float, node: str = "client") -> float:
        """Seconds until `tunnel` was in `state`; fails when that takes longer than `within`, and says what happened."""
        try:
            return wait_for(lambda: self.state(tunnel, node) == state, within, f"{tunnel} {state}")
        except LabError as error:
            happened = self.run(node, f"journalctl --since=-{LOOK_BACK:.0f}s --no-pager -o short-precise")
            raise LabError(f"{error}\n{self.status(node).get(tunnel)}\n{happened}") from None

    def stripe(self, tunnel: str, node: str = "client") -> dict[str, Any]:
        """Numbers of a tunnel's striped data plane as `mpquicctl paths` of a node shows them; {} when it has none."""
        rows = json.loads(self.run(node, "mpquicctl paths --json"))
        return next((row["stripe"] or {} for row in rows if row["instance"] == tunnel and "stripe" in row), {})

    def striping(self, tunnel: str) -> str | None:
        """The session of a striped data plane that carries at both ends, None while there is none."""
        ends = [self.stripe(tunnel, node) for node in ("client", "vps")]
        names = {end["session"] for end in ends if end.get("carries")}
        return str(names.pop()) if len(names) == 1 and all(end.get("carries") for end in ends) else None

    def wait_striping(self, tunnel: str, within: float, *, other_than: str | None = None) -> str:
        """The session by which `tunnel` is striped; fails when that takes longer than `within` seconds."""
        found: list[str] = []

        def striping() -> bool:
            session = self.striping(tunnel)
            if session is not None and session != other_than:
                found.append(session)
            return bool(found)

        wait_for(striping, within, f"{tunnel} striped")
        return found[0]

    def striped_at(self, tunnel: str, after: float) -> float:
        """Unix time at which `tunnel` said that a pipe carries again, the first one after the Unix time `after`.

        By the daemon's own journal: questions take longer than what is measured.
        """
        log = self.run("client", f"journalctl -q --no-pager -o short-unix -g path.striped -u mpquic@{tunnel}")
        return min(float(line.split()[0]) for line in log.splitlines() if float(line.split()[0]) > after)

    def daemon_counters(self, tunnel: str, node: str) -> dict[str, Any]:
        """`mpquicctl counters` of an instance."""
        return dict(json.loads(self.run(node, f"mpquicctl counters {tunnel}")))

    def counters(self, wan: str) -> dict[str, Any]:
        """The emulator's counters of a WAN, both directions."""
        links = json.loads(self.mpqlab("status", "--json"))["links"]
        return dict(next(link for link in links if link["wan"] == wan)["counters"])

    def carried(self) -> dict[str, int]:
        """Packets of each tunnel of the client, both ways, the smaller of both counts."""
        links = json.loads(self.run("client", "ip -s -j link show type tun"))
        return {link["ifname"]: min(link["stats64"][way]["packets"] for way in ("rx", "tx")) for link in links}

    def playbook(self, *arguments: str, inventory: Path | None = None) -> str:
        """Output of `ansible-playbook site.yml`; fails when the play fails."""
        done = run_site(*arguments, inventories=[inventory or PROJECT / "inventories/lab"])
        assert done.status == 0, done.output[-9000:]
        return done.output


@dataclass(frozen=True, slots=True)
class SiteRun:
    """A run of `site.yml` that has ended: Ansible's exit status, and what it printed."""

    status: int
    output: str

    @property
    def changed(self) -> list[str]:
        """Names of the tasks that changed something, with their host."""
        return changed_tasks(self.output)

    @property
    def recap(self) -> dict[str, dict[str, int]]:
        """The last lines of the output: by host the number of tasks that were ok, changed, unreachable, failed."""
        found = re.findall(r"^(\S+)\s+: (ok=\d+ .*)$", self.output.partition("PLAY RECAP")[2], re.MULTILINE)
        return {host: {key: int(n) for key, n in re.findall(r"(\w+)=(\d+)", counts)} for host, counts in found}


def run_site(*arguments: str, inventories: Sequence[Path]) -> SiteRun:
    """Run `site.yml` with these inventories, a later one over an earlier one, whatever comes of it."""
    words = [word for inventory in inventories for word in ("-i", str(inventory))]
    done = subprocess.run(
        ["ansible-playbook", "site.yml", *words, *arguments],
        cwd=PROJECT,
        env=os.environ | {"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0", "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    return SiteRun(done.returncode, done.stdout)


def changed_tasks(output: str) -> list[str]:
    """Names of the tasks that a play's output shows as changed, with their host."""
    tasks, name = [], ""
    for line in output.splitlines():
        if found := re.match(r"(?:TASK|RUNNING HANDLER) \[(.+?)\]", line):
            name = found[1]
        elif found := re.match(r"changed: \[([^\]]+)\]", line):
            tasks.append(f"{found[1]}: {name}")
    return tasks


class Probe:
    """A ping from a LAN host to the Internet, every 50 ms unless told otherwise, with the times of its replies."""

    def __init__(
        self, lab: Lab, lan: int, target: str = INTERNET, *, source: str | None = None, interval: float = 0.05
    ) -> None:
        # Not ping's own deadline: with it the first "unreachable" ends it.
        command = ("timeout", "300", "ping", "-n", "-D", "-i", f"{interval:g}")
        self._process = lab.start(f"host{lan}", *command, *(("-I", source) if source else ()), target)
        self._replies: list[tuple[float, int]] = []
        # All the time: when the pipe is full, ping stands still, and nothing is lost of what it doesn't send.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def replies(self) -> list[float]:
        """Unix times of all replies so far."""
        return [moment for moment, _ in self._replies.copy()]

    def _read(self) -> None:
        assert self._process.stdout is not None
        reply = re.compile(r"\[([\d.]+)\] \d+ bytes from .*icmp_seq=(\d+)")
        for line in self._process.stdout:
            if found := reply.match(line):
                self._replies.append((float(found[1]), int(found[2])))

    def wait_replies(self, count: int, within: float, *, after: float = 0.0) -> float:
        """Unix time of the `count`-th reply later than `after`."""
        wait_for(
            lambda: sum(moment > after for moment in self.replies()) >= count, within, f"{count} replies after an event"
        )
        return [moment for moment in self.replies() if moment > after][count - 1]

    def longest_gap(self, since: float) -> float:
        """Longest time in seconds without a reply, from `since` on."""
        times = [since, *(moment for moment in self.replies() if moment > since)]
        return max(later - earlier for earlier, later in itertools.pairwise(times))

    def lost(self, since: float) -> int:
        """How many requests had no reply between the last reply before `since` and the newest one."""
        replies = self._replies.copy()
        before = max((number for moment, number in replies if moment <= since), default=0)
        later = {number for moment, number in replies if moment > since}
        return max(later, default=before) - before - len(later)

    def repeated(self) -> int:
        """How many replies came more than once."""
        numbers = [number for _, number in self._replies.copy()]
        return len(numbers) - len(set(numbers))

    def close(self) -> None:
        """End the ping."""
        self._process.terminate()
        self._process.wait(timeout=10)
        self._reader.join(10)


class Download:
    """A download by a LAN host from the Internet, with the times at which bytes of it came.

    With `rate`, as curl reads it, it pauses by itself now and then.
    """

    def __init__(self, lab: Lab, lan: int, size: int, rate: str | None = None) -> None:
        command = ["curl", "-sS", "--fail", "--no-buffer", "--max-time", "170", f"http://{INTERNET}/bytes/{size}"]
        self._process = lab.start(f"host{lan}", *command, *(["--limit-rate", rate] if rate else []))
        self.received = 0
        self._times: list[float] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        while chunk := os.read(self._process.stdout.fileno(), 1 << 20):
            self._times.append(time.monotonic())
            self.received += len(chunk)

    def wait_bytes(self, count: int, within: float) -> None:
        """Wait until `count` more bytes have come."""
        wanted = self.received + count
        wait_for(lambda: self.received >= wanted, within, f"{count} bytes more")

    def longest_gap(self, since: float) -> float:
        """Longest time in seconds without a byte, from `since` (of the monotonic clock) to the last byte."""
        times = [since, *(moment for moment in self._times if moment > since)]
        return max(later - earlier for earlier, later in itertools.pairwise(times))

    def finish(self, within: float) -> None:
        """Wait for the end; fails when the download failed."""
        self._reader.join(within)
        assert not self._reader.is_alive(), f"the download goes on after {within:.0f} s"
        assert self._process.wait(timeout=10) == 0

    def close(self) -> None:
        """End it, whether it is through or not."""
        self._process.terminate()
        self._process.wait(timeout=10)
        self._reader.join(10)
