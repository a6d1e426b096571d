"""The TUN: attached without privilege, superframes both ways, the carrier, and what the kernel refuses."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import struct
import tempfile
from pathlib import Path

import pytest
from mpquic.net import tun
from mpquic.net.tun import VNET_HEADER_BYTES, TunDevice, TunError
from waiting import wait_for

from .namespace import ip

NOBODY = 65534
PLAIN = bytes(VNET_HEADER_BYTES)


def carrier(device: str) -> bool:
    index = socket.if_nametoindex(device)
    from mpquic.net.netlink import LinkMonitor

    monitor = LinkMonitor([device])
    try:
        assert monitor.state(device).index == index
        return monitor.state(device).carrier
    finally:
        monitor.close()


def ipv4(payload: bytes, source: str, destination: str, protocol: int = 17) -> bytes:
    header = struct.pack(
        "!BBHHHBBH4s4s",
        0x45,
        0,
        20 + len(payload),
        1,
        0,
        64,
        protocol,
        0,
        socket.inet_aton(source),
        socket.inet_aton(destination),
    )
    total = sum(struct.unpack("!10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return header[:10] + struct.pack("!H", 0xFFFF ^ ((total & 0xFFFF) + (total >> 16))) + header[12:] + payload


@pytest.fixture
def device(namespace):  # noqa: ARG001
    ip("tuntap add dev nett-tun0 mode tun vnet_hdr")
    ip("addr add 10.77.1.1/30 dev nett-tun0")
    ip("link set nett-tun0 mtu 1400 addrgenmode none up")  # no router solicitations of the kernel's own
    attached = TunDevice("nett-tun0")
    attached.set_carrier(carrier=True)
    yield attached
    attached.close()


@pytest.mark.root
@pytest.mark.usefixtures("namespace")
def test_a_missing_device_is_said_so_and_not_created():
    with pytest.raises(TunError, match="nett-none doesn't exist: systemd-networkd creates it"):
        TunDevice("nett-none")
    assert "nett-none" not in [name for _, name in socket.if_nameindex()]


@pytest.mark.parametrize("name", ["", "a-name-of-16-byte"])
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(TunError, match="no interface name"):
        TunDevice(name)


@pytest.mark.root
@pytest.mark.usefixtures("namespace")
def test_a_device_of_another_kind_is_said_so():
    ip("link add nett-veth type veth peer name nett-vpeer")
    with pytest.raises(TunError, match="can't be attached: it isn't a TUN"):
        TunDevice("nett-veth")


@pytest.mark.root
@pytest.mark.usefixtures("device")
def test_a_second_process_is_said_so():
    with pytest.raises(TunError, match="another process has it"):
        TunDevice("nett-tun0")


@pytest.mark.root
@pytest.mark.usefixtures("namespace")
def test_the_carrier_is_off_until_it_is_switched_on_and_after_the_end():
    ip("tuntap add dev nett-tun0 mode tun vnet_hdr")
    ip("link set nett-tun0 up")
    attached = TunDevice("nett-tun0")
    assert not carrier("nett-tun0")
    attached.set_carrier(carrier=True)
    assert carrier("nett-tun0")
    assert attached.carrier
    attached.set_carrier(carrier=False)
    assert not carrier("nett-tun0")
    attached.set_carrier(carrier=True)
    attached.close()
    assert not carrier("nett-tun0")
    TunDevice("nett-tun0").close()


@pytest.mark.root
def test_packets_pass_in_both_directions(device):
    peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    peer.bind(("10.77.1.1", 7000))
    peer.settimeout(10)
    udp = struct.pack("!HHHH", 7001, 7000, 8 + 5, 0) + b"hello"
    assert device.write([PLAIN, ipv4(udp, "10.77.1.2", "10.77.1.1")])
    assert peer.recvfrom(100) == (b"hello", ("10.77.1.2", 7001))
    found: list[bytes] = []

    def arrived() -> bool:
        # The kernel takes its time until a new carrier lets packets through; what comes before is dropped.
        peer.sendto(b"world", ("10.77.1.2", 7001))
        found.extend(device.read_batch())
        return any(packet.endswith(b"world") for packet in found)

    wait_for(arrived)
    device.read_batch()
    assert device.read_batch() == []
    assert device.counters.tx_packets == 1
    assert device.counters.rx_packets >= len(found)
    peer.close()


@pytest.mark.root
@pytest.mark.usefixtures("namespace")
def test_a_tcp_superframe_comes_in_one_read_and_goes_back_in_one_write():
    """A TCP connection through two TUNs that are joined by copying each read into a write."""
    from .namespace import FarSide

    far = FarSide()
    ends = []
    for address, where in (("10.77.2.1/24", contextlib.nullcontext()), ("10.77.2.2/24", far.entered())):
        with where:
            ip("tuntap add dev nett-tun0 mode tun vnet_hdr")
            ip(f"addr add {address} dev nett-tun0")
            ip("link set nett-tun0 mtu 1400 up")
            end = TunDevice("nett-tun0")
            end.set_carrier(carrier=True)
            ends.append(end)
    near, distant = ends
    with far.entered():
        listener = socket.create_server(("10.77.2.2", 7100))
    listener.setblocking(False)
    client = socket.socket()
    client.setblocking(False)
    client.connect_ex(("10.77.2.2", 7100))
    largest = 0

    def copy() -> None:
        nonlocal largest
        for source, sink in ((near, distant), (distant, near)):
            for packet in source.read_batch():
                largest = max(largest, len(packet))
                assert sink.write([packet])

    accepted: list[socket.socket] = []

    def connected() -> bool:
        copy()
        with contextlib.suppress(BlockingIOError):
            accepted.append(listener.accept()[0])
        return bool(accepted)

    wait_for(connected)
    accepted[0].setblocking(False)
    data = os.urandom(1 << 20)
    sent, received = 0, bytearray()

    def transferred() -> bool:
        nonlocal sent
        with contextlib.suppress(BlockingIOError):
            sent += client.send(data[sent : sent + 262144])
        copy()
        with contextlib.suppress(BlockingIOError):
            received.extend(accepted[0].recv(1 << 20))
        return len(received) == len(data)

    wait_for(transferred, seconds=10)
    assert received == data
    assert largest > 20_000
    for item in (client, listener, accepted[0], near, distant, far):
        item.close()


@pytest.mark.root
def test_a_wrong_virtio_header_is_counted_and_not_raised(device):
    bad_gso = struct.pack("<BBHHHH", 1, 1, 40, 0, 20, 16)
    assert not device.write([bad_gso, ipv4(bytes(100), "10.77.1.2", "10.77.1.1", 6)])
    assert device.counters.tx_invalid == 1
    assert not device.write([b"short"])
    assert device.counters.tx_invalid == 2
    assert device.counters.tx_packets == 0


@pytest.mark.root
def test_a_device_that_is_down_is_counted_and_not_raised(device):
    ip("link set nett-tun0 down")
    assert not device.write([PLAIN, ipv4(bytes(8), "10.77.1.2", "10.77.1.1")])
    assert device.counters.tx_down == 1
    assert device.read_batch() == []
    ip("link set nett-tun0 up")
    assert device.write([PLAIN, ipv4(bytes(8), "10.77.1.2", "10.77.1.1")])


@pytest.mark.root
def test_a_device_that_is_deleted_is_counted_and_not_raised(device):
    assert not device.gone
    ip("link del nett-tun0")
    assert not device.write([PLAIN, ipv4(bytes(8), "10.77.1.2", "10.77.1.1")])
    assert device.counters.tx_down == 1
    assert device.read_batch() == []
    assert device.gone
    device.set_carrier(carrier=True)
    assert not device.carrier


@pytest.fixture
def clone_device(monkeypatch):
    """A node of the clone device that everyone may open, as on Debian."""
    directory = Path(tempfile.mkdtemp(prefix="nett-"))
    directory.chmod(0o755)
    node = directory / "tun"
    os.mknod(node, 0o666 | stat.S_IFCHR, os.makedev(10, 200))
    node.chmod(0o666)
    monkeypatch.setattr(tun, "_DEVICE", str(node))
    yield
    shutil.rmtree(directory)


@pytest.mark.root
@pytest.mark.parametrize(("owner", "expected"), [(NOBODY, "attached"), (12345, "refused")])
@pytest.mark.usefixtures("namespace", "clone_device")
def test_the_owner_attaches_without_any_privilege(owner, expected):
    ip(f"tuntap add dev nett-tun0 mode tun vnet_hdr user {owner}")
    ip("link set nett-tun0 up")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        outcome = b"failed"
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            attached = TunDevice("nett-tun0", uso=True)
            attached.set_carrier(carrier=True)
            attached.set_carrier(carrier=False)
            outcome = b"attached"
        except TunError as error:
            outcome = b"refused" if "belongs to another user" in str(error) else str(error).encode()
        finally:
            os.write(writer, outcome)
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    assert os.read(reader, 1000).decode() == expected
    os.close(reader)
