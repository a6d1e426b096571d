"""A connection to the message bus that ends in the middle of a call."""

from __future__ import annotations

import asyncio
import gc
import itertools
from typing import TYPE_CHECKING, Any, cast

import pytest
from jeepney import Message, message_bus
from mpquic.linkd.bus import Bus, BusError

if TYPE_CHECKING:
    from jeepney.io.asyncio import DBusConnection


class Writer:
    def close(self) -> None:
        pass


class Ending:
    """A connection whose end is seen by its reader before the call that is being written fails."""

    def __init__(self) -> None:
        self.writer = Writer()
        self.outgoing_serial = itertools.count(1)
        self.sending = asyncio.Event()

    async def receive(self) -> Message:
        await self.sending.wait()
        raise EOFError

    async def send(self, _message: Message, *, serial: int) -> None:  # noqa: ARG002
        self.sending.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        raise ConnectionResetError("reset")


def test_a_call_that_cannot_be_written_fails_once_and_leaves_nothing_behind() -> None:
    complaints: list[Any] = []

    async def call() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
        bus = Bus(cast("DBusConnection", Ending()), lambda _message: None, lambda: None)
        with pytest.raises(BusError, match="Ping: reset"):
            await bus.call(message_bus, "Ping")
        gc.collect()
        await asyncio.sleep(0)

    asyncio.run(call())
    assert complaints == []
