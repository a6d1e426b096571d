"""`docs/performance.md`, made from the results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpqlab.topology import EMULATED_WANS

from mpqbench import browsing, clean, cpulimit, fairness, flowcap, lossy, pages, sessions, targets
from mpqbench.conditions import kind, unmeasured
from mpqbench.plots import folder_name
from mpqbench.table import markdown, tables

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from mpqbench.class_loss import ClassLoss
    from mpqbench.conditions import Conditions, Measurement, Pair
    from mpqbench.results import Result


def _wans() -> str:
    return "; ".join(
        f"{wan.name} {wan.up:g} Mbit/s up and {wan.down:g} down, round trip {wan.rtt_ms:g} ms" for wan in EMULATED_WANS
    )


PLOTS = "../bench/results"
"""Where the plots are, seen from the document."""
TITLES = {
    "tcp1": "One TCP connection",
    "tcp8": "Eight TCP connections",
    "small": "Small packets",
    "ping": "Latency",
    "cpu": "CPU time and memory",
    "lossy": "Lossy link",
    "flowcap": "Link that caps each flow",
    "sessions": "Many sessions",
    "fairness": "Fairness on one server",
    "clean": "Clean links",
    "browsing": "Many users over a saturated link",
}
NOTES = {
    "tcp1": "iperf3, CUBIC, goodput at the receiver; *up* is from the client to the server.",
    "tcp8": "As above, with eight connections at once.",
    "small": "UDP packets with 200 bytes of payload: the highest rate received with at most 1 % loss. *up*: from "
    "iperf3, one by one. *up, USO*: from a sender that hands the kernel up to 50 in a call (UDP_SEGMENT, as QUIC "
    "servers do), so that a TUN device with USO passes them on together.",
    "ping": "Round trips of a ping every 10 ms through the tunnel: *idle* while nothing else is sent, *loaded* while "
    "one TCP connection saturates it.",
    "cpu": "One TCP connection up: CPU seconds of both ends together for each gigabyte carried, and the peak resident "
    "memory of the larger end. *10 GB up*: its resident memory when it has carried that much, and how much of it came "
    "after the first half.",
    "lossy": f"The namespaces are joined by a link emulator in user space: {lossy.RATE:g} Mbit/s, round trip "
    f"{lossy.ROUND_TRIP:g} ms, a queue of {lossy.QUEUE:g} ms (one bandwidth-delay product), loss in the direction of "
    f"the data only. *Bursts* are those of a Gilbert-Elliott channel that loses 5 packets in a row in the mean, "
    f"{lossy.BURSTS.mean:.1%} of all. One TCP connection (CUBIC); its first {lossy.OMIT:g} s don't count, and "
    f"{lossy.LONGER:g} times as long as elsewhere is measured. The *share* is that of the erasure limit: (1 - loss) of "
    "what plain TCP reaches on the same link without loss and without a tunnel, in the same run.",
    "flowcap": f"An emulated link of {flowcap.RATE:g} Mbit/s, round trip {2 * flowcap.LINK['delay_ms']:g} ms, that "
    f"caps each flow (5-tuple) at {flowcap.FLOW_RATE:g} Mbit/s. One TCP connection over several pipes; *wire rate* "
    f"counts the bytes of IP packets that left the link towards the receiver. Shares are of the smaller of "
    f"{flowcap.RATE:g} and pipes times {flowcap.FLOW_RATE:g} Mbit/s.",
    "sessions": f"{sessions.ACTIVE} clients, each in a namespace of its own, send one TCP connection each over one "
    f"server, together: while {sessions.IDLE} more are registered, and after these have gone. Each is the median of "
    f"{sessions.REPETITIONS} measurements, the first {sessions.OMIT:.0f} s of each left out. The idle are the daemon's "
    "own clients in one process, without TUN devices, that keep their paths alive with the default timers. That "
    "process uses the same processors, which it wouldn't elsewhere: *CPU* is what it took, and when it has gone a "
    "stand-in takes as much. What the server spends on the idle is in the ratio.",
    "fairness": f"{fairness.CLIENTS} busy clients, each with an identity of its own, over one server whose process may "
    f"use {fairness.CORES:g} of a core (the kernel's CPU bandwidth controller, period "
    f"{cpulimit.PERIOD / 1000:g} ms). Most carry one TCP connection with full-size packets; in some cases one sends "
    f"{fairness.RATE:,} packets a second of {fairness.PAYLOAD} bytes instead (*small*), or as many from an inner "
    "source that the server refuses (*refused*). *Jain index* is over the goodput of those with TCP: 1 when all get "
    "the same, 1/n when one of n gets everything. *CPU share of the others* is what the other one or two take of the "
    "server's processor time, seen in what is missing from the goodput: 1 - goodput of all / goodput of ten, for the "
    f"same processor time. The first {fairness.OMIT:g} s don't count.",
    "clean": f"Emulated links with the rates and delays of the lab's WANs, without loss: {_wans()}. One TCP connection "
    "(CUBIC) through the tunnel and one beside it on the same link (*plain TCP*), one after the other in the same run; "
    f"their first {clean.OMIT:g} s don't count, and {clean.LONGER:g} times as long as elsewhere is measured. *up* is "
    "from the client to the server.",
    "browsing": f"An emulated link of {browsing.DOWN:g} Mbit/s down and {browsing.UP:g} up, round trip "
    f"{browsing.ROUND_TRIP:g} ms, without loss. {browsing.USERS} users browse, which saturates it: a page is "
    f"{pages.OBJECTS} objects of {pages.SMALLEST // 1000} to {pages.LARGEST // 1000} kB by {pages.CONNECTIONS} new "
    f"connections, and is read for {pages.SHORTEST:g} to {pages.LONGEST:g} s. A ping every "
    f"{browsing.PING_INTERVAL * 1000:g} ms goes the same way. Through the tunnel and beside it (*plain TCP*), one "
    "after the other in the same run, with the same choices; a page is the median.",
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
    "stripe": "this project, the striped data plane, four pipes, FEC that follows the loss",
    "stripe-fec-off": "the same without FEC",
    "stripe-fec-always": "the same with FEC at all times: two parity shards for ten data shards",
}


def compose(
    results: Mapping[str, Sequence[Result]],
    measurements: Mapping[str, Sequence[Measurement]],
    drawn: Mapping[str, Collection[str]],
    classes: ClassLoss | None = None,
) -> str:
    """Return the whole document; only what was measured is in it.

    The first three are by processor model; `drawn` are the benches that have a plot. `classes` is of the lab.
    """
    systems = dict.fromkeys(result.system for rows in results.values() for result in rows)
    parts = [
        "# Performance",
        "Made by `make bench` from `bench/results/latest.json`; don't edit it by hand.",
        (
            "Two network namespaces on one machine are joined by a veth pair (MTU 1500), every tunnel has an inner "
            "MTU of 1400, both of its ends and the load generator share the machine's processors. The systems are "
            "measured in alternation; a figure is the median of the runs, with the lowest and highest in parentheses. "
            "Two commits are compared by `python -m mpqbench --against REV`, which measures both in pairs and prints "
            "ratios."
        ),
        _processors(results),
        "\n".join(f"* **{system}**: {SYSTEMS[system]}" for system in systems if system in SYSTEMS),
    ]
    for processor, rows in results.items():
        parts += [
            f"## {processor}",
            _conditions(measurements[processor]),
            "### Targets",
            "Ratios of medians.",
            markdown(targets.rows(rows), numbers_from=2),
        ]
        for bench, table in tables(rows).items():
            parts += [f"### {TITLES[bench]} (`{bench}`)", NOTES[bench]]
            if bench in drawn.get(processor, ()):
                parts.append(f"![{TITLES[bench]}]({PLOTS}/{folder_name(processor)}/{bench}.svg)")
            parts.append(markdown(table))
    if classes is not None:
        parts.append(classes.section())
    return "\n\n".join(part for part in parts if part) + "\n"


def _processors(results: Iterable[str]) -> str:
    """Tell which processors were measured, and which kinds weren't."""
    models = list(results)
    lines = [f"* {kind(model)}: {model}" for model in models]
    lines += [f"* {each}: **not measured**" for each in unmeasured(models)]
    return "Processors; figures of one kind say little of another:\n\n" + "\n".join(sorted(lines))


