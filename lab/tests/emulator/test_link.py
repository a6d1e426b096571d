"""The emulator between real namespaces: what traffic through it measures."""

import errno
import hashlib
import json
import math
import random
import socket
import statistics
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import pytest
from mpqlab.emulator.client import EmulatorError
from waiting import wait_for

from .testbed import INTERNET, Testbed, cpu_seconds, ip, paced, stamped

pytestmark = pytest.mark.root

Start = Callable[..., Testbed]
Result = TypeVar("Result")
ATTEMPTS = 3
# include/uapi/linux/in.h, in6.h
IP_MTU_DISCOVER, IP_MTU, IP_PMTUDISC_DO = 10, 14, 2
IPV6_MTU_DISCOVER, IPV6_MTU = 23, 24
UDP_SEGMENT = 103  # include/uapi/linux/udp.h


def measured(measure: Callable[[], Result], holds: Callable[[Result], bool]) -> Result:
    """Measure until `holds`, at most `ATTEMPTS` times; return the last result.

    What is measured is the emulator, in real time and on a machine that does other things too: while another process
    has the processor, a packet is late and nobody is to blame. One undisturbed run proves that the emulator keeps what
    it promises; one that doesn't keep it fails every time. The tolerances are the promised ones.
    """
    for _ in range(ATTEMPTS - 1):
        result = measure()
        if holds(result):
            return result
    return measure()


def one_way_delays(bed: Testbed, *, up: bool, count: int, rate: float) -> list[float]:
    """Seconds for each packet, from before its send call to its arrival in the receiver's kernel."""
    sender, receiver = bed.udp(up=up)
    delays = []
    with sender, receiver:
        for _ in paced(count, rate):
            sender.send(struct.pack("d", time.time()))
        for _ in range(count):
            data, arrival = stamped(receiver)
            delays.append(arrival - struct.unpack("d", data)[0])
    return delays


@pytest.mark.parametrize(("delay", "up"), [(6.5, True), (54, False)])
def test_delay_is_within_half_a_millisecond_at_100_packets_a_second(link: Start, delay: float, up: bool) -> None:
    bed = link(f"delay_ms={delay}", "rate_mbit=300")

    def errors() -> tuple[float, float]:
        """Error of the mean, and the 90th percentile of the single errors: the rest may have met another process."""
        delays = one_way_delays(bed, up=up, count=250, rate=100)
        single = sorted(abs(value - delay / 1000) for value in delays)
        return abs(statistics.fmean(delays) - delay / 1000), single[int(len(single) * 0.9)]

    assert max(measured(errors, lambda found: max(found) < 0.0005)) < 0.0005


@pytest.mark.parametrize(("rate", "up"), [(5, True), (80, False)])
def test_rate_is_within_3_percent(link: Start, rate: float, up: bool) -> None:
    bed = link(f"rate_mbit={rate}", "queue_ms=50")
    size = 1400

    def arrived() -> float:
        sender, receiver = bed.udp(up=up)
        with sender, receiver:
            for _ in paced(int(rate * 1e6 / 8 / size * 1.2 * 2), rate * 1e6 / 8 / size * 1.2):
                sender.send(bytes(size - 28))
            receiver.settimeout(0.5)
            arrivals = []
            while True:
                try:
                    arrivals.append(stamped(receiver)[1])
                except TimeoutError:
                    break
        return (len(arrivals) - 1) * size * 8 / 1e6 / (arrivals[-1] - arrivals[0])

    expected = pytest.approx(rate, rel=0.03)
    assert measured(arrived, lambda found: found == expected) == expected
    assert bed.counters()["up" if up else "down"]["dropped"]["queue"] > 0


