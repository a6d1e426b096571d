"""A UDP flow whose sender hands many packets to the kernel in one call (UDP_SEGMENT), as QUIC and media servers do.

iperf3 sends its packets one by one. Run as a program, this is one end of the flow: `receive PORT`, or
`send ADDRESS PORT PAYLOAD RATE SECONDS [SEGMENTS SOURCE]`; each tells its number of packets as JSON.
"""

from __future__ import annotations

import itertools
import json
import select
import signal
import socket
import struct
import sys
import time
from typing import TYPE_CHECKING

from mpquic.net.offload import SOL_UDP, UDP_GRO, UDP_SEGMENT

from mpqbench.iperf import BUFFER, PORT, Flow
from mpqbench.processes import wait_for

if TYPE_CHECKING:
    from mpqbench.topology import Node

SEGMENTS = 50
"""Packets in one call; the kernel takes 64 at least."""
BURST_TIME = 0.001
"""Seconds between two bursts."""
START = 10.0
SILENCE = 0.5
"""Seconds in which the first packet must come, and after which none follows any more."""
PATIENCE = 20.0
READY = "listening"
_READ_BYTES = 65536
_numbers = itertools.count()


def measure(source: Node, target: Node, address: str, seconds: float, payload: int, rate: float) -> Flow:
    """Send UDP packets of `payload` bytes from `source` to `address` at `target`, `rate` of them a second."""
    number = next(_numbers)
    receiver = target.spawn(f"udpgso-{number}", sys.executable, "-m", "mpqbench.udpgso", "receive", str(PORT))

    def output() -> list[str]:
        receiver.check()
        return receiver.log.read_text().splitlines()

    try:
        wait_for(lambda: READY in output(), START, "UDP receiver")
        options = [address, str(PORT), str(payload), str(rate), str(seconds)]
        command = [sys.executable, "-m", "mpqbench.udpgso", "send", *options]
        sent = json.loads(source.run(*command, timeout=seconds + PATIENCE))
        wait_for(lambda: len(output()) > 1, START, "end of the flow at its receiver")
        received = int(json.loads(output()[-1])["packets"])
    finally:
        receiver.stop()
    return Flow(int(sent["packets"]), max(0, int(sent["packets"]) - received), float(sent["seconds"]))


def send(
    address: str, port: int, payload: int, rate: float, seconds: float, segments: int = SEGMENTS, source: str = ""
) -> tuple[int, float]:
    """Send in bursts of what `rate` allows each millisecond; return the packets sent, and the seconds that it took.

    At most `segments` packets are in one call; they come from the address `source`, unless that is left to the kernel.
    A sender that is late does not catch up more than one burst: that would be another rate.
    """
    data = bytes(payload * segments)
    control = [(SOL_UDP, UDP_SEGMENT, struct.pack("H", payload))]
    sent, owed = 0, 0.0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        sender.bind((source, 0))
        sender.connect((address, port))
        began = last = time.monotonic()
        while last < began + seconds:
            now = time.monotonic()
            owed = min(owed + (now - last) * rate, 2 * rate * BURST_TIME + segments)
            last = now
            while owed >= 1:
                count = min(segments, int(owed))
                sender.sendmsg([data[: count * payload]], control)
                sent += count
                owed -= count
            time.sleep(BURST_TIME)
    return sent, last - began


def receive(port: int) -> int:
    """Count the packets of one flow, from the first until none has come for `SILENCE`; 0 when none comes at all."""
    received = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        receiver.setsockopt(SOL_UDP, UDP_GRO, 1)
        receiver.bind(("", port))
        receiver.setblocking(False)
        print(READY, flush=True)
        buffer = bytearray(_READ_BYTES)
        while select.select([receiver], [], [], SILENCE if received else START)[0]:
            size, control, _, _ = receiver.recvmsg_into([buffer], 64)
            segment = next((struct.unpack("i", value)[0] for _, kind, value in control if kind == UDP_GRO), size)
            received += -(-size // segment) if size else 1
    return received


def main(arguments: list[str]) -> None:
    """Be one end of a flow."""
    if arguments[0] == "receive":
        print(json.dumps({"packets": receive(int(arguments[1]))}), flush=True)
        signal.pause()  # Who asked ends this process when he has read that.
        return
    address, port, payload, rate, seconds, *more = arguments[1:]
    segments, source = (int(more[0]), more[1]) if more else (SEGMENTS, "")
    packets, taken = send(address, int(port), int(payload), float(rate), float(seconds), segments, source)
    print(json.dumps({"packets": packets, "seconds": taken}))


if __name__ == "__main__":
    main(sys.argv[1:])
