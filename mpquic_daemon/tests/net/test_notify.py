"""What systemd hears."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
from mpquic.net.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    name = str(tmp_path / "notify") if request.param == "path" else f"@nett-notify-{os.getpid()}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(name.replace("@", "\0"))
    listener.settimeout(2)
    yield listener, {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(os.getpid())}
    listener.close()


def test_the_manager_hears_of_the_process(manager):
    listener, environment = manager
    notifier = Notifier(environment)
    assert notifier.active
    assert notifier.watchdog_interval == 20.0
    assert notifier.ready("attached to mpq5")
    assert listener.recv(1000) == b"READY=1\nSTATUS=attached to mpq5"
    notifier.watchdog()
    assert listener.recv(1000) == b"WATCHDOG=1"
    notifier.status("two\nREADY=1")
    assert listener.recv(1000) == b"STATUS=two READY=1"
    notifier.reloading()
    assert listener.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
    notifier.stopping()
    assert listener.recv(1000) == b"STOPPING=1"
    notifier.close()
    assert not notifier.ready()


def test_no_child_process_inherits_the_ways_to_the_manager(manager, monkeypatch):
    _, environment = manager
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    notifier = Notifier()
    assert notifier.active
    assert notifier.watchdog_interval == 20.0
    script = "import os; print(sorted(set(os.environ) & {'NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID'}))"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "[]\n"
    notifier.close()


def test_without_a_manager_nothing_happens():
    notifier = Notifier({})
    assert not notifier.active
    assert not notifier.ready()
    assert notifier.watchdog_interval is None


def test_a_manager_that_has_gone_is_no_error(tmp_path):
    assert not Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()


@pytest.mark.parametrize(("interval", "process"), [("0", ""), ("x", ""), ("", ""), ("1000000", "1")])
def test_a_watchdog_for_nobody_or_another_is_none(interval, process):
    assert Notifier({"WATCHDOG_USEC": interval, "WATCHDOG_PID": process}).watchdog_interval is None
