"""A connection to the system's message bus: calls with their replies, and signals.

The messages and the handshake are jeepney's. A connection that has ended is not made again here: whoever uses it is
told of the end by `on_end` and connects again.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from jeepney import (
    DBusAddress,
    HeaderFields,
    MatchRule,
    Message,
    MessageType,
    message_bus,
    new_method_call,
)
from jeepney.auth import AuthenticationError
from jeepney.io.asyncio import DBusConnection, open_dbus_connection

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT = 15.0
"""Seconds for the connection, and for each reply."""


class BusError(Exception):
    """A call failed or there is no connection; `name` is the error's name on the bus, empty without a reply."""

    def __init__(self, text: str, name: str = "") -> None:
        super().__init__(text)
        self.name = name


class Bus:
    """One connection. `on_signal` gets each signal, `on_end` is called once when the connection has ended by itself."""

    def __init__(
        self, connection: DBusConnection, on_signal: Callable[[Message], None], on_end: Callable[[], None]
    ) -> None:
        self._connection = connection
        self._on_signal = on_signal
        self._on_end = on_end
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._receiver = asyncio.create_task(self._receive())

    @classmethod
    async def connect(cls, on_signal: Callable[[Message], None], on_end: Callable[[], None]) -> Bus:
        """Connect to $DBUS_SYSTEM_BUS_ADDRESS, or the system's own bus; BusError."""
        try:
            connection = await asyncio.wait_for(open_dbus_connection("SYSTEM"), TIMEOUT)
        except (OSError, EOFError, AuthenticationError, TimeoutError, RuntimeError) as error:
            raise BusError(f"no connection to the message bus: {error or type(error).__name__}") from error
        return cls(connection, on_signal, on_end)

    @property
    def connected(self) -> bool:
        """Whether the connection stands."""
        return not self._receiver.done()

    @property
    def name(self) -> str:
        """The unique name that the bus has given to this connection."""
        return str(self._connection.unique_name)

    async def call(self, address: DBusAddress, method: str, signature: str = "", *arguments: Any) -> tuple[Any, ...]:
        """Call a method and return the values of its reply; BusError."""
        message = new_method_call(address, method, signature or None, arguments)
        if not self.connected:
            raise BusError("the connection to the message bus has ended")
        serial = next(self._connection.outgoing_serial)
        reply: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[serial] = reply
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._connection.send(message, serial=serial)
                found = await reply
        except TimeoutError as error:
            raise BusError(f"{address.bus_name}: no reply to {method} in {TIMEOUT:g} s") from error
        except OSError as error:
            raise BusError(f"{method}: {error}") from error
        finally:
            del self._waiting[serial]
            if reply.done() and not reply.cancelled():
                # The connection may have ended while the call was being written: that it has is told by the caller's
                # own error then, and nobody asks for the reply.
                reply.exception()
        if found.header.message_type is MessageType.error:
            text = found.body[0] if found.body and isinstance(found.body[0], str) else "no reason given"
            raise BusError(f"{method}: {text}", str(found.header.fields.get(HeaderFields.error_name, "")))
        return tuple(found.body)

    async def match(self, rule: MatchRule) -> None:
        """Have the signals of `rule` sent to this connection; BusError."""
        await self.call(message_bus, "AddMatch", "s", rule.serialise())

    def drop(self) -> None:
        """End the connection as if it had ended by itself."""
        self._connection.writer.close()

    async def close(self) -> None:
        """End the connection; `on_end` isn't called."""
        self._receiver.cancel()
        await asyncio.gather(self._receiver, return_exceptions=True)
        with contextlib.suppress(OSError):
            await self._connection.close()

    async def _receive(self) -> None:
        try:
            while True:
                message = await self._connection.receive()
                if message.header.message_type is MessageType.signal:
                    self._on_signal(message)
                    continue
                reply = self._waiting.get(message.header.fields.get(HeaderFields.reply_serial, 0))
                if reply is not None and not reply.done():
                    reply.set_result(message)
        except (OSError, EOFError, ValueError):
            asyncio.get_running_loop().call_soon(self._on_end)
        finally:
            self._connection.writer.close()
            for reply in self._waiting.values():
                if not reply.done():
                    reply.set_exception(BusError("the connection to the message bus has ended"))
