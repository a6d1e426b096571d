"""A message bus with a systemd, a networkd and a polkit behind it, for one client: linkd.

Units start and stop when that is asked for, and their changes are told to the client as systemd does. What was asked
for is in `log`. The test may change everything: it is the operator.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jeepney import DBusAddress, HeaderFields, Message, MessageType, Parser, new_error, new_method_return, new_signal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SYSTEMD = "/org/freedesktop/systemd1"
SYSTEMD_NAME = "org.freedesktop.systemd1"
REFUSED = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"


@dataclass
class FakeUnit:
    active: str = "inactive"
    sub: str = "dead"
    started: float = 0.0


class FakeBus:
    """Listens at `path`. `device` tells the name of a device from its index."""

    def __init__(self, path: Path, device: Callable[[int], str]) -> None:
        self.path = path
        self.address = f"unix:path={path}"
        self._device = device
        self.units: dict[str, FakeUnit] = {}
        self.masked: set[str] = set()
        self.failing: set[str] = set()
        """Instances whose start leads to `failed` at once."""
        self.log: list[str] = []
        self.looks = 0
        """How often the units were asked for."""
        self.allowed = True
        self.polkit = True
        """Whether there is a polkit; without one systemd tells its own error."""
        self.subscribed = 0
        self.on_stop: Callable[[str], None] = lambda _name: None
        self.held_back: dict[str, threading.Event] = {}
        """What is answered only when its event is set."""
        self._lock = threading.RLock()
        self._connection: socket.socket | None = None
        self._serial = 0
        self._listener: socket.socket | None = None
        self.start()

    def start(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self.path.unlink(missing_ok=True)
        self._listener.bind(str(self.path))
        self._listener.listen()
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        """End it and its connection, as a restart of dbus does."""
        assert self._listener is not None
        self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)

    @property
    def running(self) -> set[str]:
        with self._lock:
            return {name for name, unit in self.units.items() if unit.active == "active"}

    def set(self, name: str, active: str, sub: str = "") -> None:
        """Have a unit change its state, and tell the client."""
        with self._lock:
            unit = self.units.setdefault(name, FakeUnit())
            if unit.active in ("inactive", "failed") and active not in ("inactive", "failed"):
                unit.started = time.time()
            unit.active, unit.sub = active, sub
        path = f"{SYSTEMD}/unit/mpquic_40{name}_2eservice"
        changed = ("org.freedesktop.systemd1.Unit", {"ActiveState": ("s", active)}, [])
        self.send_signal(path, "org.freedesktop.DBus.Properties", "PropertiesChanged", "sa{sv}as", changed)

    def mask(self, name: str, *, masked: bool) -> None:
        (self.masked.add if masked else self.masked.discard)(name)
        self.send_signal(SYSTEMD, "org.freedesktop.systemd1.Manager", "UnitFilesChanged")

    def send_signal(
        self,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: tuple[Any, ...] = (),
        sender: str = SYSTEMD_NAME,
    ) -> None:
        """Send the client a signal; whose it is says the bus, not the sender."""
        message = new_signal(DBusAddress(path, interface=interface), member, signature or None, body)
        message.header.fields[HeaderFields.sender] = sender
        self._send(message)

    def _send(self, message: Message) -> None:
        with self._lock:
            if self._connection is None:
                return
            self._serial += 1
            with contextlib.suppress(OSError):
                self._connection.sendall(message.serialise(self._serial))

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            received = b""
            while b"\r\n" not in received:
                received += connection.recv(1024)
            connection.sendall(b"OK 0123456789abcdef0123456789abcdef\r\n")
            received = received.split(b"\r\n", 1)[1]
            while not received.startswith(b"BEGIN\r\n"):
                received += connection.recv(1024)
            self._connection = connection
            parser = Parser()
            data = received.removeprefix(b"BEGIN\r\n")
            while True:
                parser.add_data(data)
                while (message := parser.get_next_message()) is not None:
                    if message.header.message_type is MessageType.method_call:
                        self._handle(message)
                data = connection.recv(65536)
                if not data:
                    return

    def _handle(self, message: Message) -> None:
        try:
            signature, values = self._reply(str(message.header.fields[HeaderFields.member]), message.body)
        except PermissionError as error:
            self._send(new_error(message, str(error), "s", ("It isn't allowed.",)))
            return
        reply = new_method_return(message, signature or None, values)
        waits = self.held_back.get(self.log[-1]) if self.log else None
        if waits is None or waits.is_set():
            self._send(reply)
        else:
            threading.Thread(target=lambda: (waits.wait(), self._send(reply)), daemon=True).start()

    def _reply(self, method: str, arguments: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
        match method:
            case "Hello":
                return "s", (":1.7",)
            case "AddMatch":
                return "", ()
            case "Subscribe":
                self.subscribed += 1
                return "", ()
            case "CheckAuthorization" if not self.polkit:
                raise PermissionError(f"{SYSTEMD_NAME}.UnitMasked")
            case "CheckAuthorization":
                return "(bba{ss})", ((self.allowed, False, {}),)
            case "ListUnitFilesByPatterns":
                return "a(ss)", ([(f"/etc/systemd/system/mpquic@{name}.service", "masked") for name in self.masked],)
            case "ListUnitsByPatterns":
                self.looks += 1
                with self._lock:
                    rows = [self._row(name, unit) for name, unit in self.units.items()]
                return "a(ssssssouso)", (rows,)
            case "GetUnit":
                return "o", (f"{SYSTEMD}/unit/{arguments[0].partition('@')[2].partition('.')[0]}",)
            case "Get":
                return "v", (("t", int(max(unit.started for unit in self.units.values()) * 1e6)),)
        return self._act(method, arguments)

    def _row(self, name: str, unit: FakeUnit) -> tuple[Any, ...]:
        load = "masked" if name in self.masked else "loaded"
        full = f"mpquic@{name}.service"
        return (full, f"Tunnel {name}", load, unit.active, unit.sub, "", f"{SYSTEMD}/unit/x", 0, "", "/")

    def _act(self, method: str, arguments: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
        if not self.polkit:
            raise PermissionError(f"{SYSTEMD_NAME}.UnitMasked")
        if not self.allowed:
            raise PermissionError(REFUSED)
        if method in ("RenewLink", "ReconfigureLink"):
            self.log.append(f"{method.removesuffix('Link').lower()} {self._device(arguments[0])}")
            return "", ()
        name = arguments[0].removeprefix("mpquic@").removesuffix(".service")
        verb = {"StartUnit": "start", "StopUnit": "stop", "ResetFailedUnit": "reset"}[method]
        self.log.append(f"{verb} {name}")
        if verb == "start" and name in self.failing:
            self.set(name, "failed")
        elif verb == "start":
            self.set(name, "active", "running")
        else:
            self.on_stop(name)
            self.set(name, "inactive", "dead")
        return ("o", ("/org/freedesktop/systemd1/job/1",)) if verb != "reset" else ("", ())