def _conditions(measurements: Sequence[Measurement]) -> str:
    """Tell when and where; what was measured again is named with its own date."""
    first, *others = sorted(measurements, key=lambda each: len(each.pairs), reverse=True)
    lines = [f"* Measured {_when(first.conditions)}", *_where(first.conditions)]
    for other in sorted(others, key=lambda each: each.conditions.date):
        lines.append(f"* {_what(other.pairs)}: measured {_when(other.conditions)}")
        lines += [f"  {line}" for line in _where(other.conditions) if line not in _where(first.conditions)]
    return "\n".join(lines)


def _when(conditions: Conditions) -> str:
    runs = f"up to {conditions.runs} runs" if conditions.runs > 1 else "one run"
    return f"{conditions.date}, {runs}, {conditions.seconds:g} s for each measurement unless said otherwise"


def _where(conditions: Conditions) -> list[str]:
    packages = ", ".join(f"{name} {version}" for name, version in conditions.packages.items())
    return [
        f"* {conditions.system}, kernel {conditions.kernel}, {conditions.processors} x {conditions.processor}",
        f"* Python {conditions.python}; {packages}",
    ]


def _what(pairs: Iterable[Pair]) -> str:
    benches: dict[str, list[str]] = {}
    for bench, system in pairs:
        benches.setdefault(bench, []).append(system)
    return "; ".join(f"`{bench}` of {', '.join(systems)}" for bench, systems in benches.items())
