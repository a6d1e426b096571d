"""The linkd process in a namespace: veth devices stand for modems, a bus of the test for systemd and polkit."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from json_schemas import check
from mpquic import control_client
from mpquic.hold import Hold
from mpquic.linkd.systemd import Systemd
from waiting import wait_for

from .fake_bus import FakeBus
from .test_ctl import ok, process

pytestmark = [
    pytest.mark.root,
    pytest.mark.waits,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2"),
]
NAMESPACE = f"shet-linkd-{os.getpid()}"

CLIENT = {
    "role": "client",
    "inner_addresses": ["10.200.5.1/32"],
    "remote_addr": "203.0.113.10",
    "remote_port": 45005,
    "tls": {"ca_file": "/a", "cert_file": "/b", "key_file": "/c", "server_name": "vps1"},
}


def ip(*arguments: str) -> None:
    subprocess.run(["ip", "-n", NAMESPACE, *arguments], check=True, capture_output=True)


class Host:
    """linkd with its instances, its sockets, and the bus that it speaks to."""

    def __init__(self, directory: Path) -> None:
        self.instances = directory / "instances"
        self.runtime = directory / "run"
        self.holds = directory / "holds"
        for path in (self.instances, self.runtime):
            path.mkdir()
        self.request = self.runtime / "request"
        self.control = self.runtime / "control.sock"
        self.bus = FakeBus(directory / "bus", device_name)
        self.environment = {
            **os.environ, "DBUS_SYSTEM_BUS_ADDRESS": self.bus.address, "MPQUIC_RUNTIME_DIR": str(self.runtime),
            "MPQUIC_HOLDS_DIR": str(self.holds),
        }  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None
        self.output = (directory / "output").open("w+")

    def add(self, name: str, device: str, **changes: object) -> None:
        data = {**CLIENT, "name": name, "tun_name": name, "bind_ip": f"iface:{device}", **changes}
        if "multipath_paths" in changes:
            for key in ("bind_ip", "remote_addr", "remote_port"):
                del data[key]
        path = self.instances / f"{name}.new"
        path.write_text(yaml.safe_dump(data))
        path.rename(self.instances / f"{name}.yml")

    def start(self) -> None:
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", NAMESPACE, sys.executable, "-m", "mpquic.linkd", "--instances-dir", self.instances,
             "--runtime-dir", self.runtime],
            env=self.environment, stderr=self.output,
        )  # fmt: skip
        wait_for(self.answers)

    def running(self) -> set[str]:
        return self.bus.running

    def log(self) -> list[str]:
        return list(self.bus.log)

    def journal(self) -> str:
        return Path(self.output.name).read_text()

    def ask(self, datagram: bytes) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as requests:
            requests.sendto(datagram, str(self.request))

    def say(self, **request: object) -> Any:
        result = control_client.call_socket(self.control, request, 5.0)
        check("control-results", result, "instances" if request["op"] == "get" else "hold")
        return result

    def answers(self) -> bool:
        try:
            self.say(op="get", what="instances")
        except control_client.NotRunning:
            return False
        return True

    def state(self, name: str) -> str:
        rows = self.say(op="get", what="instances")["instances"]
        return str(next(row["state"] for row in rows if row["name"] == name))

    def look_again(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def wait_until_it_has_looked(self) -> None:
        """What has happened so far has been taken notice of: linkd has begun to look, and begun once more."""
        for _ in range(2):
            looks = self.bus.looks
            self.look_again()
            wait_for(lambda looks=looks: self.bus.looks > looks)

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(5)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(5)


def device_name(index: int) -> str:
    shown = subprocess.run(["ip", "-n", NAMESPACE, "-o", "link"], check=True, capture_output=True, text=True).stdout
    names = {line.split(": ")[0]: line.split(": ")[1].partition("@")[0] for line in shown.splitlines()}
    return names[str(index)]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    try:
        found = Host(tmp_path)
        ip("link", "set", "lo", "up")
        ip("link", "add", "wan5", "type", "veth", "peer", "name", "isp5")
        ip("link", "set", "isp5", "up")
        yield found
        if found.process is not None and found.process.poll() is None:
            found.process.kill()
            found.process.wait(5)
        found.bus.stop()
        found.output.close()
    finally:
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=True)


@pytest.fixture
def refusing(host: Host) -> Host:
    """A host whose linkd runs, with an instance of which nothing is heard."""
    host.add("mpq5", "wan5")
    host.start()
    return host


def keep(host: Host, name: str, record: Hold) -> None:
    """Leave a hold as an earlier process has."""
    host.holds.mkdir(exist_ok=True)
    (host.holds / f"{name}.json").write_bytes(json.dumps(record.plain()).encode())


def bring_up() -> None:
    ip("link", "set", "wan5", "up")
    ip("addr", "replace", "10.150.19.95/24", "dev", "wan5")
    ip("route", "replace", "default", "via", "10.150.19.1", "dev", "wan5", "table", "105")


def add_wan6() -> None:
    ip("link", "add", "wan6", "type", "veth", "peer", "name", "isp6")
    ip("link", "set", "isp6", "up")
    ip("link", "set", "wan6", "up")
    ip("addr", "add", "100.64.0.100/24", "dev", "wan6")
    ip("route", "add", "default", "dev", "wan6", "table", "106")


def test_an_instance_starts_within_a_second_of_its_wan_and_others_stay_as_they_are(host: Host) -> None:
    host.add("mpq5", "wan5")
    host.add("mpq1", "wan1")
    host.start()
    ip("link", "set", "wan5", "up")
    ip("addr", "add", "10.150.19.95/24", "dev", "wan5")
    host.wait_until_it_has_looked()  # An address without a default route is no WAN.
    assert host.running() == set()
    bring_up()
    assert wait_for(lambda: host.running() == {"mpq5"}) < 1.0
    assert host.log() == ["start mpq5"]
    assert host.stop() == 0
    assert not host.request.exists()


def test_a_new_file_is_seen_on_sighup_and_a_wrong_one_is_reported_once(host: Host) -> None:
    bring_up()
    host.start()
    (host.instances / "odd.yml").write_text("role: klient\n")
    host.add("mpq5", "wan5")
    assert host.process is not None
    for _ in range(2):
        os.kill(host.process.pid, signal.SIGHUP)
        wait_for(lambda: host.running() == {"mpq5"})
    assert host.stop() == 0
    host.output.seek(0)
    assert host.output.read().count("linkd.instance_unreadable") == 1


def test_a_dead_path_gets_its_lease_renewed_and_then_the_device_configured_anew(host: Host) -> None:
    host.add("mpq5", "wan5")
    bring_up()
    host.start()
    wait_for(lambda: bool(host.log()))
    host.ask(b"renew isp5")  # No instance uses it.
    host.ask(b"renew wan5; reboot")
    host.ask(b"renew wan5")
    wait_for(lambda: "renew wan5" in host.log())
    # Too soon at first: there is a pause of 8 s between two renewals of a device.
    waited = wait_for(lambda: host.ask(b"renew wan5") or "reconfigure wan5" in host.log(), 12)
    assert waited > 7
    assert host.log() == ["start mpq5", "renew wan5", "reconfigure wan5"]
    assert host.stop() == 0


def test_a_lease_is_not_renewed_while_another_instance_hears_its_server_by_it(host: Host) -> None:
    heard = []

    def paths(request: dict[str, object]) -> bytes:
        heard.append(request["what"])
        row = {"path": "wan5", "device": "wan5", "state": "up", "peer": "203.0.113.10:45009"}
        return ok([row])(request)

    add_wan6()
    host.add("mpq5", "wan5")
    host.add("mpq9", "wan5")
    host.add("mpq6", "wan6")
    bring_up()
    host.start()
    wait_for(lambda: len(host.running()) == 3)
    with process(host.runtime.parent, "mpq9", paths):
        host.ask(b"renew wan5")  # That of mpq5.
        wait_for(lambda: heard == ["paths"])
        host.ask(b"renew wan6")
        wait_for(lambda: "renew wan6" in host.log())
        assert "renew wan5" not in host.log()
    host.ask(b"renew wan5")
    wait_for(lambda: "renew wan5" in host.log())
    assert host.stop() == 0


def test_an_instance_over_two_wans_runs_while_one_of_them_is_usable(host: Host) -> None:
    add_wan6()
    entries = [{"name": f"wan{n}", "bind_ip": f"iface:wan{n}", "remote_addr": "203.0.113.10", "remote_port": 45011}
               for n in (5, 6)]  # fmt: skip
    host.add("mp1", "", multipath_enabled=True, multipath_paths=entries)
    host.start()
    wait_for(lambda: host.running() == {"mp1"})
    ip("route", "del", "default", "dev", "wan6", "table", "106")
    wait_for(lambda: host.state("mp1") == "waiting")
    bring_up()
    wait_for(lambda: host.state("mp1") == "running")
    assert host.log() == ["start mp1"], "it was never without a WAN for the time of grace"
    assert host.stop() == 0


def test_a_device_that_gave_up_its_lease_and_got_none_is_configured_anew_until_it_has_one(host: Host) -> None:
    host.add("mpq5", "wan5")
    bring_up()
    ip("neigh", "replace", "10.150.19.1", "dev", "wan5", "nud", "failed")
    host.start()
    wait_for(lambda: bool(host.log()))
    host.ask(b"renew wan5")
    wait_for(lambda: "reconfigure wan5" in host.log())
    ip("addr", "flush", "dev", "wan5")  # What networkd does, and nobody answers its DISCOVER.
    wait_for(lambda: host.log().count("reconfigure wan5") == 2, 10)
    assert host.stop() == 0


def test_devices_are_renewed_side_by_side(host: Host) -> None:
    ip("link", "add", "wan6", "type", "veth", "peer", "name", "isp6")
    ip("link", "set", "isp6", "up")
    for device, instance, address in (("wan5", "mpq5", "10.150.19.95"), ("wan6", "mpq6", "100.64.0.100")):
        host.add(instance, device)
        ip("link", "set", device, "up")
        ip("addr", "add", f"{address}/24", "dev", device)
        ip("route", "add", "default", "dev", device, "table", "105" if device == "wan5" else "106")
    answered = host.bus.held_back["renew wan5"] = threading.Event()
    host.start()
    wait_for(lambda: len(host.running()) == 2)
    host.ask(b"renew wan5")
    wait_for(lambda: "renew wan5" in host.log())
    host.ask(b"renew wan6")
    wait_for(lambda: {"renew wan5", "renew wan6"} <= set(host.log()))
    answered.set()
    assert host.stop() == 0


def test_an_operator_holds_an_instance_and_releases_it(host: Host) -> None:
    host.add("mpq5", "wan5")
    bring_up()
    host.start()
    wait_for(lambda: host.running() == {"mpq5"})
    on_disk: list[bool] = []
    host.bus.on_stop = lambda name: on_disk.append((host.holds / f"{name}.json").exists())
    row = host.say(op="hold", name="mpq5", reason="the dish is moved", user="alice")
    assert (row["state"], row["hold"]["by"], row["hold"]["until"]) == ("held", "alice", None)
    wait_for(lambda: not host.running())
    assert on_disk == [True], "the instance tells its peer of the hold when it is stopped"
    host.say(op="hold", name="mpq5", reason="and painted", for_seconds=3600)
    record = json.loads((host.holds / "mpq5.json").read_text())
    assert (record["by"], record["reason"], record["until"] - record["since"]) == ("root", "and painted", 3600)
    assert (host.holds / "mpq5.json").stat().st_mode & 0o777 == 0o644
    host.say(op="release", name="mpq5")
    assert wait_for(lambda: host.running() == {"mpq5"}) < 5.0
    assert not (host.holds / "mpq5.json").exists()
    assert host.log() == ["start mpq5", "stop mpq5", "start mpq5"]
    assert host.stop() == 0


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        ({"op": "hold", "name": "mpq7", "reason": "x"}, "there is no instance mpq7; there are mpq5"),
        ({"op": "hold", "name": "../x", "reason": "x"}, "there is no instance ../x; there are mpq5"),
        ({"op": "hold", "name": 5, "reason": "x"}, "name: expected"),
        ({"op": "hold", "name": "mpq5"}, "reason: expected"),
        ({"op": "hold", "name": "mpq5", "reason": "two\nlines"}, "reason: expected"),
        ({"op": "hold", "name": "mpq5", "reason": "x" * 201}, "reason: expected"),
        ({"op": "hold", "name": "mpq5", "reason": "x", "for_seconds": 0}, "for_seconds: expected"),
        ({"op": "hold", "name": "mpq5", "reason": "x", "for_seconds": True}, "for_seconds: expected"),
        ({"op": "hold", "name": "mpq5", "reason": "x", "for_seconds": float("inf")}, "for_seconds: expected"),
        ({"op": "hold", "name": "mpq5", "reason": "x", "for_seconds": float("nan")}, "for_seconds: expected"),
        ({"op": "release", "name": "mpq5"}, "mpq5 is not held"),
        ({"op": "get", "what": "status"}, "what: expected"),
        ({"op": "reboot"}, "op: expected"),
    ],
)  # fmt: skip
def test_requests_that_are_wrong_change_nothing_and_say_why(refusing: Host, request_: Any, answer: str) -> None:
    with pytest.raises(control_client.ControlError, match=re.escape(answer)):
        refusing.say(**request_)
    assert list(refusing.holds.iterdir()) == []


def test_a_hold_survives_a_crash_of_linkd_and_ends_when_its_time_is_over(host: Host) -> None:
    host.add("mpq5", "wan5")
    bring_up()
    host.start()
    wait_for(lambda: host.running() == {"mpq5"})
    host.say(op="hold", name="mpq5", reason="x", for_seconds=6)
    wait_for(lambda: not host.running())
    host.kill()
    host.bus.log.clear()
    host.start()
    wait_for(lambda: host.state("mpq5") == "held")
    host.ask(b"renew wan5")  # Another thing to do, so that it has been all around.
    wait_for(lambda: "renew wan5" in host.log())
    assert "start mpq5" not in host.log()
    wait_for(lambda: host.running() == {"mpq5"}, 8)
    assert not (host.holds / "mpq5.json").exists()
    assert host.stop() == 0
    assert 'linkd.hold_ended instance=mpq5 why="its time is over"' in host.journal()


def test_a_hold_that_ended_while_the_machine_was_off_holds_nothing_and_neither_does_a_broken_record(host: Host) -> None:
    for name in ("mpq5", "mpq6"):
        host.add(name, "wan5")
    keep(host, "mpq5", Hold(by="alice", reason="x", since=100.0, until=200.0))
    (host.holds / "mpq6.json").write_bytes(b'{"by": "al')
    (host.holds / "mpq5.new").write_bytes(b"")
    (host.holds / "notes").mkdir()
    bring_up()
    host.start()
    wait_for(lambda: host.running() == {"mpq5", "mpq6"})
    assert {path.name for path in host.holds.iterdir()} == {"mpq6.json", "notes"}
    assert host.stop() == 0
    assert host.journal().count("linkd.hold_unreadable") == 1


def spoil(host: Host, name: str) -> None:
    """Have the record of a hold be what can't be removed, as on a file system that has become read-only."""
    (host.holds / f"{name}.json").unlink()
    (host.holds / f"{name}.json").mkdir()


