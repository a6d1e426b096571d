"""Links that vanish, return, and change their addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from mpqlab.testing import INTERNET
from mpqlab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mpqlab.testing import Lab, Probe


DEVICES = {5: "enp7s7", 6: "enp7s8"}
"""Of the WANs to which things are done here, by number. The tunnel of WAN5 is plain QUIC, that of WAN6 is striped."""


@pytest.fixture(params=DEVICES, ids=["quic", "striped"])
def number(request: pytest.FixtureRequest) -> int:
    """The number of the WAN to which something is done, of its tunnel and LAN."""
    return int(request.param)


@pytest.fixture
def others(probe: Callable[[int], Probe], number: int) -> Iterator[None]:
    """Traffic of other LANs that must not notice what happens to a WAN."""
    probes = [probe(lan) for lan in (4, 5, 6) if lan != number]
    starts = [running.replies()[-1] for running in probes]
    yield
    for running, start in zip(probes, starts, strict=True):
        assert running.longest_gap(start) < 1


def wait_carrying(lab: Lab, number: int, within: float) -> None:
    """Wait until a tunnel is up, and striped if it is to be."""
    lab.wait_state(f"mpq{number}", "up", within)
    if number == 6:
        lab.wait_striping("mpq6", within=3)


def addresses_and_routes(lab: Lab) -> str:
    return lab.run("client", "ip rule; ip -6 rule; ip route show table all; ip -4 -o address")


@pytest.mark.usefixtures("others")
def test_unplugged_wan_makes_its_tunnel_inactive_and_nothing_leaks(lab: Lab, number: int) -> None:
    wait_carrying(lab, number, within=10)
    lab.link("unplug", f"wan{number}")
    lab.wait_state(f"mpq{number}", "inactive", within=5)
    leaving = f"src net 172.16.{number}.0/30 and dst host {INTERNET} and not inbound"
    capture = lab.start("client", "timeout", "5", "tcpdump", "-n", "-l", "-i", "any", leaving)
    answer = lab.run(f"host{number}", f"ping -n -c 30 -i 0.1 -W 1 {INTERNET} || true")
    assert "bytes from" not in answer
    assert answer.count("nreachable") > 0, "LAN hosts are told at once"
    output, _ = capture.communicate(timeout=10)
    assert output.strip() == ""
    assert lab.run("client", "systemctl list-units --failed --plain --no-legend") == ""
    device = DEVICES[number]
    assert device not in addresses_and_routes(lab).replace(f"oif {device}", "")

    lab.link("plug", f"wan{number}")
    wait_carrying(lab, number, within=5)
    lab.run(f"host{number}", f"ping -n -c 1 -W 2 {INTERNET}")


@pytest.mark.usefixtures("others")
def test_carrier_that_goes_and_returns(lab: Lab, number: int) -> None:
    lab.link("unplug", f"wan{number}", "--carrier")
    lab.wait_state(f"mpq{number}", "inactive", within=5)
    lab.link("plug", f"wan{number}")
    wait_carrying(lab, number, within=5)


@pytest.mark.parametrize(("flap", "within"), [(True, 6), (False, 30)], ids=["flap", "silence"])
def test_renumbered_wan_carries_again(
    lab: Lab, probe: Callable[[int], Probe], number: int, flap: bool, within: float
) -> None:
    traffic, device = probe(number), DEVICES[number]
    old = lab.run("client", f"ip -4 -o address show dev {device}").split()[3].split("/")[0]
    lab.link("renumber", f"wan{number}", *(["--flap"] if flap else []))
    renumbered = traffic.replies()[-1]

    def leased() -> bool:
        address = lab.run("client", f"ip -4 -o address show dev {device}").split()
        return len(address) > 3 and not address[3].startswith(f"{old}/")

    wait_for(leased, within, "another lease")
    wait_carrying(lab, number, within=3)
    traffic.wait_replies(5, within=3, after=renumbered + 0.5)
    assert traffic.longest_gap(renumbered) <= within
    network = old.rsplit(".", 1)[0]
    stale = [line for line in addresses_and_routes(lab).splitlines() if f"{network}." in line]
    assert stale == []


def test_stale_lease_file_with_a_wrong_gateway_changes_nothing(lab: Lab) -> None:
    index = lab.run("client", "cat /sys/class/net/enp7s7/ifindex").strip()
    wrong = "10.150.19.66"
    lease = f"ADDRESS=10.150.19.99\nNETMASK=255.255.255.0\nROUTER={wrong}\nSERVER_ADDRESS={wrong}\n"
    lab.run(
        "client",
        f"mkdir -p /var/lib/dhcp && printf '{lease}' | tee /run/systemd/netif/leases/{index} >/dev/null;"
        f" printf 'lease {{ interface \"enp7s7\"; option routers {wrong}; }}' > /var/lib/dhcp/dhclient.enp7s7.leases;"
        " systemctl restart 'mpquic@mpq5'",
    )
    lab.wait_state("mpq5", "up", within=10)
    assert wrong not in lab.run("client", "ip route show table all")
    lab.run("host5", f"ping -n -c 2 -i 0.2 -W 2 {INTERNET}")
    lab.run("client", "systemctl restart systemd-networkd")
    lab.wait_state("mpq5", "up", within=15)
    assert wrong not in lab.run("client", "ip route show table all")
