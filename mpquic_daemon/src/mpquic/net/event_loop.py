"""The event loop of a daemon: asyncio's own, with a short way from a readable socket to who reads it.

An iteration of asyncio's loop costs a packet that comes alone as much as opening and decrypting it. What `add_reader`
has registered is therefore called where the kernel was asked for events, and the kernel is asked again, until there is
something to do for asyncio: a task, a timer, a transport, a signal. Only public methods are overridden.
"""

from __future__ import annotations

import asyncio
import select
import selectors
import time
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any, TypeVarTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

    from _typeshed import FileDescriptorLike

_Arguments = TypeVarTuple("_Arguments")

_LONGEST = 86400.0
"""Seconds of one wait at most: epoll_wait takes no endless number."""


class _Selector(selectors.EpollSelector):
    """Calls readers as soon as they have something to read; returns events of what asyncio itself has registered.

    It returns without an event when `until` has come. Adds up the time for which it has waited.
    """

    def __init__(self, on_fault: Callable[[Callable[..., Any], BaseException], None]) -> None:
        super().__init__()
        self.idle = 0.0
        self.until = inf
        """When asyncio has something to do, in seconds of its clock; may be changed by what is called."""
        self._on_fault = on_fault
        self._readers: dict[int, tuple[Callable[..., Any], tuple[Any, ...]]] = {}
        self.later: dict[Callable[[], object], None] = {}
        """What is called when what is readable now has been read."""
        self._others = self.fileno()
        self._all = select.epoll()
        self._all.register(self._others, select.EPOLLIN)

    def add(self, fd: int, callback: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        """Call this when `fd` is readable, and no more what was to be called before."""
        if fd in self._readers:
            self.discard(fd)  # It may have been closed, and the number be another's now.
        self._all.register(fd, select.EPOLLIN)
        self._readers[fd] = (callback, arguments)

    def discard(self, fd: int) -> bool:
        """Call nothing for `fd` any more; False when nothing would have been called."""
        if self._readers.pop(fd, None) is None:
            return False
        with suppress(OSError):  # It may have been closed.
            self._all.unregister(fd)
        return True

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        # All of it is one function, as each one that a packet comes through costs it microseconds when caches are cold.
        clock, poll, readers = time.monotonic, self._all.poll, self._readers
        began = clock()
        self.until = inf if timeout is None else began + timeout
        while True:
            is_last_look = bool(self.later)
            if is_last_look or self.until <= began:
                events = poll(0, len(readers) + 1)
            else:
                events = poll(min(self.until - began, _LONGEST), len(readers) + 1)
                self.idle += clock() - began
            others = False
            for fd, _ in events:
                reader = readers.get(fd)
                if reader is None:
                    others = others or fd == self._others
                    continue
                callback, arguments = reader
                try:
                    callback(*arguments)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:  # noqa: BLE001 - as asyncio's handles do
                    self._on_fault(callback, error)
            if is_last_look:
                self._call_later()
            if others:
                return super().select(0)
            began = clock()
            if began >= self.until:
                return []

    def _call_later(self) -> None:
        later, self.later = self.later, {}
        for callback in later:
            try:
                callback()
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 - as asyncio's handles do
                self._on_fault(callback, error)

    def close(self) -> None:
        self._readers.clear()
        self._all.close()
        super().close()


class EventLoop(asyncio.SelectorEventLoop):
    """`idle_time` are the seconds in which it waited for something to happen, in all.

    Readers are called one by one and in no context; what one raises goes to the exception handler, as usual.
    """

    def __init__(self) -> None:
        self._direct = _Selector(self._on_reader_fault)
        super().__init__(self._direct)
        # As of asyncio's loops, without a function around it: it is asked for with every packet.
        self.time = time.monotonic  # type: ignore[method-assign]

    @property
    def idle_time(self) -> float:
        """Seconds for which the loop had nothing to do. The time in which the kernel didn't let it run isn't in it."""
        return self._direct.idle

    def add_reader(self, fd: FileDescriptorLike, callback: Callable[[*_Arguments], Any], *args: *_Arguments) -> None:
        """Call `callback(*args)` whenever `fd` is readable."""
        self._direct.add(_number(fd), callback, args)

    def remove_reader(self, fd: FileDescriptorLike) -> bool:
        """Call nothing any more; False when nothing would have been called."""
        return self._direct.discard(_number(fd))

    def call_soon(
        self, callback: Callable[[*_Arguments], object], *args: *_Arguments, context: Context | None = None
    ) -> asyncio.Handle:
        """Call something in the next iteration, which begins as soon as what runs now has ended."""
        self._direct.until = -inf
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*_Arguments], object],
        *args: *_Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call something at a time of the loop's clock."""
        if when < self._direct.until:
            self._direct.until = when
        return super().call_at(when, callback, *args, context=context)

    def call_after_reading(self, callback: Callable[[], object]) -> None:
        """Call something once, however often it is asked for, when what is readable has been read once more.

        So what the kernel gives in reply to a packet that has just been written to a TUN or a socket goes first.
        """
        self._direct.later[callback] = None

    def stop(self) -> None:
        """End `run_forever` after this iteration."""
        self._direct.until = -inf
        super().stop()

    def _on_reader_fault(self, callback: Callable[..., Any], error: BaseException) -> None:
        self.call_exception_handler({"message": f"Exception in reader {callback}", "exception": error, "loop": self})


def _number(fd: FileDescriptorLike) -> int:
    return fd if isinstance(fd, int) else fd.fileno()


def after_reading(loop: asyncio.AbstractEventLoop) -> Callable[[Callable[[], object]], object]:
    """Return the `call_after_reading` of a loop; of one that has none, `call_soon`."""
    return loop.call_after_reading if isinstance(loop, EventLoop) else loop.call_soon


def idle_time() -> float:
    """Return the `idle_time` of the running loop; of one that doesn't tell, all time, as if it had nothing to do."""
    loop = asyncio.get_running_loop()
    return loop.idle_time if isinstance(loop, EventLoop) else loop.time()
