"""Users who read pages: each loads one, reads it for a while, and loads the next. Run as a program, one end of it:

`serve PORT`, or `browse ADDRESS PORT USERS SECONDS SEED`, which prints how long each page took as JSON.

A page is some objects by a few connections, which are new for each page. A request is the size of the object wanted.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import sys
import time

OBJECTS = 20
SMALLEST, LARGEST = 20_000, 200_000
"""Bytes of an object."""
CONNECTIONS = 6
SHORTEST, LONGEST = 1.0, 5.0
"""Seconds for which a page is read."""
READY = "listening"
_SIZE = struct.Struct("!I")
_DATA = memoryview(bytes(LARGEST))


def _cubic(end: socket.socket) -> None:
    """Use CUBIC, whatever the machine's default is; what a listening socket accepts does as it does."""
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")


async def serve(port: int) -> None:
    """Reply to requests until the program is ended."""

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (size,) = _SIZE.unpack(await reader.readexactly(_SIZE.size))
                writer.write(_DATA[:size])
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the user has closed it
        finally:
            writer.close()

    listener = socket.create_server(("0.0.0.0", port), backlog=1024)
    _cubic(listener)
    server = await asyncio.start_server(reply, sock=listener)
    print(READY, flush=True)
    await server.serve_forever()


async def page(address: str, port: int, sizes: list[int]) -> float:
    """Load objects of these sizes; return the seconds that it took."""
    waiting = sizes[::-1]

    async def load() -> None:
        end = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        end.setblocking(False)
        _cubic(end)
        await asyncio.get_running_loop().sock_connect(end, (address, port))
        reader, writer = await asyncio.open_connection(sock=end)
        try:
            while waiting:
                size = waiting.pop()
                writer.write(_SIZE.pack(size))
                await reader.readexactly(size)
        finally:
            writer.close()

    began = time.monotonic()
    await asyncio.gather(*(load() for _ in range(CONNECTIONS)))
    return time.monotonic() - began


async def browse(address: str, port: int, users: int, seconds: float, seed: int) -> list[float]:
    """Load pages for so long; return how long each took, of those that were loaded whole.

    What each user wants and for how long it is read depends on the seed alone.
    """
    took: list[float] = []

    async def user(number: int) -> None:
        choice = random.Random(f"{seed} {number}")
        await asyncio.sleep(choice.uniform(0, LONGEST))
        while True:
            sizes = [choice.randint(SMALLEST, LARGEST) for _ in range(OBJECTS)]
            took.append(await page(address, port, sizes))
            await asyncio.sleep(choice.uniform(SHORTEST, LONGEST))

    everyone = [asyncio.create_task(user(number)) for number in range(users)]
    done, _ = await asyncio.wait(everyone, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in everyone:
        task.cancel()
    for task in done:
        task.result()
    return took


def main() -> None:
    """Entry point of the program."""
    if sys.argv[1] == "serve":
        asyncio.run(serve(int(sys.argv[2])))
        return
    address, port, users, seconds, seed = sys.argv[2:]
    print(json.dumps(asyncio.run(browse(address, int(port), int(users), float(seconds), int(seed)))))


if __name__ == "__main__":
    main()