def test_instances_start_also_when_the_folder_of_holds_cannot_be_read(host: Host) -> None:
    host.holds.write_text("a file in its place")
    host.add("mpq5", "wan5")
    bring_up()
    host.start()
    wait_for(lambda: host.running() == {"mpq5"})
    assert host.stop() == 0
    assert "linkd.holds_unreadable" in host.journal()


def test_a_hold_ends_with_its_time_although_its_record_cannot_be_removed(host: Host) -> None:
    host.add("mpq5", "wan5")
    bring_up()
    host.start()
    wait_for(lambda: host.running() == {"mpq5"})
    host.say(op="hold", name="mpq5", reason="x", for_seconds=2)
    wait_for(lambda: not host.running())
    spoil(host, "mpq5")
    wait_for(lambda: host.running() == {"mpq5"})
    wait_for(lambda: host.state("mpq5") == "running")
    assert host.journal().count("linkd.record_not_removed") == 1
    (host.holds / "mpq5.json").rmdir()
    assert host.stop() == 0


def test_a_hold_that_cannot_be_ended_keeps_linkd_no_busier_than_any_other(host: Host) -> None:
    host.add("mpq5", "wan5")
    bring_up()
    host.start()
    wait_for(lambda: host.running() == {"mpq5"})
    host.say(op="hold", name="mpq5", reason="x")
    wait_for(lambda: not host.running())
    host.wait_until_it_has_looked()
    spoil(host, "mpq5")
    host.bus.set("mpq5", "active", "running")
    wait_for(lambda: "linkd.hold_not_ended" in host.journal())
    looks = host.bus.looks
    time.sleep(1.0)  # the time that is measured
    assert host.bus.looks <= looks + 2
    assert host.stop() == 0


