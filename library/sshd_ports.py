#!/usr/bin/python
"""Ansible module: the TCP ports at which sshd of this host is reached."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sshd_ports
short_description: Find the ports of sshd, however it was set up
description:
  - The ports of the effective configuration (C(sshd -T)), of listening sockets of sshd, of a socket unit, and of the
    connection by which the run came in, as the server may be another program than sshd. Nothing is changed.
  - Sockets on a loopback address don't count, since they are what a session forwards (C(ssh -R), X11).
options:
  connection: {description: Port that the run came in by., type: int}
  default: {description: Ports when none is found., type: list, elements: int, default: [22]}
"""

RETURN = r"""
ports: {description: Sorted port numbers., returned: always, type: list}
"""

import re
from ipaddress import ip_address

from ansible.module_utils.basic import AnsibleModule


def configured_ports(text: str) -> set[int]:
    """Ports named by `sshd -T`."""
    return {int(port) for port in re.findall(r"^port (\d+)$", text, re.MULTILINE)} | {
        int(port) for port in re.findall(r"^listenaddress \S+:(\d+)$", text, re.MULTILINE)
    }


def listening_ports(text: str) -> set[int]:
    """Ports of sockets of sshd in the output of `ss -Hltnp`, without those on a loopback address."""
    result = set()
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 6 and '"sshd"' in fields[5]:
            address, _, port = fields[3].rpartition(":")
            if not _is_loopback(address):
                result.add(int(port))
    return result


def _is_loopback(address: str) -> bool:
    """Tell whether an address as ss writes it (`[::1]`, `127.0.0.1%lo`, `*`) is reached from the host alone."""
    plain = address.partition("%")[0].strip("[]")
    return plain != "*" and ip_address(plain).is_loopback


def socket_unit_ports(text: str) -> set[int]:
    """Ports in `systemctl show --property=Listen ssh.socket`."""
    return {int(port) for port in re.findall(r"^Listen=\S*?(\d+) \(Stream\)", text, re.MULTILINE)}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "connection": {"type": "int"},
            "default": {"type": "list", "elements": "int", "default": [22]},
        },
        supports_check_mode=True,
    )
    ports: set[int] = set()
    sshd = module.get_bin_path("sshd", opt_dirs=["/usr/sbin"])
    if sshd:
        ports |= configured_ports(module.run_command([sshd, "-T"])[1])
    ss = module.get_bin_path("ss")
    if ss:
        ports |= listening_ports(module.run_command([ss, "-Hltnp"])[1])
    systemctl = module.get_bin_path("systemctl")
    if systemctl and module.run_command([systemctl, "is-active", "--quiet", "ssh.socket"])[0] == 0:
        ports |= socket_unit_ports(module.run_command([systemctl, "show", "--property=Listen", "ssh.socket"])[1])
    if module.params["connection"] is not None:
        ports.add(module.params["connection"])
    module.exit_json(changed=False, ports=sorted(ports or module.params["default"]))


if __name__ == "__main__":
    main()
