"""The Internet's HTTP server: `GET /bytes/N` sends N bytes, `GET /ip` says from which address the request came.

python -m mpqlab.httpd PORT
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_CHUNK = memoryview(bytes(range(256)) * 4096)
TCP_RTO_MAX_MS = 44
"""Socket option of linux/tcp.h that limits the retransmission timeout, since Linux 6.15."""
_RTO_MAX_MS = 10_000
_BYTES = re.compile(r"/bytes/(\d{1,15})")


class Handler(BaseHTTPRequestHandler):
    """Answers one request after the other on a connection."""

    protocol_version = "HTTP/1.1"
    timeout = 300

    def do_GET(self) -> None:
        """Answer GET."""
        sized = _BYTES.fullmatch(self.path)
        if sized:
            self._send_bytes(int(sized[1]))
        elif self.path == "/ip":
            self._send_text(HTTPStatus.OK, f"{seen_address(self.client_address[0])}\n")
        else:
            self._send_text(HTTPStatus.NOT_FOUND, "try /bytes/1000000 or /ip\n")

    def _send_text(self, status: HTTPStatus, text: str) -> None:
        body = text.encode()
        self._send_head(status, "text/plain", len(body))
        self.wfile.write(body)

    def _send_bytes(self, count: int) -> None:
        self._send_head(HTTPStatus.OK, "application/octet-stream", count)
        try:
            while count > 0:
                part = _CHUNK[: min(count, len(_CHUNK))]
                self.wfile.write(part)
                count -= len(part)
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _send_head(self, status: HTTPStatus, kind: str, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.end_headers()


class Server(ThreadingHTTPServer):
    """Listens on IPv4 and IPv6 at once."""

    address_family = socket.AF_INET6
    daemon_threads = True

    def server_bind(self) -> None:
        """Bind with IPv4 too; without a reverse look-up of the own name, for which there may be no resolver."""
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            # Connections inherit it. After a cut of a minute they would be silent for most of another one.
            self.socket.setsockopt(socket.IPPROTO_TCP, TCP_RTO_MAX_MS, _RTO_MAX_MS)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "internet", self.server_address[1]


def seen_address(text: str) -> str:
    """Return a peer's address as a person writes it: an IPv4-mapped IPv6 address as IPv4."""
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def main() -> None:
    """Serve until ended by a signal."""
    Server(("::", int(sys.argv[1])), Handler).serve_forever()


if __name__ == "__main__":
    main()
