"""What stops a run before it changes anything, with one message for each host that names cause and remedy."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mpqlab.testing import Lab, SiteRun

    from .conftest import Site, Variables

    Edit = Callable[[Callable[[Variables], None]], Path]

EVERYTHING = (
    "find /etc /opt /var/lib/mpquic -xdev -type f -printf '%p %s %T@ %m %u\\n' | sort | sha256sum;"
    " nft -s list table inet mpquic"
)


def state(lab: Lab) -> list[str]:
    """What a run could change on both machines."""
    return [lab.run(node, EVERYTHING) for node in ("client", "vps")]


def message(run: SiteRun) -> str:
    """What the table at the end says of the hosts that didn't come through."""
    return run.output.partition("SITES AND VPSES")[2]


def management_elsewhere(variables: Variables) -> None:
    """The management interface has the name of one that isn't there."""
    variables.site["management"][0]["device"] = "eno1"


def ssh_from_the_other(variables: Variables) -> None:
    """ssh is accepted from the second management interface alone, and the run comes in by the first."""
    variables.site["firewall"] = {"ssh_from": ["mgmt2"]}


def another_address(variables: Variables) -> None:
    """The address to which the run comes in isn't the host's any more."""
    variables.site["management"][0] |= {"address": "10.10.11.50/24"}


def other_ssh_port(variables: Variables) -> None:
    variables.site["firewall"] = {"ssh_ports": [2222]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (management_elsewhere, ["there is no interface eno1 on the host", "ens3"]),
        (ssh_from_the_other, ["this run came in by ens3 (10.10.11.100)", "site.firewall.ssh_from"]),
        (another_address, ["came in to 10.10.11.100 on ens3, which the variables don't give", "ansible_host"]),
        (other_ssh_port, ["came in by port 22", "site.firewall.ssh_ports opens 2222 alone"]),
    ],
)
def test_a_run_that_would_lock_its_operator_out_is_stopped(
    lab: Lab, run_site: Site, edited: Edit, change: Callable[[Variables], None], words: list[str]
) -> None:
    before = state(lab)
    # Only the client: a VPS whose variables are right would rightly be provisioned.
    done = run_site("--limit", "site1-client", inventory=edited(change))
    assert done.status == 2, done.output[-5000:]
    for word in words:
        assert word in message(done)
    assert state(lab) == before


def test_a_run_that_comes_in_by_a_lan_which_ssh_from_does_not_name_is_stopped(
    lab: Lab, run_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a bare host, where nothing is closed yet, and nobody puts the rules back.
    lab.run("client", "systemctl stop mpquic-guard")
    lab.run("client", "nft insert rule inet mpquic input iifname ens9 tcp dport 22 accept")
    try:
        before = state(lab)
        monkeypatch.setenv("MPQLAB_SSH_FROM", "openwrt")
        variables = {"ansible_host": "172.16.5.1", "ansible_ssh_common_args": "-o HostKeyAlias=10.10.11.100"}
        done = run_site("--limit", "site1-client", "-e", json.dumps(variables))
        assert done.status == 2, done.output[-5000:]
        assert "this run came in by ens9 (172.16.5.1)" in message(done)
        assert state(lab) == before
    finally:
        lab.run("client", "systemctl reload mpquic-firewall && systemctl start mpquic-guard")


def test_without_a_management_interface_somebody_must_be_able_to_log_in(lab: Lab, run_site: Site, edited: Edit) -> None:
    before = state(lab)
    done = run_site(inventory=edited(lambda variables: variables.site.update(management=[])))
    assert done.status == 2, done.output[-5000:]
    assert "site.firewall.ssh_from: management has no interface here, so nobody could log in" in done.output
    assert state(lab) == before


def test_a_network_manager_that_came_back_is_named(lab: Lab, run_site: Site) -> None:
    path = "/etc/systemd/network/02-site.network"
    lab.run("client", f"printf '[Match]\\nName=ens1[2-6]\\n[Network]\\nDHCP=yes\\n' > {path}")
    try:
        before = state(lab)
        done = run_site("--limit", "site1-client")
        assert done.status == 2, done.output[-5000:]
        assert f"{path} configures interfaces of this site again" in message(done)
        assert state(lab) == before
    finally:
        lab.run("client", f"rm {path}")


def test_a_full_var_tmp_and_a_taken_port_are_named_in_one_message(lab: Lab, run_site: Site) -> None:
    lab.run("vps", "mount -t tmpfs -o size=1M tmpfs /var/tmp && systemctl stop mpquic-linkd mpquic@mpq5")
    hold = "import socket, time; s = socket.socket(2, 2); s.bind(('', 45005)); time.sleep(120)"
    thief = lab.start("vps", "python3", "-c", hold)
    try:
        before = state(lab)
        done = run_site("--limit", "vps1")
        assert done.status == 2, done.output[-5000:]
        told = message(done)
        assert "/var/tmp has 1 MiB free" in told
        assert "UDP port 45005, which vps.listeners names, is taken by python3" in told
        assert state(lab) == before
    finally:
        lab.run("vps", "pkill -f '[i]mport socket, time'")
        thief.wait(10)
        lab.run("vps", "umount /var/tmp && systemctl start mpquic-linkd")
    lab.wait_state("mpq5", "up", within=30)


FAKE_CLOCK = "/usr/local/bin/python3-years-ago"


def test_a_clock_that_is_years_behind_is_named(lab: Lab, run_site: Site) -> None:
    library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
    script = f'#!/bin/sh\nexport LD_PRELOAD={library} FAKETIME=-5y\nexec python3 "$@"\n'
    lab.run("client", f"cat > {FAKE_CLOCK} <<'EOF'\n{script}EOF\nchmod 0755 {FAKE_CLOCK}")
    before = state(lab)
    done = run_site("--limit", "site1-client", "-e", f"ansible_python_interpreter={FAKE_CLOCK}")
    assert done.status == 2, done.output[-5000:]
    assert "the clock is 5 years behind the controller's" in message(done)
    assert state(lab) == before
