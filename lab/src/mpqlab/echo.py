"""Sends back what comes by UDP and TCP, and sends something there: traffic of any port, protocol and DSCP.

python -m mpqlab.echo serve PORT...
python -m mpqlab.echo send {udp,tcp} SOURCE ADDRESS PORT [COUNT [DSCP]]
python -m mpqlab.echo call SOURCE ADDRESS PORT
python -m mpqlab.echo count PORT SECONDS
python -m mpqlab.echo push SOURCE ADDRESS PORT SECONDS
python -m mpqlab.echo flood SOURCE ADDRESS PORT MBIT SECONDS

`send` asks COUNT times (1000 octets each) and prints how many replies came. `call` sends 50 datagrams of 172 octets a
second, as a call with G.711 does, until a line comes on its standard input, and prints `calling`, then `sent`, `lost`
and `longest_gap_s` as JSON. `count` receives one TCP connection after the other and prints of each how many Mbit/s
came; `push` is its sender (CUBIC). `flood` sends so many Mbit/s of IP packets, whatever becomes of them, and prints how
many. Unlike iperf3 they have no second connection, which a path with much loss holds up.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import select
import selectors
import socket
import struct
import sys
import threading
import time
from typing import TYPE_CHECKING

from mpqlab.topology import INTERNET_ADDRESS, INTERNET_ADDRESS6

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIZE = 1000
IP_UDP_BYTES = 28
CALL_INTERVAL = 0.02
CALL_SIZE = 172
REPLY_SECONDS = 2.0
# asm-generic/socket.h; the module socket has no name for it.
_SO_RCVBUFFORCE = 33
RECEIVE_BUFFER = 4 << 20
"""Bytes: what arrives while a busy processor keeps this program waiting must not count as lost by the network."""


def serve(ports: list[int]) -> None:
    """Send back what comes to these ports of the Internet's addresses, until the process is ended."""
    selector = selectors.DefaultSelector()
    # Of addresses of its own: a reply must come from the one that was asked.
    for address, port in itertools.product((INTERNET_ADDRESS, INTERNET_ADDRESS6), ports):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        datagrams = socket.socket(family, socket.SOCK_DGRAM)
        _keep_all(datagrams)
        datagrams.bind((address, port))
        selector.register(datagrams, selectors.EVENT_READ)
        selector.register(socket.create_server((address, port), family=family), selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            ready = key.fileobj
            assert isinstance(ready, socket.socket)
            if ready.type == socket.SOCK_DGRAM:
                data, sender = ready.recvfrom(65536)
                ready.sendto(data, sender)
            else:
                threading.Thread(target=_repeat, args=(ready.accept()[0],), daemon=True).start()


def _repeat(connection: socket.socket) -> None:
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)


def send(protocol: str, source: str, address: str, port: int, count: int = 1, dscp: int = 0) -> int:
    """Ask `count` times, one after the other; return how many replies came within `REPLY_SECONDS` each.

    OSError when a TCP connection can't be made.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    replies = 0
    with socket.socket(family, kind) as asking:
        asking.settimeout(REPLY_SECONDS)
        level, option = (
            (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)
            if family == socket.AF_INET6
            else (socket.IPPROTO_IP, socket.IP_TOS)
        )
        asking.setsockopt(level, option, dscp << 2)
        asking.bind((source, 0))
        asking.connect((address, port))
        for _ in range(count):
            try:
                asking.sendall(bytes(SIZE))
                wanted = SIZE
                while wanted > 0 and (data := asking.recv(65536)):
                    wanted -= len(data)
            except TimeoutError:
                continue
            replies += wanted <= 0
    return replies


def call(source: str, address: str, port: int, is_over: Callable[[], bool]) -> dict[str, float]:
    """Send numbered datagrams, one in `CALL_INTERVAL`, until `is_over`, and count those that don't come back.

    Returns how many were `sent` and `lost`, and `longest_gap_s` between two replies. What is on its way at the end has
    `REPLY_SECONDS` to come.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    arrivals: dict[int, float] = {}
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        _keep_all(asking)
        asking.bind((source, 0))
        asking.connect((address, port))
        asking.setblocking(False)
        began = time.monotonic()
        sent = 0
        end: float | None = None
        while end is None or (time.monotonic() < end and len(arrivals) < sent):
            now = time.monotonic()
            if end is None and is_over():
                end = now + REPLY_SECONDS
            while end is None and began + sent * CALL_INTERVAL <= now:
                with contextlib.suppress(OSError):  # an error of ICMP: the packet counts as lost
                    asking.send(sent.to_bytes(4, "big").ljust(CALL_SIZE, b"\0"))
                sent += 1
            ready, _, _ = select.select([asking], [], [], CALL_INTERVAL / 4)
            while ready:
                try:
                    number = int.from_bytes(asking.recv(2048)[:4], "big")
                except BlockingIOError:
                    break
                except OSError:
                    continue
                arrivals.setdefault(number, time.monotonic())
    times = sorted(arrivals.values())
    gap = max((later - earlier for earlier, later in itertools.pairwise(times)), default=0.0)
    return {"sent": sent, "lost": sent - len(arrivals), "longest_gap_s": round(gap, 3)}