def test_a_start_by_hand_ends_a_hold_also_while_linkd_does_not_run(host: Host) -> None:
    for name in ("mpq5", "mpq6"):
        host.add(name, "wan5")
    bring_up()
    host.start()
    wait_for(lambda: host.running() == {"mpq5", "mpq6"})
    for name in ("mpq5", "mpq6"):
        host.say(op="hold", name=name, reason="x")
    wait_for(lambda: not host.running())
    host.say(op="get", what="instances")
    wait_for(lambda: host.log().count("stop mpq6") == 1)
    host.wait_until_it_has_looked()
    host.bus.set("mpq5", "active", "running")
    wait_for(lambda: host.state("mpq5") == "running")
    assert host.stop() == 0
    host.bus.set("mpq6", "active", "running")
    host.start()
    wait_for(lambda: host.state("mpq6") == "running")
    assert host.running() == {"mpq5", "mpq6"}
    assert list(host.holds.iterdir()) == []
    assert host.stop() == 0
    assert host.journal().count('why="systemctl start mpquic@mpq') == 2


def test_what_was_held_and_has_run_since_before_is_stopped_by_the_next_linkd(host: Host) -> None:
    host.add("mpq5", "wan5")
    bring_up()
    host.bus.set("mpq5", "active", "running")
    keep(host, "mpq5", Hold(by="alice", reason="x", since=time.time() + 1))
    host.start()
    wait_for(lambda: not host.running())
    assert host.state("mpq5") == "held"
    assert host.stop() == 0


