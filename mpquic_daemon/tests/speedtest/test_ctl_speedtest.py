"""What `mpquicctl speedtest` refuses before it measures."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
import yaml
from mpquic import ctl

if TYPE_CHECKING:
    from pathlib import Path

TLS = {"ca_file": "/a", "cert_file": "/b", "key_file": "/c"}
CLIENT = {
    "name": "mpq5",
    "role": "client",
    "tun_name": "mpq5",
    "inner_addresses": ["10.200.5.1/32"],
    "bind_ip": "iface:mpq-absent0",
    "remote_addr": "203.0.113.10",
    "remote_port": 45005,
    "wan": "wan5",
    "tls": TLS | {"server_name": "vps1"},
}
SERVER = {"name": "srv", "role": "server", "tun_name": "srv", "bind_ip": "::", "bind_port": 45005, "tls": TLS}


@pytest.fixture
def instances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MPQUIC_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    directory = tmp_path / "instances"
    directory.mkdir()
    for content in (CLIENT, SERVER):
        (directory / f"{content['name']}.yml").write_text(yaml.safe_dump(content))
    return directory


def speedtest(directory: Path, *words: str) -> int:
    return ctl.main(["speedtest", "--instances-dir", str(directory), *words])


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("mpq9", 4, "there is no instance mpq9"),
        ("srv", 2, "it is a server; measure from the client"),
        ("mpq5", 3, "it is not running: mpq-absent0: no such device"),
    ],
)
def test_what_can_not_be_measured_is_said(
    instances: Path, name: str, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert speedtest(instances, name, "--server", "192.0.2.80") == status
    assert message in capsys.readouterr().err


def test_without_iperf3_it_says_how_to_get_it(
    instances: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert speedtest(instances, "mpq5", "--server", "192.0.2.80") == 2
    assert "apt install iperf3" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [("--server", "vps1.example.net"), ("--server", "192.0.2.80:0"), ("--server", "192.0.2.80", "--seconds", "60")],
)
def test_a_wrong_command_line_is_refused(
    instances: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        speedtest(instances, "mpq5", *words)
    assert ended.value.code == 2
    assert "expected" in capsys.readouterr().err
