"""A client's socket has its own device's address as source, also where others have the same one or lend theirs."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest
from mpquic.daemon.wan_socket import mute_foreign, open_socket
from mpquic.net.kernel import KERNEL
from mpquic.net.netlink import LinkMonitor
from mpquic.net.send_status import SendStatus
from mpquic.net.udp import UdpSocket
from mpquic.proto.path.address import plain_host
from waiting import wait_for

from .namespace import ip

SERVER, SERVER6 = "203.0.113.10", "2001:db8:113::10"


def make_wan(number: int, *addresses: str) -> str:
    device = f"nett-w{number}"
    ip(f"link add {device} type veth peer name nett-i{number}")
    ip(f"link set {device} addrgenmode none up")
    ip(f"link set nett-i{number} up")
    for address in addresses:
        ip(f"addr add {address} dev {device}" + (" nodad" if ":" in address else ""))
    ip(f"rule add oif {device} lookup {100 + number}")
    ip(f"-6 rule add oif {device} lookup {100 + number}")
    return device


def path_by(device: str, family: int = socket.AF_INET) -> SimpleNamespace:
    remote = SERVER6 if family == socket.AF_INET6 else SERVER
    return SimpleNamespace(bind_device=device, bind_address=None, family=family, remote_addr=remote)


def opened(device: str, family: int = socket.AF_INET) -> UdpSocket:
    monitor = LinkMonitor([device])
    own = monitor.state(device).own_hosts(family)
    monitor.close()
    return open_socket(KERNEL, path_by(device, family), 4500, own)


@pytest.mark.root
@pytest.mark.usefixtures("namespace")
def test_equal_addresses_of_two_devices_each_have_their_socket():
    devices = [make_wan(number, "192.168.1.100/24") for number in (1, 2)]
    for number in (1, 2):
        ip(f"route add default via 192.168.1.1 dev nett-w{number} src 192.168.1.100 table 10{number}")
    sockets = [opened(device) for device in devices]
    assert [plain_host(each.local_address) for each in sockets] == ["192.168.1.100"] * 2
    assert [each.send_batch([b"x"]) for each in sockets] == [SendStatus.OK] * 2


@pytest.mark.root
@pytest.mark.usefixtures("namespace")
@pytest.mark.parametrize(
    ("family", "foreign", "own"),
    [
        (socket.AF_INET, "192.168.1.100/24", "198.51.100.5/24"),
        (socket.AF_INET6, "2001:db8:1::5/64", "2001:db8:2::5/64"),
    ],
)
def test_an_address_that_the_kernel_would_lend_from_another_device_is_not_taken(family, foreign, own):
    make_wan(1, foreign)
    device = make_wan(2, own)
    version = "-6 " if family == socket.AF_INET6 else ""
    ip(f"{version}route add default dev {device} src {foreign.partition('/')[0]} table 102")
    any_address = "::" if version else "0.0.0.0"
    remote = (SERVER6 if version else SERVER, 9)
    lent = UdpSocket((any_address, 0), device=device, peer=remote, dual_stack=False)
    assert plain_host(lent.local_address) == foreign.partition("/")[0], "the test has nothing to show"
    assert plain_host(opened(device, family).local_address) == own.partition("/")[0]


@pytest.mark.root
@pytest.mark.usefixtures("namespace")
def test_nothing_leaves_from_an_address_that_only_another_device_has_now():
    make_wan(1, "192.168.1.100/24")
    device = make_wan(2, "192.168.1.100/24")
    ip(f"route add default dev {device} table 102")
    ours = opened(device)
    ip(f"addr del 192.168.1.100/24 dev {device}")
    ip(f"addr add 192.168.2.100/24 dev {device}")
    mute_foreign([ours], ("192.168.2.100",))
    assert ours.send_batch([b"x"]) is SendStatus.UNREACHABLE
    assert ours.counters.tx_datagrams == 0


def test_a_muted_socket_still_reads_and_drops_what_waits():
    server = UdpSocket(("127.0.0.1", 0))
    client = UdpSocket(("127.0.0.1", 0), peer=server.local_address)
    client._keep([b"waits"], None, 0)
    mute_foreign([client], ("127.0.0.2",))
    assert not client.wants_write
    assert client.send_batch([b"x"] * 3) is SendStatus.UNREACHABLE
    assert server.send_batch([b"y"], client.local_address) is SendStatus.OK
    wait_for(client.recv_batch)
    assert server.recv_batch() == []


def test_a_socket_from_an_address_that_the_device_still_has_goes_on():
    server = UdpSocket(("127.0.0.1", 0))
    client = UdpSocket(("127.0.0.1", 0), peer=server.local_address)
    mute_foreign([client], ("127.0.0.2", "127.0.0.1"))
    assert client.send_batch([b"x"]) is SendStatus.OK


@pytest.mark.root
@pytest.mark.usefixtures("namespace")
def test_the_address_whose_subnet_covers_the_server_is_told():
    device = make_wan(1, "198.51.100.5/24", "203.0.113.50/24")
    monitor = LinkMonitor([device])
    assert str(monitor.state(device).covering(SERVER)) == "203.0.113.50/24"
    assert monitor.state(device).covering("192.0.2.1") is None
    assert monitor.state(device).own_hosts(socket.AF_INET) == ("198.51.100.5", "203.0.113.50")
    monitor.close()
