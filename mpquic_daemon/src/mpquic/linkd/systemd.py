"""What linkd asks of systemd and systemd-networkd by the message bus, and what it hears from them.

Whether it may ask is decided by polkit: the rule in /etc/polkit-1/rules.d lets this process's user start, stop and
reset `mpquic@NAME`, and renew and configure devices, and nothing else.
"""

from __future__ import annotations

import asyncio
import re
import socket
from typing import TYPE_CHECKING, Any, Protocol

from jeepney import DBusAddress, HeaderFields, MatchRule, Message, message_bus

from mpquic.linkd.bus import Bus, BusError
from mpquic.linkd.units import Activity, Unit

if TYPE_CHECKING:
    from collections.abc import Callable

_SYSTEMD = "org.freedesktop.systemd1"
_UNIT_INTERFACE = "org.freedesktop.systemd1.Unit"
_UNITS = "/org/freedesktop/systemd1/unit"
_MANAGER = DBusAddress("/org/freedesktop/systemd1", _SYSTEMD, "org.freedesktop.systemd1.Manager")
_NETWORKD = DBusAddress("/org/freedesktop/network1", "org.freedesktop.network1", "org.freedesktop.network1.Manager")
_POLKIT = DBusAddress(
    "/org/freedesktop/PolicyKit1/Authority", "org.freedesktop.PolicyKit1", "org.freedesktop.PolicyKit1.Authority"
)
_OURS = re.compile(r"mpquic@(?P<name>.*)\.service")
_OUR_OBJECTS = f"{_UNITS}/mpquic_40"  # "@" as systemd writes it in object paths
_MASKED = ["masked", "masked-runtime"]
_REFUSED = {
    "org.freedesktop.DBus.Error.AccessDenied",
    "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
}
# A template's mask is every instance's.
EVERY_INSTANCE = ""


class CommandError(Exception):
    """systemd or networkd refused, failed or didn't reply; the text says what."""


class NotAllowedError(CommandError):
    """polkit says no, or isn't there."""


class ServiceControl(Protocol):
    """What the reconciliation loop needs of the host; tests give a fake."""

    @property
    def connected(self) -> bool:
        """Whether events come; without a connection each call makes one."""

    async def units(self) -> dict[str, Unit]:
        """Return the units of instances that are loaded or masked, by the instance's name."""

    async def started_at(self, instance: str) -> float:
        """Return when the unit last began to start, in seconds of the wall clock; 0 if it never did."""

    async def start(self, instance: str) -> None:
        """Ask for the start of an instance without waiting for it."""

    async def stop(self, instance: str) -> None:
        """Ask for the stop of an instance without waiting for it."""

    async def reset(self, instance: str) -> None:
        """Forget that an instance has failed, and how often it was started."""

    async def renew(self, device: str) -> None:
        """Renew the leases of a device."""

    async def reconfigure(self, device: str) -> None:
        """Drop the leases of a device and ask for new ones."""

    async def check_allowed(self) -> None:
        """Ask polkit whether this process may do what it is for; NotAllowedError."""

    async def close(self) -> None:
        """End the connection."""


