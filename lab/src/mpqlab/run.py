"""Running other programs: to completion with their errors shown, or as background processes of the lab."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from mpqlab import cgroup
from mpqlab.errors import LabError
from mpqlab.state import Process
from mpqlab.topology import namespace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mpqlab.state import State

SERVICES = "services"


def run(argv: Sequence[str], *, stdin: str = "", timeout: float = 60.0) -> str:
    """Run a program and return its standard output.

    Raises:
        LabError: it failed or took longer than `timeout` seconds; the text holds what it printed.
    """
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    except FileNotFoundError:
        raise LabError(f"the program {argv[0]!r} is missing") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"{' '.join(argv)!r} took longer than {timeout:.0f} s") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise LabError(f"{' '.join(argv)!r} failed with status {done.returncode}: {said}")
    return done.stdout


def ip(node: str, lines: Sequence[str], *, family: str | None = None) -> None:
    """Run a batch of `ip` commands inside a node's namespace; the first that fails ends it.

    `family` (-4 or -6) is for rules and routes that don't show theirs by an address.
    """
    if lines:
        run(["ip", *([family] if family else []), "-n", namespace(node), "-batch", "-"], stdin="\n".join(lines) + "\n")


def ip_json(node: str, *words: str) -> str:
    """Return the output of `ip -json WORDS` inside a node's namespace."""
    return run(["ip", "-json", "-n", namespace(node), *words])


def inside(node: str, argv: Sequence[str]) -> list[str]:
    """Return the command that runs `argv` in a node's network namespace and in nothing else of it.

    `ip netns exec` would make a mount namespace too, which keeps the machines' root file systems busy.
    """
    return ["nsenter", f"--net=/run/netns/{namespace(node)}", "--", *argv]


def sysctl(node: str, values: Mapping[str, int]) -> None:
    """Set keys below net/ in a node's network namespace (namespaced keys only)."""
    script = "".join(f"echo {value} > /proc/sys/net/{key}\n" for key, value in values.items())
    run(inside(node, ["sh", "-e"]), stdin=script)


def nft(node: str, ruleset: str) -> None:
    """Load an nftables ruleset in a node's network namespace."""
    run(inside(node, ["nft", "-f", "-"]), stdin=ruleset)


def spawn(
    state: State,
    name: str,
    argv: Sequence[str],
    *,
    group: str = SERVICES,
    environment: Mapping[str, str] | None = None,
    descriptors: Sequence[int] = (),
) -> Process:
    """Start a background process of the lab in a control group and remember it; its output goes to NAME.log.

    It inherits the open files `descriptors` under their numbers.
    """
    with (state.logs / f"{name}.log").open("ab") as log:
        started = subprocess.Popen(
            cgroup.joining(group, argv),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=environment,
            pass_fds=descriptors,
        )
    try:
        process = Process.of(name, started.pid)
    except ProcessLookupError:
        raise LabError(f"{name} ended at once: see {state.logs / name}.log") from None
    state.remember(process)
    return process


def listening(process: Process, protocol: str, port: int) -> bool:
    """Tell whether a socket of `protocol` (tcp or udp, either family) is bound to `port` in a process's namespace."""
    listen = "0A" if protocol == "tcp" else "07"
    for table in (protocol, f"{protocol}6"):
        try:
            lines = Path(f"/proc/{process.pid}/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == listen and int(fields[1].rpartition(":")[2], 16) == port:
                return True
    return False
