"""Two namespaces with an emulator between them."""

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mpqlab.emulator.client import EmulatorClient
from mpqlab.emulator.tun import NetworkNamespace

SO_TIMESTAMPNS = 35  # include/uapi/asm-generic/socket.h
SO_RCVBUFFORCE = 33
SITE, INTERNET = "10.99.0.1", "10.99.0.2"
SITE6, INTERNET6 = "2001:db8:99::1", "2001:db8:99::2"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=10)


class Testbed:
    """`site` and `internet` are namespaces; the emulator's device is em0 in each."""

    __test__ = False

    def __init__(self, folder: Path, values: tuple[str, ...], *, ipv6: bool) -> None:
        self.site = f"emut-s{os.getpid()}"
        self.internet = f"emut-i{os.getpid()}"
        self.control = folder / "control.sock"
        self.client = EmulatorClient(self.control)
        self._values = values
        self._ipv6 = ipv6
        self.process: subprocess.Popen[str] | None = None

    def command(self, *values: str) -> list[str]:
        devices = ["--up", f"{self.site}:em0", "--down", f"{self.internet}:em0"]
        return [
            sys.executable,
            "-m",
            "mpqlab.emulator",
            "--name",
            "x",
            "--control",
            str(self.control),
            *devices,
            *values,
        ]

    def __enter__(self) -> "Testbed":
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        for namespace in (self.site, self.internet):
            ip("netns", "add", namespace)
            if not self._ipv6:
                # IPv6's own packets would take part in the game of chance.
                with NetworkNamespace(namespace):
                    Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
                    Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
            ip("-n", namespace, "link", "set", "lo", "up")
        self.process = subprocess.Popen(self.command(*self._values), stderr=subprocess.PIPE, text=True)
        self.client.wait_until_ready(30)
        for namespace, address, address6 in ((self.site, SITE, SITE6), (self.internet, INTERNET, INTERNET6)):
            ip("-n", namespace, "address", "add", f"{address}/24", "dev", "em0")
            if self._ipv6:
                ip("-n", namespace, "address", "add", f"{address6}/64", "dev", "em0", "nodad")

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.communicate(timeout=30)
        for namespace in (self.site, self.internet):
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True, timeout=10)

    def socket_in(self, namespace: str, kind: int, family: int = socket.AF_INET) -> socket.socket:
        """A socket of the namespace, made by a thread that enters it and ends."""
        made: list[socket.socket] = []

        def make() -> None:
            with NetworkNamespace(namespace):
                made.append(socket.socket(family, kind))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        made[0].settimeout(5)
        return made[0]

    def udp(self, *, up: bool = True, ipv6: bool = False) -> tuple[socket.socket, socket.socket]:
        """A connected sender and its receiver, with kernel time stamps."""
        source, target = (self.site, self.internet) if up else (self.internet, self.site)
        addresses = (SITE6, INTERNET6) if ipv6 else (SITE, INTERNET)
        family = socket.AF_INET6 if ipv6 else socket.AF_INET
        receiver = self.socket_in(target, socket.SOCK_DGRAM, family)
        receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 32 << 20)
        receiver.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        receiver.bind((addresses[1 if up else 0], 0))
        sender = self.socket_in(source, socket.SOCK_DGRAM, family)
        sender.connect(receiver.getsockname()[:2])
        return sender, receiver

    def tcp(self, *, up: bool = True) -> tuple[socket.socket, socket.socket]:
        """A connected pair: who sends, who receives."""
        source, target, address = (self.site, self.internet, INTERNET) if up else (self.internet, self.site, SITE)
        with self.socket_in(target, socket.SOCK_STREAM) as listener:
            listener.bind((address, 0))
            listener.listen(1)
            sender = self.socket_in(source, socket.SOCK_STREAM)
            sender.connect(listener.getsockname())
            receiver, _ = listener.accept()
        receiver.settimeout(10)
        return sender, receiver

    def snmp(self, namespace: str, group: str, name: str) -> int:
        """A counter of /proc/net/snmp."""
        with NetworkNamespace(namespace):
            lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
        names, values = (line.split()[1:] for line in lines if line.startswith(f"{group}:"))
        return int(values[names.index(name)])

    def listens(self, namespace: str, port: int) -> bool:
        """Whether a TCP socket of IPv4 listens on the port."""
        with NetworkNamespace(namespace):
            lines = Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]
        return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines)

    def counters(self) -> Any:
        return self.client.counters()


def stamped(receiver: socket.socket) -> tuple[bytes, float]:
    """The next datagram and when the kernel got it, in seconds since the epoch."""
    data, ancillary, _, _ = receiver.recvmsg(2048, 64)
    ((_, _, value),) = ancillary
    seconds, nanoseconds = struct.unpack("qq", value[:16])
    return data, seconds + nanoseconds / 1e9


def paced(count: int, rate: float) -> Iterator[int]:
    """Numbers at `rate` a second, late ones at once."""
    start = time.monotonic()
    for number in range(count):
        ahead = start + number / rate - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)
        yield number


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
