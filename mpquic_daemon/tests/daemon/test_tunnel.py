"""A real client and a real server with real TUNs carry traffic, and come back from what happens to them."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mpquic.release import RELEASE
from waiting import wait_for

pytestmark = pytest.mark.root
Site = Any


def cpu_seconds(site: Site, name: str) -> float:
    fields = Path(f"/proc/{site.processes[name].pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def tables(site: Site) -> dict[str, int]:
    counters = site.ask("sv", "counters")
    assert counters is not None
    found: dict[str, int] = counters["tables"]
    return found


def restart_client(site: Site, **changes: object) -> None:
    site.kill("cl", signal.SIGTERM)
    site.start("client", site.client_config(**changes))
    site.wait_state("up")


def test_packets_of_both_families_and_any_size_pass(running: Site) -> None:
    assert running.ping()
    assert running.ping(target="fd09::2")
    assert running.ping(size=1372)
    assert running.ping(size=4000)


@pytest.mark.parametrize("mode", ["datagram", "reliable"])
def test_tcp_runs_both_ways(running: Site, mode: str) -> None:
    restart_client(running, transport_mode=mode)
    (path,) = running.ask("cl", "paths")
    assert path["transport_mode"] == mode
    up, down = running.iperf(), running.iperf("-R")
    print(f"{mode}: {up:.0f} Mbit/s up, {down:.0f} Mbit/s down")
    assert min(up, down) > 20
    assert running.state() == "up"
    assert running.state("sv") == "up"


def test_status_tells_what_an_operator_asks(running: Site) -> None:
    running.ping(5)
    wait_for(lambda: running.ask("cl")["rtt_seconds"], 3, "a measured RTT")
    status = running.ask("cl")
    assert (status["name"], status["role"], status["state"], status["wan"]) == ("cl", "client", "up", "wan9")
    assert status["peer"] == "10.77.2.2:45009"
    since = dt.datetime.fromisoformat(status["since"])
    assert abs((dt.datetime.now(dt.UTC) - since).total_seconds() - status["duration_seconds"]) < 2
    assert status["duration_seconds"] < 10
    assert 0 < status["rtt_seconds"] < 0.2
    assert status["tx_bytes"] >= 5 * 84
    assert status["rx_bytes"] >= 5 * 84
    assert (status["reconnects"], status["loss_ratio"], status["error"]) == (0, 0.0, None)
    server = running.ask("sv")
    assert (server["role"], server["state"], server["peer"]) == ("server", "up", "1 of 1: site1")
    (peer,) = server["peers"]
    assert (peer["identity"], peer["tunnel"], peer["state"]) == ("urn:mpquic:site:site1", "mpq9", "up")
    assert peer["peer"].startswith("10.77.1.2:")
    assert peer["duration_seconds"] < 10
    assert running.ask("cl", "paths")[0]["identity"] == "vps1.example.net"
    (path,) = running.ask("sv", "paths")
    assert (path["identity"], path["tunnel"], path["state"]) == ("urn:mpquic:site:site1", "mpq9", "up")
    assert peer["release"] == RELEASE
    for name in ("cl", "sv"):
        for what in ("status", "version"):
            told = running.ask(name, what)
            assert (told["release"], told["peer_releases"]) == (RELEASE, [RELEASE])


def test_the_carrier_follows_the_tunnel(running: Site) -> None:
    carrier = "/sys/class/net/mpq9/carrier"
    assert running.run("client", "cat", carrier).strip() == "1"
    assert running.run("server", "cat", carrier).strip() == "1"
    running.kill("cl", signal.SIGTERM)
    wait_for(lambda: running.run("server", "cat", carrier).strip() == "0", 1, "no carrier at the server")
    assert running.run("client", "cat", carrier).strip() == "0"
    assert tables(running)["registered"] == 0


def test_a_killed_client_is_back_within_three_seconds(running: Site) -> None:
    running.kill("cl")
    running.start("client", running.client_config())
    assert running.wait_ping(3.0) < 3.0
    assert tables(running)["registered"] == 1
    assert tables(running)["groups"] == 1


def test_a_killed_server_is_back_within_five_seconds(running: Site) -> None:
    running.kill("sv")
    running.start("server", running.server_config())
    assert running.wait_ping(5.0) < 5.0
    assert running.ask("cl")["reconnects"] == 1


def test_a_server_that_is_told_to_stop_says_goodbye(running: Site) -> None:
    assert running.kill("sv", signal.SIGTERM) == 0
    running.wait_state("down", 1.0)
    attempts = running.ask("cl", "counters")["attempts"]
    wait_for(lambda: running.ask("cl", "counters")["attempts"] > attempts, 5, "another attempt")
    running.start("server", running.server_config())
    running.wait_server()
    assert running.wait_state("up", 3.0) < 3.0


def test_a_silent_cut_is_noticed_and_healing_too(running: Site) -> None:
    running.cut()
    assert running.wait_state("down", 5.0) < 5.0
    assert running.ask("cl")["error"] == "no answer from the server for 3 s"
    before = cpu_seconds(running, "cl"), cpu_seconds(running, "sv")
    time.sleep(5)  # the time that is measured: long enough for several attempts
    assert cpu_seconds(running, "cl") - before[0] < 0.5
    assert cpu_seconds(running, "sv") - before[1] < 0.5
    running.heal()
    assert running.wait_ping(3.0) < 3.0
    assert running.state() == "up"
    assert tables(running)["registered"] == 1


def test_a_tcp_transfer_survives_a_silent_cut(running: Site) -> None:
    server = subprocess.Popen(
        ["ip", "netns", "exec", running.namespace("server"), "iperf3", "-s", "-1", "-B", "10.200.9.2"],
        stdout=subprocess.DEVNULL,
    )
    wait_for(lambda: ":5201" in running.run("server", "ss", "-Hltn"), 5, "iperf3")
    client = subprocess.Popen(
        [
            "ip",
            "netns",
            "exec",
            running.namespace("client"),
            "iperf3",
            "-c",
            "10.200.9.2",
            "-n",
            "60M",
            "-b",
            "40M",
            "-J",
        ],
        stdout=subprocess.PIPE,
    )
    try:
        wait_for(lambda: running.ask("cl", "paths")[0]["tx_bytes"] > 5_000_000, 10, "5 MB of the transfer")
        running.cut()
        running.wait_state("down", 5.0)
        running.heal()
        output, _ = client.communicate(timeout=45)
        assert json.loads(output)["end"]["sum_received"]["bytes"] >= 55_000_000
    finally:
        for process in (client, server):
            process.kill()
            process.wait(5)


def test_a_wan_without_route_is_inactive_at_once_and_back_at_once(running: Site) -> None:
    running.ip("client", "route", "del", "default")
    assert running.wait_state("inactive", 1.0) < 1.0
    assert running.ask("cl")["error"] == "wan0: no IPv4 default route (the address 10.77.1.2 is there)"
    assert running.ask("cl")["missing"] == "route"
    assert running.run("client", "cat", "/sys/class/net/mpq9/carrier").strip() == "0"
    running.ip("client", "route", "add", "default", "via", "10.77.1.1", "dev", "wan0")
    assert running.wait_state("up", 2.0) < 2.0


def test_a_wan_that_gets_another_address_has_a_new_connection_within_a_second(running: Site) -> None:
    def uses(address: str) -> bool:
        return f"{address}:" in str(running.ask("cl", "paths"))

    for new, old in (("10.77.1.3", "10.77.1.2"), ("10.77.1.2", "10.77.1.3")):
        running.ip("client", "addr", "add", f"{new}/24", "dev", "wan0")
        running.ip("client", "addr", "del", f"{old}/24", "dev", "wan0")
        wait_for(partial(uses, new), 1, "a connection from the new address")
        assert running.wait_ping(1.0) < 1.0
        assert tables(running)["registered"] == 1


def test_a_path_with_a_smaller_mtu_is_found_by_smaller_packets(running: Site) -> None:
    # Without segmentation: between namespaces nobody cuts the packets of one send apart, and nft would see their sum.
    for name in ("cl", "sv"):
        running.kill(name, signal.SIGTERM)
    running.start("server", running.server_config(udp_gso="off"))
    # 1400 bytes of IP pass from the client on, and nobody tells.
    running.run("middle", "nft", "add table inet mtu; add chain inet mtu f { type filter hook forward priority 0; };"
                " add rule inet mtu f meta length > 1400 drop")  # fmt: skip
    try:
        running.start("client", running.client_config(udp_gso="off"))
        running.wait_state("up", 10.0)
        (path,) = running.ask("cl", "paths")
        assert path["quic"]["max_datagram_bytes"] == 1200
        assert running.ping(size=1372)
    finally:
        running.run("middle", "nft", "delete", "table", "inet", "mtu")


def test_reload_applies_hot_keys_and_keeps_the_old_when_the_new_is_wrong(running: Site) -> None:
    running.server_config(down_after_ms=4000, tun_mtu=1380)
    running.signal("sv", signal.SIGHUP)
    wait_for(lambda: running.ask("sv")["restart_needed"] == ["tun_mtu"], 3, "the reload")
    assert running.ask("sv", "config")["running"]["down_after_ms"] == 4000
    assert running.ask("sv", "config")["running"]["tun_mtu"] == 1400
    running.server_config(pers=[])
    running.signal("sv", signal.SIGHUP)
    wait_for(lambda: running.ask("sv")["error"], 3, "the refusal")
    assert running.ask("sv")["error"] == (
        "configuration refused, the old one is in force: pers: unknown key; did you mean peers?"
    )
    assert running.ping()
    running.server_config(down_after_ms=4000)
    running.signal("sv", signal.SIGHUP)
    wait_for(lambda: running.ask("sv")["error"] is None, 3, "the recovery")


def test_a_client_that_is_taken_from_the_list_or_revoked_is_cut_off_by_a_reload(running: Site) -> None:
    running.server_config(peers=[])
    running.signal("sv", signal.SIGHUP)
    running.wait_state("down", 2.0)
    assert tables(running)["registered"] == 0
    running.server_config()
    running.signal("sv", signal.SIGHUP)
    running.wait_state("up", 12.0)
    from cryptography import x509

    serial = x509.load_pem_x509_certificate((running.directory / "client.crt").read_bytes()).serial_number
    revoked = running.directory / "revoked"
    revoked.write_text(f"{serial:x}  # lost laptop\n")
    data = running.server_config().read_text()
    running.server_config(tls={**_tls(data), "revoked_file": str(revoked)})
    running.signal("sv", signal.SIGHUP)
    running.wait_state("down", 2.0)
    assert tables(running)["registered"] == 0
    assert "authentication" in (running.ask("cl")["error"] or "") or running.ask("cl")["error"]


def _tls(text: str) -> dict[str, str]:
    import yaml

    found: dict[str, str] = yaml.safe_load(text)["tls"]
    return found


def test_a_hundred_reconnects_leave_files_and_tables_where_they_were(running: Site) -> None:
    def open_files(name: str) -> int:
        return len(list(Path(f"/proc/{running.processes[name].pid}/fd").iterdir()))

    def registered(count: int) -> bool:
        return bool(running.ask("sv", "counters")["registrations"] >= count)

    before, files, client_files = tables(running), open_files("sv"), open_files("cl")
    registrations = running.ask("sv", "counters")["registrations"]
    for number in range(100):
        # Another gateway or route each time: the client makes a new socket and a new connection.
        verb = "add" if number % 2 == 0 else "del"
        running.ip("client", "route", verb, "default", "via", "10.77.1.1", "dev", "wan0", "table", "109")
        wait_for(partial(registered, registrations + number + 1), 3, f"registration {number}")
    running.wait_state("up")
    wait_for(lambda: tables(running) == before, 5, "the same tables")
    # At most: the baseline may have held our own question's connection.
    wait_for(lambda: open_files("sv") <= files and open_files("cl") <= client_files, 5, "as few open files")


def test_a_second_process_on_the_same_tun_refuses_to_start_and_says_why(running: Site) -> None:
    process = running.start("client", running.client_config("other"))
    assert process.wait(10) == 1
    assert "another process has it" in running.log("other")
    del running.processes["other"]
    assert running.state() == "up"


def test_a_process_that_is_stopped_leaves_no_socket_behind(running: Site) -> None:
    assert (running.runtime / "cl.sock").exists()
    assert running.kill("cl", signal.SIGTERM) == 0
    assert not (running.runtime / "cl.sock").exists()
