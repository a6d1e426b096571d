"""The process around the tunnel: systemd, policy of run time, requests to linkd, a TUN that is taken away."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest
from json_schemas import check
from waiting import wait_for

pytestmark = [pytest.mark.root, pytest.mark.waits]
Site = Any


def request(site: Site, name: str, **fields: object) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(site.runtime / f"{name}.sock"))
        connection.sendall(json.dumps({"v": 1, "id": 1, **fields}).encode() + b"\n")
        answer: dict[str, Any] = json.loads(connection.makefile().readline())
        return answer


def test_a_client_without_a_server_is_ready_at_once_and_pings_the_watchdog(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(site.runtime / "notify"))
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(site.runtime / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "600000")
        site.start("client", site.client_config())
        try:
            heard = ""
            while "READY=1" not in heard:
                heard += manager.recv(4096).decode() + "\n"
            pings = 0
            while pings < 4:
                pings += "WATCHDOG=1" in manager.recv(4096).decode()
            assert site.state() in ("connecting", "down")
            site.signal("cl", 15)
            heard = ""
            while "STOPPING=1" not in heard:
                heard += manager.recv(4096).decode()
            assert site.processes["cl"].wait(5) == 0
        finally:
            site.kill("cl")


def test_a_client_that_never_reaches_its_server_is_down_with_the_reason(site: Site) -> None:
    site.start("client", site.client_config())
    try:
        site.wait_state("down", 5.0)
        assert site.ask("cl")["error"] == "no answer from 10.77.2.2:45009"
    finally:
        site.kill("cl")


def test_a_dead_path_asks_for_a_renewal_of_its_lease(running: Site) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as linkd:
        linkd.bind(str(running.runtime / "linkd"))
        linkd.settimeout(12)
        try:
            running.cut()
            began = time.monotonic()
            assert linkd.recv(100) == b"renew wan0"
            assert 5.0 < time.monotonic() - began < 9.0
        finally:
            (running.runtime / "linkd").unlink()


def test_a_level_that_is_set_at_run_time_outlives_the_process_and_ends_in_its_time(running: Site) -> None:
    def level() -> object:
        return running.ask("cl", "config")["policy"].get("log_level", {}).get("value")

    answer = request(running, "cl", op="set", key="log_level", value="loud", owner="test")
    assert answer["error"] == "value: expected one of debug, info, warning, error"
    assert request(running, "cl", op="set", key="log_level", value="warning", owner="test", ttl_seconds=6)["ok"] is True
    assert level() == "warning"
    running.kill("cl")
    running.start("client", running.client_config())
    running.wait_state("up")
    assert level() == "warning"
    wait_for(lambda: level() is None, 7, "the end of the policy")


def test_what_requests_result_in_is_as_the_schemas_say(running: Site) -> None:
    def result(name: str, part: str, **fields: object) -> None:
        check("control-request", {"v": 1, "id": 1, **fields})
        reply = request(running, name, **fields)
        check("control-reply", reply)
        check("control-results", reply["result"], part)

    for name in ("cl", "sv"):
        for what in ("status", "paths", "config", "counters", "version"):
            result(name, what, op="get", what=what)
        result(name, "status", op="watch")
        result(name, "set", op="set", key="log_level", value="info", owner="test", ttl_seconds=60)
        result(name, "config", op="get", what="config")
        result(name, "reload", op="reload")
    result("sv", "handover", op="handover", who="site1", for_seconds=1)
    result("cl", "status", op="reconnect", silent=False)
    refused = request(running, "cl", op="no such")
    check("control-reply", refused)
    assert refused["ok"] is False


def test_watchers_hear_of_the_state(running: Site) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(6)
        connection.connect(str(running.runtime / "cl.sock"))
        stream = connection.makefile("rwb")
        stream.write(b'{"v": 1, "id": 3, "op": "watch"}\n')
        stream.flush()
        assert json.loads(stream.readline())["result"]["state"] == "up"
        running.cut()
        event = json.loads(stream.readline())
        check("control-reply", event)
        assert (event["id"], event["event"]["state"]) == (3, "down")


@pytest.mark.parametrize(("role", "name"), [("client", "cl"), ("server", "sv")])
def test_a_process_whose_tun_is_made_anew_ends_so_that_it_is_started_again(running: Site, role: str, name: str) -> None:
    running.ip(role, "link", "del", "mpq9")
    try:
        assert running.processes[name].wait(5) == 0
        assert "was deleted or made anew" in running.log(name)
    finally:
        running.make_tun(role)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"cert_file": "/nonexistent/a.crt"}, "tls.cert_file /nonexistent/a.crt: No such file or directory"),
        ({"ca_file": "/etc/hostname"}, "tls.ca_file /etc/hostname: holds no usable PEM certificate"),
        ({"key_file": "server.key"}, "the key does not belong to the first certificate"),
    ],
)
def test_a_client_with_unusable_files_refuses_to_start_and_names_the_key(
    site: Site, change: dict[str, str], problem: str
) -> None:
    import yaml

    tls = yaml.safe_load(site.client_config().read_text())["tls"]
    change = {key: value if value.startswith("/") else str(site.directory / value) for key, value in change.items()}
    process = site.start("client", site.client_config("bad", tls={**tls, **change}))
    assert process.wait(10) == 1
    del site.processes["bad"]
    assert problem in site.log("bad")
