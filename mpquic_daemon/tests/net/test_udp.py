"""The outer socket: the same datagrams arrive with and without segmentation, and errors are results."""

from __future__ import annotations

import errno
import socket

import pytest
from mpquic.net import offload, unsegmented
from mpquic.net.send_status import SendStatus
from mpquic.net.udp import MAX_EMPTY, UdpSocket, split_segments
from mpquic.proto.path.address import plain_host
from waiting import wait_for

from .namespace import add_local, delete_local, ip, set_checksum_offload

SIZES = [1200] * 70 + [700] + [1452] * 3 + [100, 1452, 1, 1, 1] + [1300] * 64


def collect(receiver: UdpSocket, count: int) -> list[bytes]:
    received: list[bytes] = []

    def enough() -> bool:
        for data, segment, _address in receiver.recv_batch():
            received.extend(split_segments(data, segment))
        return len(received) >= count

    wait_for(enough, what=f"{count} datagrams")
    return received


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("gso", ["on", "off"])
def test_datagrams_arrive_as_they_were_sent(host, gso):
    receiver = UdpSocket((host, 0))
    sender = UdpSocket((host, 0), peer=receiver.local_address[:2], gso=gso)
    datagrams = [bytes([index % 251]) * size for index, size in enumerate(SIZES)]
    assert sender.send_batch(datagrams) is SendStatus.OK
    assert collect(receiver, len(datagrams)) == datagrams
    assert sender.counters.tx_datagrams == receiver.counters.rx_datagrams == len(datagrams)
    assert sender.counters.tx_bytes == sum(SIZES)
    assert sender.counters.tx_calls == (len(datagrams) if gso == "off" else 7)
    sender.close()
    receiver.close()


@pytest.mark.parametrize("gso", ["on", "off"])
def test_single_datagrams_leave_the_buffers_to_runs(gso):
    receiver = UdpSocket(("127.0.0.1", 0), reads=1)
    sender = UdpSocket(("127.0.0.1", 0), peer=receiver.local_address, gso=gso)
    datagrams = [bytes([index]) * (100 + index) for index in range(12)]
    for datagram in datagrams:
        sender.send_batch([datagram])
    wait_for(lambda: receiver.counters.rx_datagrams or receiver.recv_batch())
    batches = []
    wait_for(lambda: batches.append(receiver.recv_batch(singles=3)) or receiver.counters.rx_datagrams == 12)
    assert {len(batch) for batch in batches} <= {0, 1, 2, 3, 4}
    assert max(map(len, batches)) == 4
    sender.close()
    receiver.close()


@pytest.mark.parametrize(
    ("sizes", "calls"), [([1400, 1200], 2), ([1400, 1200, 1200, 1200], 2), ([1400, 1400, 1200], 1)]
)
def test_a_probe_of_the_path_takes_no_other_datagram_along(sizes, calls):
    """A virtual network that forwards what was sent at once as one packet would lose both."""
    receiver = UdpSocket(("127.0.0.1", 0))
    sender = UdpSocket(("127.0.0.1", 0), peer=receiver.local_address, gso="on")
    sender.send_batch([bytes(size) for size in sizes])
    assert sender.counters.tx_calls == calls
    assert sorted(map(len, collect(receiver, len(sizes)))) == sorted(sizes)


def test_the_self_test_tells_something_about_this_kernel():
    assert offload.segmentation_works() in (True, None)


def test_the_sender_of_each_read_is_told():
    receiver = UdpSocket(("127.0.0.1", 0))
    senders = [UdpSocket(("127.0.0.1", 0), peer=receiver.local_address) for _ in range(2)]
    for sender in senders:
        sender.send_batch([b"x" * 100])
    seen = set()
    wait_for(lambda: seen.update(a for _, _, a in receiver.recv_batch()) or len(seen) == 2)
    assert seen == {sender.local_address for sender in senders}