def send_numbers(bed: Testbed, count: int) -> set[int]:
    """Send numbered packets up; return the numbers that arrived."""
    sender, receiver = bed.udp()
    with sender, receiver:
        for number in paced(count, 8000):
            sender.send(struct.pack("I", number))
        wait_for(lambda: bed.counters()["up"]["pending"] == 0)
        receiver.setblocking(False)
        arrived = set()
        while True:
            try:
                arrived.add(struct.unpack("I", receiver.recv(100))[0])
            except BlockingIOError:
                return arrived


def test_loss_is_in_the_99_percent_interval_and_repeats_with_the_seed(link: Start) -> None:
    bed = link("loss_percent=2", "seed=11")
    count = 8000

    def counted() -> tuple[int, int, int]:
        counters = bed.counters()["up"]
        return counters["overrun"], counters["dropped"]["loss"], counters["in_packets"]

    def send(seed: int) -> tuple[set[int], tuple[int, ...]]:
        """Numbers that arrived, and what the counters gained meanwhile."""
        bed.client.set({"seed": seed})
        before = counted()
        arrived = send_numbers(bed, count)
        return arrived, tuple(now - then for now, then in zip(counted(), before, strict=True))

    def undisturbed(seed: int) -> set[int]:
        """Numbers that arrived in a run without an overrun: what the kernel dropped took no part in the game."""
        arrived, gained = measured(lambda: send(seed), lambda found: found[1][0] == 0)
        assert gained == (0, count - len(arrived), count)
        return arrived

    arrived = undisturbed(11)
    assert abs(count - len(arrived) - 0.02 * count) <= 2.576 * math.sqrt(count * 0.02 * 0.98)
    assert undisturbed(11) == arrived
    assert undisturbed(12) != arrived


@pytest.mark.parametrize("direction", ["up", "down"])
def test_tcp_reaches_400_mbit(link: Start, direction: str) -> None:
    bed = link("rate_mbit=600", "delay_ms=7", "queue_ms=50")
    command = ["ip", "netns", "exec", bed.site, "iperf3", "-c", INTERNET, "-C", "cubic", "-t", "5", "-O", "1", "-J"]
    if direction == "down":
        command.append("-R")

    def throughput() -> float:
        server = subprocess.Popen(
            ["ip", "netns", "exec", bed.internet, "iperf3", "-s", "-1", "-B", INTERNET], stdout=subprocess.DEVNULL
        )
        try:
            wait_for(lambda: bed.listens(bed.internet, 5201), what="iperf3 server")
            run = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        finally:
            server.kill()
            server.wait(10)
        return float(json.loads(run.stdout)["end"]["sum_received"]["bits_per_second"])

    assert measured(throughput, lambda found: found >= 400e6) >= 400e6
    assert bed.counters()[direction]["superframes"] > 0


@pytest.mark.parametrize(
    "values",
    [
        ["delay_ms=2"],
        ["delay_ms=2", "rate_mbit=200"],
        ["delay_ms=1", "loss_percent=0.5", "corrupt_percent=1", "duplicate_percent=1", "reorder_percent=1"],
        ["delay_ms=1", "mtu=1300"],
    ],
    ids=["whole", "in parts", "damaged", "path MTU"],
)
def test_tcp_delivers_what_was_sent(link: Start, values: list[str]) -> None:
    bed = link(*values)
    sent = random.Random(1).randbytes(3_000_000)
    sender, receiver = bed.tcp()
    with sender, receiver:
        thread = threading.Thread(target=lambda: (sender.sendall(sent), sender.shutdown(socket.SHUT_WR)))
        thread.start()
        digest = hashlib.sha256()
        while data := receiver.recv(1 << 16):
            digest.update(data)
        thread.join()
    assert digest.digest() == hashlib.sha256(sent).digest()
    counters = bed.counters()["up"]
    assert counters["superframes"] > 0
    damaged = bed.snmp(bed.internet, "Tcp", "InCsumErrors")
    if counters["corrupted"]:
        assert 0 < damaged <= counters["corrupted"] + counters["duplicated"]
    else:
        assert damaged == 0


