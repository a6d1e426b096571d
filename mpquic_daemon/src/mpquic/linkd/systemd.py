"""The verbs that linkd asks of systemd: start and stop `mpquic@NAME`, renew and reconfigure a device."""

from __future__ import annotations

import asyncio
from typing import Protocol

TIMEOUT = 15.0
_RUNNING = frozenset({"active", "activating", "reloading", "refreshing"})


class CommandError(Exception):
    """systemctl or networkctl refused, failed or didn't end; the text says what it printed."""


class ServiceControl(Protocol):
    """What the reconciliation loop needs of the host; tests give a fake."""

    async def running(self) -> set[str]:
        """Return the instances whose unit is active or becoming so."""

    async def start(self, instance: str) -> None:
        """Ask for the start of an instance without waiting for it."""

    async def stop(self, instance: str) -> None:
        """Ask for the stop of an instance without waiting for it."""

    async def renew(self, device: str) -> None:
        """Renew the leases of a device."""

    async def reconfigure(self, device: str) -> None:
        """Drop the leases of a device and ask for new ones."""


class Systemd:
    """ServiceControl by systemctl and networkctl."""

    async def running(self) -> set[str]:
        """Return the instances whose unit is active or becoming so; CommandError."""
        output = await _run("systemctl", "list-units", "--all", "--plain", "--no-legend", "--full", "mpquic@*.service")
        return parse_units(output)

    async def start(self, instance: str) -> None:
        """Queue the start job of an instance; CommandError."""
        await _run("systemctl", "start", "--no-block", f"mpquic@{instance}.service")

    async def stop(self, instance: str) -> None:
        """Queue the stop job of an instance; CommandError."""
        await _run("systemctl", "stop", "--no-block", f"mpquic@{instance}.service")

    async def renew(self, device: str) -> None:
        """Have networkd renew the leases of `device`; CommandError."""
        await _run("networkctl", "renew", device)

    async def reconfigure(self, device: str) -> None:
        """Have networkd configure `device` from the beginning; CommandError."""
        await _run("networkctl", "reconfigure", device)


def parse_units(output: str) -> set[str]:
    """Return the running instances of `systemctl list-units --plain --no-legend` output."""
    found: set[str] = set()
    for line in output.splitlines():
        columns = line.split()
        if len(columns) >= 4 and columns[2] in _RUNNING:
            found.add(columns[0].removeprefix("mpquic@").removesuffix(".service"))
    return found


async def _run(*command: str) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
    except OSError as error:
        raise CommandError(f"{command[0]}: {error.strerror}") from error
    try:
        output, errors = await asyncio.wait_for(process.communicate(), TIMEOUT)
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise CommandError(f"{' '.join(command)}: no end after {TIMEOUT:g} s") from error
    if process.returncode:
        raise CommandError(f"{' '.join(command)}: {errors.decode(errors='replace').strip() or process.returncode}")
    return output.decode(errors="replace")