def test_a_dual_stack_socket_takes_both_families_and_answers():
    server = UdpSocket(("::", 0))
    port = server.local_address[1]
    for host in ("127.0.0.1", "::1"):
        client = UdpSocket((host, 0), peer=(host, port))
        client.send_batch([b"question"])
        found = []
        wait_for(lambda found=found: found.extend(server.recv_batch()) or found)
        data, _, address = found[0]
        assert bytes(data) == b"question"
        assert plain_host(address) == host
        assert server.send_batch([b"answer"] * 3, address) is SendStatus.OK
        assert collect(client, 3) == [b"answer"] * 3
        client.close()
    server.close()


class Egress:
    """The device towards some hosts, which has no checksum offload: the kernel refuses to segment (EIO)."""

    def __init__(self, sender, monkeypatch, hosts):
        self.hosts = hosts
        self.refused = 0
        self._real = sender._call
        monkeypatch.setattr(sender, "_call", self._call)

    def _call(self, buffers, control, address):
        if control and (address[0] if address else None) in self.hosts:
            self.refused += 1
            return errno.EIO
        return self._real(buffers, control, address)


def test_a_refused_segmentation_falls_back_and_is_remembered(monkeypatch):
    receiver = UdpSocket(("127.0.0.1", 0))
    sender = UdpSocket(("127.0.0.1", 0), peer=receiver.local_address, gso="on")
    egress = Egress(sender, monkeypatch, {None})
    for _ in range(2):
        assert sender.send_batch([bytes(1000)] * 5) is SendStatus.OK
        assert collect(receiver, 5) == [bytes(1000)] * 5
    assert sender.counters.tx_calls == 10
    assert egress.refused == sender.counters.segmentation_fallbacks == 1


def test_a_refused_segmentation_is_of_that_host_alone_and_is_tried_again(monkeypatch):
    now = 1000.0
    receivers = [UdpSocket((host, 0)) for host in ("127.0.0.1", "127.0.0.2")]
    bad, good = (receiver.local_address for receiver in receivers)
    sender = UdpSocket(("0.0.0.0", 0), gso="on", clock=lambda: now)
    egress = Egress(sender, monkeypatch, {bad[0]})

    def calls(address):
        before = sender.counters.tx_calls
        assert sender.send_batch([bytes(1000)] * 5, address) is SendStatus.OK
        return sender.counters.tx_calls - before

    assert [calls(bad), calls(good), calls(bad), calls((bad[0], good[1]))] == [5, 1, 5, 5]
    assert egress.refused == 1
    now += unsegmented.RETRY
    assert (calls(bad), egress.refused) == (5, 2)
    egress.hosts = set()
    now += unsegmented.RETRY
    assert (calls(bad), egress.refused) == (1, 2)


def test_what_is_remembered_of_refusals_is_bounded(monkeypatch):
    monkeypatch.setattr(unsegmented, "MAX_HOSTS", 3)
    hosts = unsegmented.Unsegmented(lambda: 0.0)
    for number in (0, 1, 2, 0, 3):
        hosts.add(f"192.0.2.{number}")
    assert [f"192.0.2.{number}" in hosts for number in range(4)] == [True, False, True, True]


def waiting(receiver, datagrams):
    """Have datagrams wait to be read, from two senders in turn."""
    senders = [UdpSocket(("127.0.0.1", 0), peer=receiver.local_address, gso="off") for _ in range(2)]
    for number, datagram in enumerate(datagrams):
        senders[number % 2].send_batch([datagram])
    for sender in senders:
        sender.close()


def test_empty_datagrams_take_no_buffer_and_end_no_read():
    receiver = UdpSocket(("127.0.0.1", 0), reads=4)
    waiting(receiver, [b"", b"", b"", b"", b"", b"first", b"", b"", b"second", b"", b"third"])
    assert [bytes(data) for data, _, _ in receiver.recv_batch()] == [b"first", b"second", b"third"]
    assert receiver.drained
    assert receiver.counters.rx_datagrams == 11
    receiver.close()


