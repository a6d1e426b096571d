"""The Internet's HTTP server, on the loopback."""

from __future__ import annotations

import http.client
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from mpqlab.httpd import TCP_RTO_MAX_MS, Handler, Server, seen_address

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def connection() -> Iterator[http.client.HTTPConnection]:
    with Server(("::", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        client = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
        yield client
        client.close()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("size", [0, 1, 1048575, 1048576, 3000001])
def test_a_file_of_the_wanted_size_is_sent(connection: http.client.HTTPConnection, size: int) -> None:
    connection.request("GET", f"/bytes/{size}")
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.getheader("Content-Length") == str(size)
    assert len(answer.read()) == size


def test_the_address_of_the_asker_is_echoed(connection: http.client.HTTPConnection) -> None:
    connection.request("GET", "/ip")
    assert connection.getresponse().read() == b"127.0.0.1\n"


@pytest.mark.parametrize("path", ["/", "/bytes/", "/bytes/-1", "/bytes/9999999999999999", "/../etc/passwd"])
def test_anything_else_is_not_found(connection: http.client.HTTPConnection, path: str) -> None:
    connection.request("GET", path)
    assert connection.getresponse().status == 404


def test_one_connection_serves_several_requests(connection: http.client.HTTPConnection) -> None:
    for _ in range(3):
        connection.request("GET", "/bytes/10")
        assert len(connection.getresponse().read()) == 10


def test_what_was_lost_is_sent_again_after_10_s_at_most() -> None:
    with Server(("::", 0), Handler) as server:
        try:
            longest = server.socket.getsockopt(socket.IPPROTO_TCP, TCP_RTO_MAX_MS)
        except OSError:
            pytest.skip("needs Linux 6.15 or later")
    assert longest == 10_000


def test_an_ipv4_address_is_shown_as_such() -> None:
    assert seen_address("::ffff:198.51.100.4") == "198.51.100.4"
    assert seen_address("2001:db8:5::95") == "2001:db8:5::95"
    assert seen_address("fe80::1%lan") == "fe80::1"
