"""The loop of an emulator: two TUN devices, a control socket, and a wait that is exact to microseconds."""

import gc
import os
import select
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from mpqlab.emulator.control import MAX_LINE, Control
from mpqlab.emulator.direction import Direction
from mpqlab.emulator.model import DIRECTIONS, DirectionConfig, DirectionName
from mpqlab.emulator.tun import SetupError, TunDevice

_READ_BATCH = 32
"""Packets read from one device before what is due is sent."""
_TOGETHER_S = 200e-6
"""What is due this shortly after the last sending waits for company: at thousands of packets a second waking up costs
most. Slower traffic than that never waits."""
_MAX_CLIENTS = 32
_NICENESS = -15
_OTHER: dict[DirectionName, DirectionName] = {"up": "down", "down": "up"}


class Emulator:
    """One link. `up` and `down` are the devices that packets of that direction enter, each (namespace, device name)."""

    def __init__(
        self,
        name: str,
        control_path: Path,
        devices: Mapping[DirectionName, tuple[str, str]],
        configs: Mapping[DirectionName, DirectionConfig],
    ) -> None:
        self._control_path = control_path
        self._listener = _listen(control_path)
        try:
            self._entries = {name: TunDevice(*devices[name]) for name in DIRECTIONS}
        except BaseException:
            self._listener.close()
            control_path.unlink(missing_ok=True)
            raise
        wall_offset = time.time() - time.monotonic()
        self._directions = {name: Direction(f"{name}", configs[name], wall_offset) for name in DIRECTIONS}
        self._control = Control(name, self._directions, lambda name: self._entries[name].overrun())
        self._clients: dict[socket.socket, bytearray] = {}
        self._stopping = False
        self._last_sent = 0.0
        self._wake_reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> None:
        """Forward until SIGTERM or SIGINT.

        Raises:
            SetupError: a device has gone.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        # A signal that comes just before the wait must end the wait, too.
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        _prefer_punctuality()
        try:
            while not self._stopping:
                self._send_due()
                self._wait()
        finally:
            self._control_path.unlink(missing_ok=True)
            for device in self._entries.values():
                device.close()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._stopping = True

    def _send_due(self) -> None:
        now = time.monotonic()
        for name in DIRECTIONS:
            direction = self._directions[name]
            device = self._entries[_OTHER[name]]
            for frame in direction.release(now):
                self._last_sent = now
                if not device.write(frame.data):
                    direction.refused(frame)

    def _wait(self) -> None:
        """Wait for packets, requests, or until something is due, and take what has come."""
        times = [event for direction in self._directions.values() if (event := direction.next_event()) is not None]
        timeout = None
        if times:
            wake = max(min(times), self._last_sent + _TOGETHER_S)
            timeout = max(0.0, wake - time.monotonic())
        # select() rather than epoll: epoll_wait counts in milliseconds, select in microseconds.
        waiting: list[int | TunDevice | socket.socket] = [
            self._wake_reader,
            *self._entries.values(),
            self._listener,
            *self._clients,
        ]
        ready, _, _ = select.select(waiting, [], [], timeout)
        for source in ready:
            if isinstance(source, TunDevice):
                self._read_packets("up" if source is self._entries["up"] else "down")
            elif source is self._listener:
                self._accept()
            elif isinstance(source, socket.socket):
                self._serve(source)

    def _read_packets(self, name: DirectionName) -> None:
        device, direction = self._entries[name], self._directions[name]
        other = self._directions[_OTHER[name]]
        clock = time.monotonic
        for _ in range(_READ_BATCH):
            try:
                data = device.read()
            except OSError as error:
                raise SetupError(f"The TUN device {device.label} has gone: {error.strerror}.") from error
            if data is None:
                return
            now = clock()
            direction.receive(data, now)
            for reply in direction.take_replies():
                other.receive_icmp(reply, now)

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return  # it has gone again
        if len(self._clients) >= _MAX_CLIENTS:
            client.close()
            return
        client.setblocking(False)
        self._clients[client] = bytearray()

    def _serve(self, client: socket.socket) -> None:
        """Answer the complete lines of a client; one that doesn't read its answers, or sends no line ends, is left."""
        buffer = self._clients[client]
        try:
            received = client.recv(MAX_LINE)
            buffer += received
            while (end := buffer.find(b"\n")) >= 0:
                client.sendall(self._control.answer(bytes(buffer[:end]), time.monotonic()))
                del buffer[: end + 1]
        except OSError:
            received = b""
        if not received or len(buffer) > MAX_LINE:
            del self._clients[client]
            client.close()


def _listen(path: Path) -> socket.socket:
    """Bind the control socket for root alone. A file that a dead emulator left is replaced."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            pass
        except OSError as error:
            raise SetupError(f"The control socket {path} can't be used: {error.strerror or error}.") from error
        else:
            raise SetupError(f"Another emulator answers at {path}: stop it first.")
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.bind(str(path))
        listener.listen(8)
    except OSError as error:
        listener.close()
        raise SetupError(f"The control socket {path} can't be made: {error.strerror or error}.") from error
    path.chmod(0o600)
    return listener


def _prefer_punctuality() -> None:
    """Wake up on time: before ordinary processes, without the 50 us of timer slack, without long collections.

    A real link never waits for a processor. On a busy machine real-time priority brings the error of the delay that
    95 % of the packets keep from milliseconds to 0.4 ms; where a control group forbids it, niceness is the next best.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        os.nice(_NICENESS)
    Path("/proc/self/timerslack_ns").write_text("1000")
    gc.collect()
    gc.freeze()
