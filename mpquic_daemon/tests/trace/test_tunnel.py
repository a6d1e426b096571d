"""What a trace says of the tunnel: whose TUN it is, its state, and what stands in its way."""

from __future__ import annotations

import json
import socket
import threading
from typing import TYPE_CHECKING

import pytest
import yaml
from mpquic import hold
from mpquic.ctl.trace import summary
from mpquic.ctl.tun_owner import describe
from mpquic.trace import text
from mpquic.trace.way import NOT_UNICAST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CONFIG = {
    "name": "mpq5",
    "role": "client",
    "tun_name": "mpq5",
    "inner_addresses": ["10.200.5.1/32"],
    "bind_ip": "iface:mpq-absent0",
    "remote_addr": "203.0.113.10",
    "remote_port": 45005,
    "wan": "wan5",
    "tls": {"ca_file": "/a", "cert_file": "/b", "key_file": "/c", "server_name": "vps1"},
}
ANSWERS: dict[str, object] = {
    "status": {"state": "up", "error": None},
    "paths": [
        {
            "path": "wan5",
            "device": "enp7s7",
            "local": "198.51.100.2:4000",
            "peer": "203.0.113.10:45005",
            "transport_mode": "datagram",
            "stripe": {"carries": True},
            "rtt_seconds": 0.0145,
            "loss_ratio": 0.0,
        }
    ],
}


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("run", "holds", "instances"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("MPQUIC_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("MPQUIC_HOLDS_DIR", str(tmp_path / "holds"))
    (tmp_path / "instances/mpq5.yml").write_text(yaml.safe_dump(CONFIG))
    return tmp_path / "instances"


@pytest.fixture
def running(directory: Path) -> Iterator[Callable[[dict[str, object]], None]]:
    """A process that answers for the instance."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(directory.parent / "run/mpq5.sock"))
    listener.listen()
    answers = dict(ANSWERS)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as stream:
                what = json.loads(stream.readline())["what"]
                stream.write(json.dumps({"v": 1, "id": 1, "ok": True, "result": answers[what]}).encode() + b"\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield answers.update
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


@pytest.mark.usefixtures("running")
def test_a_tunnel_that_is_up_has_its_path_and_data_plane(directory: Path) -> None:
    facts = describe(directory, "mpq5")
    assert facts is not None
    assert (facts["name"], facts["wan"], facts["state"]) == ("mpq5", "wan5", "up")
    assert facts["paths"][0]["data_plane"] == "stripe"
    assert text.why_not(facts) is None


def test_a_path_without_a_connection_has_no_data_plane(
    directory: Path, running: Callable[[dict[str, object]], None]
) -> None:
    running({"status": {"state": "down", "error": "no answer"}, "paths": [{"path": "wan5", "local": None}]})
    facts = describe(directory, "mpq5")
    assert facts is not None
    assert facts["paths"][0]["data_plane"] is None
    assert text.why_not(facts) == "mpq5 is down: no answer"


def test_a_process_that_is_absent_has_the_reason_of_its_wan(directory: Path) -> None:
    facts = describe(directory, "mpq5")
    assert facts is not None
    assert text.why_not(facts) == "mpq5 is inactive: mpq-absent0: no such device"


def test_a_tunnel_that_is_held_says_by_whom_and_why(directory: Path) -> None:
    hold.write("mpq5", hold.Hold(by="alice", reason="the dish is moved", since=1.0))
    facts = describe(directory, "mpq5")
    assert facts is not None
    assert (facts["hold"]["by"], facts["hold"]["since"]) == ("alice", "1970-01-01T00:00:01Z")
    assert text.why_not(facts) == "mpq5 is held by alice: the dish is moved"


def test_a_hold_whose_time_is_over_is_not_the_reason(directory: Path) -> None:
    hold.write("mpq5", hold.Hold(by="alice", reason="the dish is moved", since=1.0, until=2.0))
    facts = describe(directory, "mpq5")
    assert facts is not None
    assert facts["hold"] is None
    assert text.why_not(facts) == "mpq5 is inactive: mpq-absent0: no such device"


def test_what_no_instance_owns_is_no_tunnel(directory: Path) -> None:
    (directory / "broken.yml").write_text("name: [")
    assert describe(directory, "enp7s7") is None


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"enabled": False}, "mpq5 is disabled in the site's variables (enabled: false)"),
        ({"state": "held", "error": "held by alice: moved"}, "mpq5 is held by alice: moved"),
        ({"state": "connecting"}, "mpq5 is connecting"),
        ({"state": None, "error": "no permission"}, "mpq5 is not known: no permission"),
        ({}, None),
    ],
)
def test_the_reason_is_the_present_one(changed: dict[str, object], expected: str | None) -> None:
    facts = {"name": "mpq5", "enabled": True, "hold": None, "state": "up", "error": None} | changed
    assert text.why_not(facts) == expected


IDLE = {
    "name": "mpq1",
    "device": "mpq1",
    "enabled": True,
    "hold": None,
    "state": "inactive",
    "error": "enp7s3: no such device",
}


@pytest.mark.parametrize(
    ("outcome", "device", "tunnel", "wan", "expected"),
    [
        ("leaves", "mpq5", IDLE | {"device": "mpq5", "state": "up"}, "wan5", "leaves by mpq5, whose tunnel takes wan5"),
        (
            "leaves",
            "enp7s7",
            IDLE,
            "wan5",
            "leaves by enp7s7 (wan5) directly, outside of a tunnel, as mpq1 is inactive: enp7s3: no such device",
        ),
        ("leaves", "enp7s7", None, "wan5", "leaves by enp7s7 (wan5) directly, outside of a tunnel"),
        (
            "unreachable",
            None,
            IDLE,
            None,
            f"unreachable: {NOT_UNICAST['unreachable']}, as mpq1 is inactive: enp7s3: no such device",
        ),
        ("dropped", "mpq5", None, None, "dropped by the packet filter: policy drop"),
    ],
)
def test_the_outcome_says_what_happens_instead_and_why(
    outcome: str, device: str | None, tunnel: dict[str, object] | None, wan: str | None, expected: str
) -> None:
    found = {
        "outcome": outcome,
        "route": {"device": device},
        "tunnel": tunnel,
        "wan": wan,
        "firewall": {"by": "policy drop"},
    }
    assert summary(found) == expected