def arrives(sender: socket.socket, receiver: socket.socket, within: float = 5.0) -> bool:
    receiver.settimeout(within)
    sender.send(b"x")  # a local error would be raised here or by the next send
    try:
        return receiver.recv(10) == b"x"
    except TimeoutError:
        return False


def vanishes(sender: socket.socket, receiver: socket.socket) -> bool:
    """Whether nothing arrives in sixty times the delay of the link. What is late on a busy machine can't be told."""
    return not arrives(sender, receiver, within=0.3)


def test_a_cut_is_silent_and_one_way_or_two_way(link: Start) -> None:
    bed = link("delay_ms=5")
    up, down = bed.udp(), bed.udp(up=False)
    with up[0], up[1], down[0], down[1]:
        assert arrives(*up)
        assert arrives(*down)
        bed.client.cut("up")
        assert [vanishes(*up), vanishes(*up), arrives(*down)] == [True, True, True]
        bed.client.cut()
        assert [vanishes(*up), vanishes(*down)] == [True, True]
        bed.client.heal("down")
        assert [vanishes(*up), arrives(*down)] == [True, True]
        bed.client.heal()
        assert [arrives(*up), arrives(*down)] == [True, True]
        for pair in (up, down):
            for end in pair:
                assert end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    assert bed.counters()["up"]["dropped"]["blackhole"] == 4


@pytest.mark.parametrize("ipv6", [False, True])
def test_too_large_packets_tell_the_sender_the_mtu(link: Start, ipv6: bool) -> None:
    bed = link("up.mtu=1300", "delay_ms=5", ipv6=ipv6)
    sender, receiver = bed.udp(ipv6=ipv6)
    level, discover, mtu = (
        (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_MTU) if ipv6 else (socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_MTU)
    )
    header = 48 if ipv6 else 28
    with sender, receiver:
        sender.setsockopt(level, discover, IP_PMTUDISC_DO)
        sender.send(bytes(1301 - header))
        wait_for(lambda: sender.getsockopt(level, mtu) == 1300, what="path MTU of 1300")
        assert sender.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (0, errno.EMSGSIZE)
        with pytest.raises(OSError, match="Message too long"):
            sender.send(bytes(1301 - header))
        sender.send(bytes(1300 - header))
        assert len(receiver.recv(2000)) == 1300 - header
    counters = bed.counters()
    assert (counters["up"]["dropped"]["mtu"], counters["down"]["icmp"]) == (1, 1)


def test_too_large_packets_vanish_without_icmp(link: Start) -> None:
    bed = link("mtu=1300", "mtu_icmp=off")
    sender, receiver = bed.udp()
    with sender, receiver:
        sender.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
        sender.send(bytes(1301 - 28))
        wait_for(lambda: bed.counters()["up"]["dropped"]["mtu"] == 1)
        sender.send(bytes(1300 - 28))
        assert len(receiver.recv(2000)) == 1300 - 28
        assert sender.getsockopt(socket.IPPROTO_IP, IP_MTU) == 1500


def test_fragments_are_joined_by_the_receiver(link: Start) -> None:
    bed = link("up.mtu=600")
    sender, receiver = bed.udp()
    with sender, receiver:
        sender.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, 0)
        message = random.Random(2).randbytes(1400)
        sender.send(message)
        assert receiver.recv(2000) == message
    assert bed.counters()["up"]["fragments"] == 2


def test_changes_apply_to_running_traffic(link: Start) -> None:
    bed = link("delay_ms=5")

    def medians() -> tuple[float, float]:
        """Median delays of the packets before and after the change."""
        bed.client.set({"delay_ms": 5}, "up")
        sender, receiver = bed.udp()
        with sender, receiver:
            arrivals = {}
            for number in paced(100, 100):
                if number == 50:
                    assert bed.client.set({"delay_ms": 45}, "up")["up"]["delay_ms"] == 45
                sender.send(struct.pack("Id", number, time.time()))
            for _ in range(100):
                data, arrival = stamped(receiver)
                number, sent = struct.unpack("Id", data)
                arrivals[number] = arrival - sent
        return statistics.median(arrivals[i] for i in range(50)), statistics.median(arrivals[i] for i in range(50, 100))

    expected = pytest.approx((0.005, 0.045), abs=0.0005)
    assert measured(medians, lambda found: found == expected) == expected
    assert bed.client.get()["down"]["delay_ms"] == 5


