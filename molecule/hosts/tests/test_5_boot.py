"""What the run made is there after a reboot, whatever others' files say; nothing is forwarded without the rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from mpqlab.topology import find_wan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mpqlab.testing import Lab

DEVICE = find_wan("wan4").device
FORWARDING = "sysctl -n net.ipv4.ip_forward net.ipv6.conf.all.forwarding"
RULES = "/etc/mpquic/nftables.nft"


@pytest.fixture
def foreign_sysctls(lab: Lab) -> Iterator[None]:
    """Files of others that sort after everything, and contradict us."""
    lab.run("client", "cp /etc/sysctl.conf /root/sysctl.conf.before && echo net.ipv4.ip_forward=0 >>/etc/sysctl.conf")
    lab.run("client", "echo 'net.ipv4.conf.*.rp_filter=1' >/etc/sysctl.d/99-hardening.conf")
    yield
    lab.run("client", "mv /root/sysctl.conf.before /etc/sysctl.conf; rm /etc/sysctl.d/99-hardening.conf")


@pytest.mark.usefixtures("foreign_sysctls")
def test_kernel_parameters_of_others_do_not_win_at_the_next_boot(lab: Lab) -> None:
    lab.mpqlab("reboot", "client")
    assert lab.run("client", FORWARDING).split() == ["1", "1"]
    values = lab.run("client", f"sysctl -n net.ipv4.conf.all.rp_filter net.ipv4.conf.{DEVICE}.rp_filter")
    assert values.split() == ["0", "0"]


@pytest.mark.usefixtures("foreign_sysctls")
def test_a_device_that_comes_later_gets_our_value_last(lab: Lab) -> None:
    # udev doesn't run in machines that are containers: its programs are run by hand, in the order that it tells.
    lab.run("client", "ip link add late0 type veth peer name late1")
    try:
        told = lab.run("client", "udevadm test --action=add /sys/class/net/late0 2>&1")
        programs = [line.split("'")[1] for line in told.splitlines() if line.startswith("run: ")]
        assert len(programs) >= 2
        for program in programs:
            lab.run("client", program)
        assert lab.run("client", "sysctl -n net.ipv4.conf.late0.rp_filter").strip() == "0"
    finally:
        lab.run("client", "ip link delete late0")


def test_a_boot_at_which_the_rules_fail_to_load_does_not_forward(lab: Lab) -> None:
    lab.run("client", f"cp {RULES} /root/rules.before && echo nonsense >>{RULES}")
    lab.run("client", "cp /etc/sysctl.conf /root/sysctl.conf.before && echo net.ipv4.ip_forward=1 >>/etc/sysctl.conf")
    try:
        lab.mpqlab("reboot", "client")
        assert lab.run("client", FORWARDING).split() == ["0", "0"]
    finally:
        lab.run("client", f"mv /root/rules.before {RULES}; mv /root/sysctl.conf.before /etc/sysctl.conf")
        lab.run("client", "systemctl restart mpquic-firewall.service mpquic-forwarding.service")
    assert lab.run("client", FORWARDING).split() == ["1", "1"]
