"""ufw after `ufw allow OpenSSH` and `ufw enable`: its chains as iptables-nft writes them, input and forward dropped."""

from __future__ import annotations

from mpqlab.foreign.program import File, Program

_PARTS = ("before-logging", "before", "after", "after-logging", "reject", "track")
_BEFORE_INPUT = {
    "ip": (
        'iifname "lo" counter accept',
        "ct state related,established counter accept",
        "ct state invalid counter drop",
        "icmp type { destination-unreachable, time-exceeded, parameter-problem, echo-request } counter accept",
        "udp sport 67 udp dport 68 counter accept",
        "ip daddr 224.0.0.251 udp dport 5353 counter accept",
    ),
    "ip6": (
        'iifname "lo" counter accept',
        "ct state related,established counter accept",
        "ct state invalid counter drop",
        "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } counter accept",
        "icmpv6 type { echo-request, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } counter accept",
        "ip6 saddr fe80::/10 udp sport 547 udp dport 546 counter accept",
    ),
}
_BEFORE_FORWARD = {
    "ip": (
        "ct state related,established counter accept",
        "icmp type { destination-unreachable, time-exceeded, parameter-problem, echo-request } counter accept",
    ),
    "ip6": (
        "ct state related,established counter accept",
        "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } counter accept",
        "icmpv6 type echo-request counter accept",
    ),
}
_POLICIES = {"input": "drop", "forward": "drop", "output": "accept"}
_SSH = "tcp dport 22 counter accept"


def _table(family: str) -> str:
    prefix = "ufw" if family == "ip" else "ufw6"
    chains: dict[str, list[str]] = {}
    for hook in _POLICIES:
        for part in _PARTS:
            chains[f"{prefix}-{part}-{hook}"] = []
        chains[f"{prefix}-user-{hook}"] = []
    chains[f"{prefix}-user-input"].append(_SSH)
    chains[f"{prefix}-before-input"] += [*_BEFORE_INPUT[family], f"counter jump {prefix}-user-input"]
    chains[f"{prefix}-before-forward"] += [*_BEFORE_FORWARD[family], f"counter jump {prefix}-user-forward"]
    chains[f"{prefix}-before-output"] += [
        'oifname "lo" counter accept',
        "ct state related,established counter accept",
        f"counter jump {prefix}-user-output",
    ]
    chains[f"{prefix}-track-output"] += ["meta l4proto { tcp, udp } ct state new counter accept"]
    lines = [f"table {family} filter {{"]
    # Declared first: a rule may jump only to a chain that exists.
    lines += [f"\tchain {name} {{\n\t}}" for name in chains]
    for name, rules in chains.items():
        lines += [f"\tchain {name} {{", *(f"\t\t{rule}" for rule in rules), "\t}"]
    for hook, policy in _POLICIES.items():
        lines.append(f"\tchain {hook.upper()} {{")
        lines.append(f"\t\ttype filter hook {hook} priority filter; policy {policy};")
        lines += [f"\t\tcounter jump {prefix}-{part}-{hook}" for part in _PARTS]
        lines.append("\t}")
    return "\n".join([*lines, "}"]) + "\n"


_DOWN = """\
#!/bin/sh
nft delete table ip6 filter
# The table is shared with Docker: the last of the two takes it away.
systemctl --quiet is-active docker.service || nft delete table ip filter
"""
_UNIT = """\
[Unit]
Description=Uncomplicated firewall
DefaultDependencies=no
After=systemd-sysctl.service local-fs.target
Before=network-pre.target
Wants=network-pre.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c "nft list chain ip6 filter INPUT >/dev/null 2>&1 || exec nft -f /etc/ufw/rules.nft"
ExecStop=/usr/local/sbin/ufw-down

[Install]
WantedBy=multi-user.target
"""


def program(machine: str) -> Program:
    """Return ufw; the same for each machine."""
    del machine
    files = {
        "etc/ufw/ufw.conf": File("ENABLED=yes\nLOGLEVEL=low\n"),
        "etc/ufw/rules.nft": File(_table("ip") + _table("ip6")),
        "usr/local/sbin/ufw-down": File(_DOWN, 0o755),
        "etc/systemd/system/ufw.service": File(_UNIT),
    }
    return Program(files, unit="ufw.service")
