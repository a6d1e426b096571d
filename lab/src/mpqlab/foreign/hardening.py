"""Kernel parameters of a hardened host, in files that sort behind what a role usually writes."""

from __future__ import annotations

from mpqlab.foreign.program import File, Program

_SYSCTL_CONF = """\
#
# /etc/sysctl.conf - Configuration file for setting system variables
# See /etc/sysctl.d/ for additional system variables.
# See sysctl.conf (5) for information.
#
net.ipv4.ip_forward=0
"""
_HARDENING = """\
# A router is no host: drop what comes in by another way than its answer would leave.
net.ipv4.conf.all.rp_filter = 1
net.ipv4.conf.default.rp_filter = 1
net.ipv4.conf.*.rp_filter = 1
# A connection that is older than its tracking is invalid, such as that of whoever loads a packet filter by ssh.
-net.netfilter.nf_conntrack_tcp_loose = 0
"""


def program(machine: str) -> Program:
    """Return the files; the same for each machine."""
    del machine
    return Program(
        {"etc/sysctl.conf": File(_SYSCTL_CONF), "etc/sysctl.d/99-hardening.conf": File(_HARDENING)},
        commands=(("systemctl", "restart", "systemd-sysctl"),),
    )