def test_a_hold_that_is_released_while_there_is_no_bus_ends_nothing_else(host: Host) -> None:
    host.add("mpq5", "wan5")
    bring_up()
    host.bus.set("mpq5", "active", "running")
    keep(host, "mpq5", Hold(by="alice", reason="x", since=time.time() - 60))
    host.bus.stop()
    host.start()
    wait_for(lambda: "linkd.unknown_state" in host.journal())
    host.say(op="release", name="mpq5")
    host.bus.start()
    wait_for(lambda: host.bus.subscribed == 1)
    wait_for(lambda: host.state("mpq5") == "running")
    assert host.stop() == 0
    assert host.journal().count("linkd.started") == 1
    assert "stop mpq5" not in host.log()


def test_a_masked_instance_is_not_tried_and_is_up_at_once_when_the_mask_is_gone(host: Host) -> None:
    host.add("mpq5", "wan5")
    host.bus.masked.add("mpq5")
    bring_up()
    host.start()
    wait_for(lambda: host.state("mpq5") == "masked")
    with pytest.raises(control_client.ControlError, match="systemctl unmask mpquic@mpq5"):
        host.say(op="release", name="mpq5")
    assert host.log() == []
    host.bus.mask("mpq5", masked=False)
    assert wait_for(lambda: host.running() == {"mpq5"}) < 5.0
    # A mask without --now leaves it running.
    host.bus.mask("mpq5", masked=True)
    host.bus.set("mpq5", "active", "running")
    wait_for(lambda: host.state("mpq5") == "running")
    host.bus.set("mpq5", "inactive", "dead")
    wait_for(lambda: host.state("mpq5") == "masked")
    assert host.log() == ["start mpq5"]
    assert host.stop() == 0
    assert "error" not in host.journal()