def test_a_flood_of_empty_datagrams_holds_nobody_up():
    receiver = UdpSocket(("127.0.0.1", 0), reads=4)
    waiting(receiver, [b""] * 10 * MAX_EMPTY + [b"x"])
    batches = []
    while not receiver.drained or not batches:
        before = receiver.counters.rx_calls
        batches.append(receiver.recv_batch())
        assert receiver.counters.rx_calls - before <= MAX_EMPTY + 4
    assert [bytes(data) for batch in batches for data, _, _ in batch] == [b"x"]
    receiver.close()


def test_of_what_waits_for_a_full_socket_a_bounded_number_is_kept(monkeypatch):
    receiver = UdpSocket(("127.0.0.1", 0))
    sender = UdpSocket(("127.0.0.1", 0), peer=receiver.local_address, gso="off")
    with monkeypatch.context() as patch:
        patch.setattr(sender, "_call", lambda *_: errno.EAGAIN)
        for _ in range(30):
            assert sender.send_batch([b"waits"] * 100) is SendStatus.BLOCKED
    assert sender.counters.tx_dropped == 3000 - 1024
    assert sender.resume() is SendStatus.OK
    assert sender.counters.tx_datagrams == 1024
    receiver.close()
    sender.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_what_icmp_says_costs_no_datagram(host):
    taken = UdpSocket((host, 0))
    sender = UdpSocket((host, 0), peer=taken.local_address[:2])
    port = taken.local_address[1]
    taken.close()
    assert sender.send_batch([b"x"]) is SendStatus.OK
    sent = []
    wait_for(lambda: sent.append(sender.send_batch([b"x"])) or sender.counters.reported_errors > 1)
    assert set(sent) == {SendStatus.OK}
    assert sender.counters.tx_datagrams == 1 + len(sent)
    # On the next call, whichever it is: a read gives what waits all the same.
    receiver = UdpSocket((host, port))
    assert receiver.send_batch([b"reply"], sender.local_address[:2]) is SendStatus.OK
    assert collect(sender, 1) == [b"reply"]


@pytest.mark.root
@pytest.mark.parametrize("gso", ["on", "off"])
@pytest.mark.usefixtures("namespace")
def test_too_large_for_the_device_is_a_result_and_not_blamed_on_segmentation(gso):
    ip("link add nett-u0 mtu 1300 type veth peer name nett-u1")
    ip("addr add 192.0.2.1/24 dev nett-u0")
    ip("link set nett-u0 up")
    ip("link set nett-u1 up")
    sender = UdpSocket(("0.0.0.0", 0), device="nett-u0", peer=("192.0.2.2", 9), gso=gso)
    assert sender.path_mtu() == 1300
    assert sender.counters.reported_errors == 0
    assert sender.send_batch([bytes(1400)] * 3) is SendStatus.TOO_LARGE
    assert sender.counters.tx_too_large == 3
    assert sender.send_batch([bytes(1200)] * 3) is SendStatus.OK
    assert sender.counters.tx_calls == (1 if gso == "on" else 3)


@pytest.mark.root
@pytest.mark.usefixtures("namespace")
def test_a_vanished_device_and_a_lost_route_are_results():
    ip("link add nett-u0 type veth peer name nett-u1")
    ip("addr add 192.0.2.1/24 dev nett-u0")
    ip("link set nett-u0 up")
    ip("link set nett-u1 up")
    bound = UdpSocket(("0.0.0.0", 0), device="nett-u0")
    loose = UdpSocket(("0.0.0.0", 0))
    assert bound.send_batch([b"x"], ("192.0.2.2", 9)) is SendStatus.OK
    assert loose.send_batch([b"x"], ("198.51.100.1", 9)) is SendStatus.UNREACHABLE
    ip("link del nett-u0")
    assert bound.send_batch([b"x"], ("192.0.2.2", 9)) is SendStatus.NO_DEVICE
    assert bound.recv_batch() == []


@pytest.mark.root
@pytest.mark.usefixtures("namespace")
def test_a_device_that_does_not_exist_is_an_error_when_made():
    with pytest.raises(OSError, match="No such device"):
        UdpSocket(("0.0.0.0", 0), device="nett-none")