class Systemd:
    """ServiceControl by the message bus; each method raises CommandError.

    `on_change` is called when a unit of ours, its mask or the connection has changed.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._bus: Bus | None = None
        self._connecting = asyncio.Lock()

    @property
    def connected(self) -> bool:
        """Whether events come."""
        return self._bus is not None and self._bus.connected

    async def units(self) -> dict[str, Unit]:
        """Return the units of instances that are loaded or masked, by the instance's name."""
        files = await self._call(_MANAGER, "ListUnitFilesByPatterns", "asas", _MASKED, ["mpquic@*.service"])
        rows = await self._call(_MANAGER, "ListUnitsByPatterns", "asas", [], ["mpquic@*.service"])
        try:
            return units_of(files, rows)
        except (TypeError, ValueError, AttributeError, LookupError) as error:
            raise CommandError(f"systemd lists units in a form that isn't known: {error}") from error

    async def started_at(self, instance: str) -> float:
        """Return when the unit last began to start, in seconds of the wall clock; 0 if it never did."""
        path = await self._call(_MANAGER, "GetUnit", "s", unit_name(instance))
        unit = DBusAddress(path, _SYSTEMD, "org.freedesktop.DBus.Properties")
        _kind, microseconds = await self._call(unit, "Get", "ss", _UNIT_INTERFACE, "InactiveExitTimestamp")
        return float(microseconds) / 1e6

    async def start(self, instance: str) -> None:
        """Queue the start job of an instance."""
        await self._call(_MANAGER, "StartUnit", "ss", unit_name(instance), "replace")

    async def stop(self, instance: str) -> None:
        """Queue the stop job of an instance."""
        await self._call(_MANAGER, "StopUnit", "ss", unit_name(instance), "replace")

    async def reset(self, instance: str) -> None:
        """Forget that an instance has failed, and how often it was started."""
        await self._call(_MANAGER, "ResetFailedUnit", "s", unit_name(instance))

    async def renew(self, device: str) -> None:
        """Have networkd renew the leases of `device`."""
        await self._call(_NETWORKD, "RenewLink", "i", _index(device))

    async def reconfigure(self, device: str) -> None:
        """Have networkd configure `device` from the beginning."""
        await self._call(_NETWORKD, "ReconfigureLink", "i", _index(device))

    async def check_allowed(self) -> None:
        """Ask polkit whether this process may renew leases, which its rule allows with the rest; NotAllowedError."""
        subject = ("system-bus-name", {"name": ("s", (await self._connected()).name)})
        try:
            allowed = await self._call(
                _POLKIT, "CheckAuthorization", "(sa{sv})sa{ss}us", subject, "org.freedesktop.network1.renew", {}, 0, ""
            )
        except CommandError as error:
            raise NotAllowedError(f"polkit can't be asked ({error})") from error
        if not allowed[0]:
            raise NotAllowedError("polkit refuses")

    async def close(self) -> None:
        """End the connection."""
        if self._bus is not None:
            await self._bus.close()
            self._bus = None

    async def _call(self, address: DBusAddress, method: str, signature: str, *arguments: Any) -> Any:
        bus = await self._connected()
        try:
            values = await bus.call(address, method, signature, *arguments)
        except BusError as error:
            raise (NotAllowedError if error.name in _REFUSED else CommandError)(str(error)) from error
        return values[0] if values else None

    async def _connected(self) -> Bus:
        # The reconciliation and a renewal may come at the same time, and one connection is enough.
        async with self._connecting:
            if self._bus is None or not self._bus.connected:
                self._bus = await self._connect()
            return self._bus

    async def _connect(self) -> Bus:
        try:
            bus = await Bus.connect(self._on_signal, self._on_change)
            try:
                await self._subscribe(bus)
            except BusError:
                await bus.close()
                raise
        except BusError as error:
            raise CommandError(str(error)) from error
        return bus

    @staticmethod
    async def _subscribe(bus: Bus) -> None:
        changed = MatchRule(
            type="signal", sender=_SYSTEMD, interface="org.freedesktop.DBus.Properties", member="PropertiesChanged",
            path_namespace=_UNITS,
        )  # fmt: skip
        changed.add_arg_condition(0, _UNIT_INTERFACE)
        await bus.match(changed)
        for member in ("UnitFilesChanged", "Reloading"):
            await bus.match(MatchRule(type="signal", sender=_SYSTEMD, interface=_MANAGER.interface, member=member))
        owner = MatchRule(type="signal", sender=message_bus.bus_name, interface=message_bus.interface,
                          member="NameOwnerChanged")  # fmt: skip
        owner.add_arg_condition(0, _SYSTEMD)
        await bus.match(owner)
        # Without it systemd sends no signals of units at all.
        await bus.call(_MANAGER, "Subscribe")

    def _on_signal(self, message: Message) -> None:
        fields = message.header.fields
        if fields.get(HeaderFields.member) == "PropertiesChanged":
            if str(fields.get(HeaderFields.path)).startswith(_OUR_OBJECTS):
                self._on_change()
        elif fields.get(HeaderFields.member) == "NameOwnerChanged":
            # systemd has connected to the bus again and knows no subscribers: begin anew, too. Any local process may
            # send a signal to this one; the bus alone says truly who has a name.
            from_bus = fields.get(HeaderFields.sender) == message_bus.bus_name
            if from_bus and self._bus is not None and message.body[2]:
                self._bus.drop()
        else:
            self._on_change()


def units_of(files: Any, rows: Any) -> dict[str, Unit]:
    """Return the units of instances, from masked files (path, state) and rows of ListUnits.

    Raises:
        TypeError, ValueError, AttributeError, LookupError: these are no such lists.
    """
    masked = {matched.group("name") for path, _state in files if (matched := _OURS.fullmatch(path.rpartition("/")[2]))}
    found = {name: Unit(Activity.STOPPED, masked=True) for name in masked}
    for row in rows:
        matched = _OURS.fullmatch(row[0])
        if matched is not None:
            name = matched.group("name")
            found[name] = Unit(
                activity(row[3], row[4], row[8]),
                masked=row[2] == "masked" or name in masked or EVERY_INSTANCE in masked,
            )
    return found


def unit_name(instance: str) -> str:
    """Return the unit of an instance."""
    return f"mpquic@{instance}.service"


def activity(active: str, sub: str, job: int) -> Activity:
    """Return what a unit does, from ActiveState, SubState, and the number of its queued job (0: none)."""
    if active in ("active", "reloading", "refreshing"):
        return Activity.RUNNING
    if active == "activating":
        return Activity.RESTARTING if sub.startswith("auto-restart") else Activity.STARTING
    if active == "deactivating":
        return Activity.STOPPING
    # One that is restarted is inactive for a moment, with its start as a job in the queue.
    if job:
        return Activity.STARTING
    return Activity.FAILED if active == "failed" else Activity.STOPPED


def _index(device: str) -> int:
    try:
        return socket.if_nametoindex(device)
    except OSError as error:
        raise CommandError(f"{device}: {error.strerror}") from error