def test_an_instance_that_is_stopped_is_started_again_and_the_journal_names_the_hold(host: Host) -> None:
    host.add("mpq5", "wan5")
    bring_up()
    host.bus.set("mpq5", "active", "running")
    host.start()
    wait_for(lambda: host.state("mpq5") == "running")
    host.bus.set("mpq5", "inactive", "dead")
    wait_for(lambda: host.running() == {"mpq5"})
    assert host.stop() == 0
    assert "mpquicctl hold mpq5" in host.journal()


def test_an_instance_that_is_disabled_is_stopped_and_enabled_again_started(host: Host) -> None:
    host.add("mpq5", "wan5")
    bring_up()
    host.start()
    wait_for(lambda: host.running() == {"mpq5"})
    host.add("mpq5", "wan5", enabled=False)
    host.look_again()
    wait_for(lambda: host.state("mpq5") == "disabled" and not host.running())
    with pytest.raises(control_client.ControlError, match="enabled: false"):
        host.say(op="release", name="mpq5")
    host.add("mpq5", "wan5", enabled=True)
    host.look_again()
    wait_for(lambda: host.running() == {"mpq5"})
    assert host.stop() == 0


def test_a_failing_instance_shows_so_and_a_hold_ends_the_tries(host: Host) -> None:
    host.add("mpq5", "wan5")
    host.bus.failing.add("mpq5")
    bring_up()
    host.start()
    wait_for(lambda: host.state("mpq5") == "failing")
    tried = host.log().count("start mpq5")
    wait_for(lambda: host.log().count("start mpq5") == tried + 1, 12)
    host.say(op="hold", name="mpq5", reason="the card is broken")
    wait_for(lambda: "stop mpq5" in host.log() and host.bus.units["mpq5"].active == "inactive")
    host.bus.failing.clear()
    host.say(op="release", name="mpq5")
    wait_for(lambda: host.running() == {"mpq5"})
    assert host.stop() == 0