@pytest.mark.root
@pytest.mark.parametrize("offloads", [True, False])
def test_batches_cross_a_veth_with_and_without_checksum_offload(far_side, offloads):
    ip("link add nett-u0 type veth peer name nett-u1")
    far_side.take("nett-u1")
    ip("addr add 192.0.2.1/24 dev nett-u0")
    ip("link set nett-u0 up")
    with far_side.entered():
        ip("addr add 192.0.2.2/24 dev nett-u1")
        ip("link set nett-u1 up")
        receiver = UdpSocket(("0.0.0.0", 5555), device="nett-u1")
    set_checksum_offload("nett-u0", enabled=offloads)
    sender = UdpSocket(("0.0.0.0", 0), device="nett-u0", peer=("192.0.2.2", 5555))
    # Kernels before 6.11 refuse to segment here (EIO), later ones do it in software: either way all arrives.
    datagrams = [bytes([index]) * size for index, size in enumerate([1200] * 40 + [1452] * 30 + [33])]
    assert sender.send_batch(datagrams) is SendStatus.OK
    assert collect(receiver, len(datagrams)) == datagrams


@pytest.mark.usefixtures("namespace")
@pytest.mark.parametrize("gso", ["auto", "off"])
@pytest.mark.parametrize(
    ("bound", "own", "others"),
    [
        ("0.0.0.0", "127.0.0.1", ["127.0.0.2", "127.0.0.3"]),
        ("::", "127.0.0.1", ["127.0.0.2", "127.0.0.3"]),
        ("::", "fd00::1", ["fd00::2", "fd00::3"]),
    ],
)
def test_a_wildcard_socket_answers_from_the_address_that_was_asked(gso, bound, own, others):
    for address in ("fd00::1", "fd00::2", "fd00::3"):
        add_local(address)
    server = UdpSocket((bound, 0), gso=gso)
    port = server.local_address[1]
    # Connected: what comes from another address than the one that was asked isn't theirs.
    clients = [UdpSocket((own, 0), peer=(other, port), gso=gso, dual_stack=False) for other in others]
    for client in clients:
        client.send_batch([b"who is there"])
    senders = []
    wait_for(lambda: senders.extend(address for _, _, address in server.recv_batch()) or len(senders) == 2)
    expected = [bytes([number]) * 1200 for number in range(5)] + [b"end"]
    for sender in senders:
        assert server.send_batch(expected, sender) is SendStatus.OK
    for client in clients:
        assert collect(client, len(expected)) == expected
    assert server.counters.segmentation_fallbacks == 0
    for end in (server, *clients):
        end.close()


@pytest.mark.usefixtures("namespace")
def test_an_address_that_has_gone_is_forgotten():
    add_local("fd00::2")
    add_local("fd00::1")
    server = UdpSocket(("::", 0))
    client = UdpSocket(("fd00::1", 0), dual_stack=False)
    client.send_batch([b"hello"], ("fd00::2", server.local_address[1]))
    senders = []
    wait_for(lambda: senders.extend(address for _, _, address in server.recv_batch()) or senders)
    (sender,) = senders
    delete_local("fd00::2")
    assert server.send_batch([b"answer"], sender) is SendStatus.UNREACHABLE
    assert server.send_batch([b"answer"], sender) is SendStatus.OK
    server.close()
    client.close()


@pytest.mark.usefixtures("namespace")
@pytest.mark.parametrize(
    ("bound", "own", "asked", "other"),
    [("::", "127.0.0.1", "127.0.0.2", "127.0.0.3"), ("::", "fd00::1", "fd00::2", "fd00::3")],
)
def test_a_datagram_to_another_address_does_not_move_the_one_that_a_peer_is_answered_from(bound, own, asked, other):
    """quic-go issue 395: anybody can send with the client's source address to another alias of the server."""
    for address in ("fd00::1", "fd00::2", "fd00::3"):
        add_local(address)
    server = UdpSocket((bound, 0))
    port = server.local_address[1]
    client = UdpSocket((own, 0), dual_stack=False)
    senders = []
    for destination in (asked, other):
        client.send_batch([b"question"], (destination, port))
        before = len(senders)
        wait_for(lambda before=before: senders.extend(a for _, _, a in server.recv_batch()) or len(senders) > before)
    kept, forged = senders
    assert kept == forged
    assert server.send_batch([b"answer"], kept) is SendStatus.OK
    assert server.send_batch([b"reply to the forged one"], forged) is SendStatus.OK
    answers = []
    wait_for(lambda: answers.extend((bytes(d), plain_host(a)) for d, _, a in client.recv_batch()) or len(answers) == 2)
    assert answers == [(b"answer", asked), (b"reply to the forged one", other)]
    server.close()
    client.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_that_is_taken_is_named(host):
    taken = UdpSocket((host, 0))
    port = taken.local_address[1]
    with pytest.raises(OSError, match=f"UDP port {port} is taken"):
        UdpSocket((host, port))
    taken.close()


