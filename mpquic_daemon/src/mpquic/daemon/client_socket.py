"""The UDP socket of a client's connection: by one device, to one server, and what the network says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic.daemon import path_mtu
from mpquic.daemon.path_mtu import ReportedErrors
from mpquic.daemon.wan_socket import open_socket
from mpquic.net.send_status import SendStatus

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from mpquic.config import ClientConfig, PathConfig
    from mpquic.net.kernel import Kernel


class ClientSocket:
    """Raises OSError when it can't be made now. `own` are the addresses of the path's device, empty for one without.

    `on_path_mtu` gets the path's MTU in bytes that the kernel believes in, when ICMP has come in.
    """

    def __init__(
        self,
        config: ClientConfig,
        path: PathConfig,
        own: tuple[str, ...],
        kernel: Kernel,
        on_path_mtu: Callable[[int], object],
    ) -> None:
        self.udp = open_socket(kernel, path, path.remote_port, own, gso=config.udp_gso, dscp=config.dscp)
        self.shortage: str | None = None
        """That the path's MTU is too small for QUIC, as far as ICMP or the device says so."""
        self.doubtful = False
        """Whether an ICMP error came back: nothing to rely on, but a reason to try another connection at once."""
        self._family = path.family
        self._reported = ReportedErrors(self.udp, on_path_mtu)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_writable: Callable[[], object] | None = None
        self._writing = False

    def watch(
        self, loop: asyncio.AbstractEventLoop, on_readable: Callable[[], object], on_writable: Callable[[], object]
    ) -> None:
        """Have these called when something has come in, and when it takes datagrams again after it didn't."""
        self._loop, self._on_writable = loop, on_writable
        loop.add_reader(self.udp.fileno(), on_readable)

    def send(self, datagrams: list[bytes]) -> SendStatus:
        """Send datagrams; what the kernel keeps back follows when it can."""
        status = self.udp.send_batch(datagrams)
        self.look_at_errors()
        if status is SendStatus.TOO_LARGE:
            self.shortage = path_mtu.shortage(self.udp.path_mtu(), self._family)
        elif status is SendStatus.REFUSED:
            self.doubtful = True
        self._watch_writing()
        return status

    def look_at_errors(self) -> None:
        """Take note of what ICMP has left.

        Nobody listens there, or a router says so. An attempt goes on: its next packets may meet a server that has just
        started. Anybody can forge such an answer, so it ends nothing.
        """
        self.doubtful = self._reported.look() or self.doubtful

    def look_for_shortage(self) -> None:
        """Explain silence by the path's MTU, if the kernel believes it to be too small."""
        self.shortage = self.shortage or path_mtu.shortage(self.udp.path_mtu(), self._family)

    def base_fails(self) -> str:
        """Say that the path's MTU is too small, as probes have shown."""
        self.shortage = path_mtu.base_fails(self.udp.path_mtu(), self._family)
        return self.shortage

    def close(self) -> None:
        """Release the socket."""
        if self._loop is not None:
            self._loop.remove_reader(self.udp.fileno())
            if self._writing:
                self._loop.remove_writer(self.udp.fileno())
        self.udp.close()

    def _watch_writing(self) -> None:
        if self._loop is None or self.udp.wants_write == self._writing:
            return
        self._writing = self.udp.wants_write
        if self._writing:
            self._loop.add_writer(self.udp.fileno(), self._resume)
        else:
            self._loop.remove_writer(self.udp.fileno())

    def _resume(self) -> None:
        self.udp.resume()
        self._watch_writing()
        if self._on_writable is not None:
            self._on_writable()