def test_linkd_goes_on_when_the_bus_is_back(host: Host) -> None:
    host.add("mpq5", "wan5")
    bring_up()
    host.start()
    wait_for(lambda: host.running() == {"mpq5"})
    host.bus.stop()
    wait_for(lambda: "linkd.unknown_state" in host.journal())
    host.bus.set("mpq5", "inactive", "dead")
    host.bus.start()
    wait_for(lambda: host.bus.subscribed == 2)
    wait_for(lambda: host.running() == {"mpq5"}, 12)  # It had run for less than 10 s.
    host.bus.set("mpq5", "inactive", "dead")
    wait_for(lambda: host.running() == {"mpq5"}, 12)
    assert host.stop() == 0


def test_a_signal_that_another_process_sends_does_not_end_the_connection(host: Host) -> None:
    host.add("mpq5", "wan5")
    host.start()
    wait_for(lambda: host.bus.subscribed == 1)
    for body in ((), ("org.freedesktop.systemd1", "", ":1.9")):
        host.bus.send_signal(
            "/org/freedesktop/DBus", "org.freedesktop.DBus", "NameOwnerChanged", "s" * len(body), body, sender=":1.66"
        )
    bring_up()
    wait_for(lambda: host.running() == {"mpq5"})
    assert host.bus.subscribed == 1
    owner = ("org.freedesktop.systemd1", "", ":1.9")
    host.bus.send_signal(
        "/org/freedesktop/DBus", "org.freedesktop.DBus", "NameOwnerChanged", "sss", owner, sender="org.freedesktop.DBus"
    )
    wait_for(lambda: host.bus.subscribed == 2)
    assert host.stop() == 0