def told_of_tos(host):
    """A UDP socket to which the kernel tells the TOS octet or traffic class of what arrives."""
    v6 = ":" in host
    receiver = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM)
    level, option = (socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS) if v6 else (socket.IPPROTO_IP, socket.IP_RECVTOS)
    receiver.setsockopt(level, option, 1)
    receiver.bind((host, 0))
    receiver.settimeout(2)
    return receiver


@pytest.mark.parametrize(
    ("bound", "host", "shown"),
    [("127.0.0.1", "127.0.0.1", "127.0.0.1"), ("::", "127.0.0.1", "::ffff:127.0.0.1"), ("::", "::1", "::1")],
)
@pytest.mark.parametrize("gso", ["on", "off"])
def test_a_shared_socket_gives_each_send_its_dscp_and_never_marks_congestion(bound, host, shown, gso):
    server = UdpSocket((bound, 0), gso=gso)
    with told_of_tos(host) as receiver:
        address = (shown, receiver.getsockname()[1])
        for dscp in (46, 0, 10):
            assert server.send_batch([b"a" * 1200] * 3 + [b"b" * 700], address, dscp) is SendStatus.OK
            seen = set()
            for _ in range(4):
                _, control, _, _ = receiver.recvmsg(2048, 64)
                seen |= {value[0] for _, _, value in control}
            assert seen == {dscp << 2}
    server.close()


@pytest.mark.parametrize(("host", "dual_stack"), [("127.0.0.1", False), ("::1", False), ("::1", True)])
def test_a_socket_of_one_peer_has_one_dscp(host, dual_stack):
    with told_of_tos(host) as receiver:
        sender = UdpSocket((host, 0), peer=receiver.getsockname()[:2], dscp=46, dual_stack=dual_stack)
        assert sender.send_batch([b"x" * 100] * 2) is SendStatus.OK
        for _ in range(2):
            _, control, _, _ = receiver.recvmsg(2048, 64)
            assert {value[0] for _, _, value in control} == {46 << 2}
        sender.close()


def test_what_waits_for_the_socket_keeps_its_dscp(monkeypatch):
    """A full buffer of the kernel holds up datagrams of two clients, which leave with the DSCP of each."""
    sent = []

    class Full:
        family = socket.AF_INET
        full = True

        def sendmsg(self, buffers, control, _flags, address):
            if self.full:
                raise BlockingIOError(errno.EAGAIN, "full")
            tos = [value[0] for level, kind, value in control if (level, kind) == (socket.IPPROTO_IP, socket.IP_TOS)]
            sent.append((b"".join(buffers), address, tos))
            return sum(map(len, buffers))

    ours = UdpSocket(("127.0.0.1", 0))
    ours._socket.close()
    kernel = Full()
    monkeypatch.setattr(ours, "_socket", kernel)
    first, second = ("127.0.0.2", 9), ("127.0.0.3", 9)
    assert ours.send_batch([b"one"], first, 46) is SendStatus.BLOCKED
    assert ours.send_batch([b"two"], second, 0) is SendStatus.BLOCKED
    assert ours.send_batch([b"three"], first, 10) is SendStatus.BLOCKED
    kernel.full = False
    assert ours.resume() is SendStatus.OK
    assert sent == [(b"one", first, [46 << 2]), (b"two", second, []), (b"three", first, [10 << 2])]