def test_pairs_change_both_directions_at_once_or_none(link: Start) -> None:
    bed = link()
    answer = bed.client.set_pairs(["delay_ms=3", "up.rate_mbit=20", "down.rate_mbit=200"])
    assert [(answer[name]["delay_ms"], answer[name]["rate_mbit"]) for name in ("up", "down")] == [(3, 20), (3, 200)]
    with pytest.raises(EmulatorError, match=r"^rate_mbit=-1: expected a number from 0 to 100000\.$"):
        bed.client.set_pairs(["up.delay_ms=9", "down.rate_mbit=-1"])
    assert bed.client.get() == answer


def test_udp_superframes_come_as_packets_of_a_wire(link: Start) -> None:
    bed = link("loss_percent=0.0001")
    sender, receiver = bed.udp()
    with sender, receiver:
        sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
        sender.send(bytes(20_500))
        assert [len(receiver.recv(2000)) for _ in range(21)] == [1000] * 20 + [500]
    counters = bed.counters()["up"]
    assert (counters["in_packets"], counters["out_bytes"]) == (21, 20_500 + 21 * 28)


def test_a_device_that_was_down_carries_again(link: Start) -> None:
    bed = link()
    pair = bed.udp()
    with pair[0], pair[1]:
        ip("-n", bed.internet, "link", "set", "em0", "down")
        assert vanishes(*pair)
        assert bed.counters()["up"]["dropped"]["device"] == 1
        ip("-n", bed.internet, "link", "set", "em0", "up")
        assert arrives(*pair)


def test_the_devices_say_nothing_of_their_own(link: Start) -> None:
    bed = link(ipv6=True)
    shown = subprocess.run(
        ["ip", "-n", bed.site, "-6", "address", "show", "dev", "em0", "scope", "link"],
        capture_output=True,
        check=True,
        timeout=5,
    )
    assert shown.stdout == b""


def test_an_idle_link_uses_no_processor(link: Start) -> None:
    bed = link("delay_ms=5", "rate_mbit=50", "leo=on")
    assert bed.process is not None
    pid = bed.process.pid

    def used() -> float:
        before = cpu_seconds(pid)
        time.sleep(1)  # the time that is measured
        return cpu_seconds(pid) - before

    assert measured(used, lambda found: found <= 0.02) <= 0.02


def test_an_emulator_whose_device_goes_ends_with_a_sentence(link: Start) -> None:
    bed = link()
    assert bed.process is not None
    ip("-n", bed.internet, "link", "delete", "em0")
    assert bed.process.wait(20) == 1
    assert bed.process.stderr is not None
    assert "The TUN device" in bed.process.stderr.read()
    assert not bed.control.exists()


def test_a_second_emulator_at_the_same_socket_is_refused(link: Start) -> None:
    bed = link()
    second = subprocess.run(bed.command(), capture_output=True, text=True, timeout=10, check=False)
    assert second.returncode == 1
    assert f"Another emulator answers at {bed.control}: stop it first." in second.stderr
    assert bed.client.get()["name"] == "x"


def test_an_end_leaves_no_device_and_no_socket(link: Start) -> None:
    bed = link()
    assert bed.process is not None
    bed.process.terminate()
    assert bed.process.wait(20) == 0
    assert not bed.control.exists()
    shown = subprocess.run(["ip", "-n", bed.site, "link", "show", "em0"], capture_output=True, check=False, timeout=5)
    assert shown.returncode != 0
