"""`docs/performance.md`, made from the results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpqbench.table import markdown, tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mpqbench.conditions import Conditions
    from mpqbench.results import Result

TITLES = {
    "tcp1": "One TCP connection",
    "tcp8": "Eight TCP connections",
    "small": "Small packets",
    "ping": "Latency",
    "cpu": "CPU time and memory",
    "lossy": "Lossy link",
    "flowcap": "Link that caps each flow",
    "sessions": "Many sessions",
}
NOTES = {
    "tcp1": "iperf3, CUBIC, goodput at the receiver; *up* is from the client to the server.",
    "tcp8": "As above, with eight connections at once.",
    "small": "UDP packets with 200 bytes of payload: the highest rate received with at most 1 % loss.",
    "ping": "Round trips of a ping every 10 ms through the tunnel: *idle* while nothing else is sent, *loaded* while "
    "one TCP connection saturates it.",
    "cpu": "One TCP connection up: CPU seconds of both ends together for each gigabyte carried, and the peak resident "
    "memory of the larger end.",
}
SYSTEMS = {
    "veth": "the bare link, without a tunnel",
    "openvpn": "OpenVPN 2.6, UDP, AES-128-GCM",
    "wireguard-go-deb12": "wireguard-go as in Debian 12",
    "wireguard-go-deb13": "wireguard-go as in Debian 13, which uses segmentation offloads itself",
    "fastd": "fastd, salsa2012+umac",
    "tinc": "tinc 1.0, default cipher",
    "aioquic-stock": "aioquic with its own asyncio transport, one stream, no TUN device: its tcp1 is that stream",
    "quic-datagram": "this project, QUIC datagram frames",
    "quic-reliable": "this project, a QUIC stream",
}


def compose(results: Sequence[Result], conditions: Conditions) -> str:
    """Return the whole document; only what was measured is in it."""
    systems = dict.fromkeys(result.system for result in results)
    packages = ", ".join(f"{name} {version}" for name, version in conditions.packages.items())
    parts = [
        "# Performance",
        "Made by `make bench` from `bench/results/latest.json`; don't edit it by hand.",
        (
            "Two network namespaces on one machine are joined by a veth pair (MTU 1500), every tunnel has an inner "
            "MTU of 1400, both of its ends and the load generator share the machine's processors. The systems are "
            "measured in alternation; a figure is the median of the runs, with the lowest and highest in parentheses."
        ),
        (
            f"* Measured {conditions.date}, runs: {conditions.runs}, of {conditions.seconds:g} s for each measurement\n"
            f"* {conditions.system}, kernel {conditions.kernel}, {conditions.processors} x {conditions.processor}\n"
            f"* Python {conditions.python}; {packages}"
        ),
        "\n".join(f"* **{system}**: {SYSTEMS[system]}" for system in systems if system in SYSTEMS),
    ]
    for bench, rows in tables(results).items():
        parts += [f"## {TITLES[bench]} (`{bench}`)", *([NOTES[bench]] if bench in NOTES else []), markdown(rows)]
    return "\n\n".join(part for part in parts if part) + "\n"
