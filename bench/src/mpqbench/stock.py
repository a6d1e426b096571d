"""Bytes over aioquic's own asyncio transport: `python -m mpqbench.stock server|client ...`.

One stream each transfer. The first line says the direction, `up` or `down SECONDS`, as the client sees it. The
receiving side answers every BLOCK bytes with one byte; the sending side keeps WINDOW blocks on the way, since
aioquic's stream writer takes any amount without holding its caller back. What counts is what was acknowledged.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from typing import Any

from aioquic.asyncio.client import connect
from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration

BLOCK = 256 * 1024
WINDOW = 16
ALPN = "bench"
DATAGRAM_SIZE = 1452
"""As the tunnels use it; aioquic's default is 1200."""


def _configuration(*, is_client: bool) -> QuicConfiguration:
    return QuicConfiguration(is_client=is_client, alpn_protocols=[ALPN], max_datagram_size=DATAGRAM_SIZE)


async def _send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> tuple[int, float]:
    block = bytes(BLOCK)
    began = time.monotonic()
    for _ in range(WINDOW):
        writer.write(block)
    acknowledged = 0
    while time.monotonic() - began < seconds:
        blocks = len(await reader.read(WINDOW))
        if not blocks:
            break
        acknowledged += blocks
        for _ in range(blocks):
            writer.write(block)
    return acknowledged * BLOCK, time.monotonic() - began


async def _receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> tuple[int, float]:
    began = time.monotonic()
    size = 0
    while time.monotonic() - began < seconds:
        data = await reader.read(BLOCK)
        if not data:
            break
        blocks = (size + len(data)) // BLOCK - size // BLOCK
        size += len(data)
        if blocks:
            writer.write(b"." * blocks)
    return size, time.monotonic() - began


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    direction, _, seconds = (await reader.readline()).decode().strip().partition(" ")
    if direction == "up":
        await _receive(reader, writer, float("inf"))
    else:
        await _send(reader, writer, float(seconds))


async def _server(address: str, port: int, certificate: str, key: str) -> None:
    configuration = _configuration(is_client=False)
    configuration.load_cert_chain(certificate, key)
    tasks: set[asyncio.Task[None]] = set()

    def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(_answer(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    await serve(address, port, configuration=configuration, stream_handler=stream)
    print("listening", flush=True)
    await asyncio.Event().wait()


async def _client(address: str, port: int, ca: str, name: str, direction: str, seconds: float) -> dict[str, Any]:
    configuration = _configuration(is_client=True)
    configuration.load_verify_locations(ca)
    configuration.verify_mode = ssl.CERT_REQUIRED
    configuration.server_name = name
    async with connect(address, port, configuration=configuration) as protocol:
        reader, writer = await protocol.create_stream()
        if direction == "up":
            writer.write(b"up\n")
            size, elapsed = await _send(reader, writer, seconds)
        else:
            writer.write(f"down {seconds + 1}\n".encode())
            size, elapsed = await _receive(reader, writer, seconds)
    return {"bytes": size, "seconds": elapsed}


def main(arguments: list[str]) -> None:
    """`server ADDRESS PORT CERTIFICATE KEY`, or `client ADDRESS PORT CA NAME up|down SECONDS` (prints JSON)."""
    role, address, port, *rest = arguments
    if role == "server":
        asyncio.run(_server(address, int(port), *rest))
    else:
        ca, name, direction, seconds = rest
        print(json.dumps(asyncio.run(_client(address, int(port), ca, name, direction, float(seconds)))))


if __name__ == "__main__":
    main(sys.argv[1:])