def _keep_all(receiving: socket.socket) -> None:
    # Beyond net.core.rmem_max where this is root; elsewhere as much as that allows.
    for option in (_SO_RCVBUFFORCE, socket.SO_RCVBUF):
        with contextlib.suppress(PermissionError):
            receiving.setsockopt(socket.SOL_SOCKET, option, RECEIVE_BUFFER)
            return


def count(port: int, seconds: float, address: str = INTERNET_ADDRESS) -> Iterator[float]:
    """Receive one TCP connection after the other; Mbit/s of each over so many seconds from its first octet on."""
    with socket.create_server((address, port)) as server:
        print("ready", flush=True)
        while True:
            connection, _ = server.accept()
            with connection:
                octets = _received(connection, seconds)
            yield round(octets * 8e-6 / seconds, 2)


def _received(connection: socket.socket, seconds: float) -> int:
    octets = len(connection.recv(1))
    end = time.monotonic() + seconds
    with contextlib.suppress(TimeoutError, ConnectionResetError):
        while (left := end - time.monotonic()) > 0:
            connection.settimeout(left)
            data = connection.recv(1 << 18)
            if not data:
                break
            octets += len(data)
    return octets


def push(source: str, address: str, port: int, seconds: float) -> None:
    """Send as much as TCP with CUBIC takes, for this long or until the receiver has closed.

    OSError when no connection comes about within 30 s.
    """
    with socket.create_connection((address, port), 30.0, (source, 0)) as sending:
        sending.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
        # What is on its way at the end is given up, so that the next one finds the path free.
        sending.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end = time.monotonic() + seconds
        block = bytes(1 << 16)
        with contextlib.suppress(TimeoutError, ConnectionResetError, BrokenPipeError):
            while (left := end - time.monotonic()) > 0:
                sending.settimeout(left)
                sending.send(block)


def flood(source: str, address: str, port: int, mbit: float, seconds: float) -> int:
    """Send datagrams of `SIZE` octets at a rate of IP packets; return how many."""
    interval = (SIZE + IP_UDP_BYTES) * 8e-6 / mbit
    packets = int(seconds / interval) + 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
        sending.bind((source, 0))
        began = time.monotonic()
        for number in range(packets):
            # What a busy processor has kept this program from sending follows at once.
            early = began + number * interval - time.monotonic()
            if early > 0:
                time.sleep(early)
            with contextlib.suppress(OSError):  # the queue of the device is full, or an error of ICMP
                sending.sendto(bytes(SIZE), (address, port))
    return packets


def _input_has_ended() -> bool:
    ready, _, _ = select.select([sys.stdin], [], [], 0)
    return bool(ready)


def main(arguments: list[str]) -> int:
    """Run a command; return the exit status."""
    match arguments:
        case ["serve", *ports] if ports:
            serve([int(port) for port in ports])
        case ["send", "udp" | "tcp" as protocol, source, address, port, *more] if len(more) <= 2:
            print(send(protocol, source, address, int(port), *(int(value) for value in more)))
            return 0
        case ["count", port, seconds]:
            for rate in count(int(port), float(seconds)):
                print(rate, flush=True)
            return 0
        case ["push", source, address, port, seconds]:
            push(source, address, int(port), float(seconds))
            return 0
        case ["flood", source, address, port, mbit, seconds]:
            print(flood(source, address, int(port), float(mbit), float(seconds)))
            return 0
        case ["call", source, address, port]:
            print("calling", flush=True)
            print(json.dumps(call(source, address, int(port), _input_has_ended)), flush=True)
            return 0
    sys.stderr.write(__doc__ or "")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