def test_requests_that_come_together_make_one_connection(host: Host) -> None:
    async def ask() -> None:
        control = Systemd(lambda: None)
        await asyncio.gather(*(control.units() for _ in range(5)))
        await control.close()

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DBUS_SYSTEM_BUS_ADDRESS", host.bus.address)
        asyncio.run(ask())
    assert host.bus.subscribed == 1


def test_linkd_says_that_polkit_has_gone_and_goes_on_when_it_is_back(host: Host) -> None:
    host.add("mpq5", "wan5")
    bring_up()
    host.bus.set("mpq5", "active", "running")
    host.start()
    wait_for(lambda: host.state("mpq5") == "running")
    host.bus.polkit = False
    host.bus.set("mpq5", "inactive", "dead")
    wait_for(lambda: "polkit" in str(host.say(op="get", what="instances")["problem"]))
    host.bus.polkit = True
    host.look_again()
    wait_for(lambda: host.say(op="get", what="instances")["problem"] is None)
    wait_for(lambda: host.running() == {"mpq5"}, 12)
    assert host.stop() == 0
    assert "linkd.systemd_failed" not in host.journal()


def test_linkd_says_that_polkit_refuses_and_goes_on_when_it_no_longer_does(host: Host) -> None:
    host.add("mpq5", "wan5")
    host.bus.allowed = False
    bring_up()
    host.start()
    wait_for(lambda: "polkit" in str(host.say(op="get", what="instances")["problem"]))
    assert host.running() == set()
    host.bus.allowed = True
    host.look_again()
    wait_for(lambda: host.say(op="get", what="instances")["problem"] is None)
    wait_for(lambda: host.running() == {"mpq5"}, 12)
    assert host.stop() == 0
    assert host.journal().count("linkd.not_allowed") == 1


@pytest.mark.parametrize(
    ("family", "change"),
    [
        (socket.AF_INET, ("addr", "replace", "10.150.19.95/24", "dev", "wan5")),
        (
            socket.AF_INET6,
            ("addr", "replace", "2001:db8:5::95/64", "dev", "wan5", "valid_lft", "999", "preferred_lft", "900"),
        ),
    ],
    ids=["IPv4", "IPv6"],
)
@pytest.mark.usefixtures("host")
def test_an_address_set_anew_by_the_lease_has_another_stamp(family: int, change: tuple[str, ...]) -> None:
    def stamp() -> int:
        code = (
            "import socket; from mpquic.linkd.leases import address_stamp;"
            f"print(address_stamp(socket.if_nametoindex('wan5'), {int(family)}))"
        )
        command = ["ip", "netns", "exec", NAMESPACE, sys.executable, "-c", code]
        return int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout)

    ip("link", "set", "wan5", "up")
    assert stamp() == 0, "an address of the link alone is no lease"
    ip(*change)
    first = stamp()
    assert first > 0
    assert stamp() == first
    ip(*change)
    assert stamp() > first
