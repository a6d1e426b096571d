"""The linkd process in a namespace: veth devices stand for modems, scripts on PATH for systemctl and networkctl."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2"),
]
NAMESPACE = f"shet-linkd-{os.getpid()}"

# A service manager in files: one for each running unit, and a log of all that was asked.
SYSTEMCTL = """#!/bin/sh
case "$1" in
list-units)
    for unit in {state}/mpquic@*; do [ -e "$unit" ] && echo "${{unit##*/}} loaded active running x"; done
    exit 0 ;;
start) touch "{state}/$3"; echo "start $3" >> {state}/log ;;
stop) rm -f "{state}/$3"; echo "stop $3" >> {state}/log ;;
esac
"""
NETWORKCTL = """#!/bin/sh
echo "$1 $2" >> {state}/log
"""
CLIENT = {
    "role": "client",
    "site": "site1",
    "inner_addresses": ["10.200.5.1/32"],
    "remote_addr": "203.0.113.10",
    "remote_port": 45005,
    "tls": {"ca_file": "/a", "cert_file": "/b", "key_file": "/c", "server_name": "vps1"},
}


def ip(*arguments: str) -> None:
    subprocess.run(["ip", "-n", NAMESPACE, *arguments], check=True, capture_output=True)


def wait_for(condition: Callable[[], bool], seconds: float = 5.0) -> float:
    """Wait for a state; return how long it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "not reached in time"
        time.sleep(0.02)
    return time.monotonic() - began


class Host:
    """linkd with its instances, units and request socket."""

    def __init__(self, directory: Path) -> None:
        self.state = directory / "state"
        self.instances = directory / "instances"
        self.request = directory / "request"
        self.tools = tools = directory / "bin"
        for path in (self.state, self.instances, tools):
            path.mkdir()
        for name, text in (("systemctl", SYSTEMCTL), ("networkctl", NETWORKCTL)):
            (tools / name).write_text(text.format(state=self.state))
            (tools / name).chmod(0o755)
        self.environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "MPQUIC_RUNTIME_DIR": str(directory)}
        self.process: subprocess.Popen[bytes] | None = None
        self.output = (directory / "output").open("w+")

    def add(self, name: str, device: str) -> None:
        data = {**CLIENT, "name": name, "tun_name": name, "bind_ip": f"iface:{device}"}
        (self.instances / f"{name}.yml").write_text(yaml.safe_dump(data))

    def start(self) -> None:
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", NAMESPACE, sys.executable, "-m", "mpquic.linkd", "--instances-dir", self.instances,
             "--request-socket", self.request],
            env=self.environment, stderr=self.output,
        )  # fmt: skip
        wait_for(self.request.exists)

    def running(self) -> set[str]:
        return {path.name for path in self.state.glob("mpquic@*")}

    def log(self) -> list[str]:
        path = self.state / "log"
        return path.read_text().splitlines() if path.exists() else []

    def ask(self, datagram: bytes) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as requests:
            requests.sendto(datagram, str(self.request))

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(5)


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
        found.output.close()
    finally:
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=True)


def bring_up() -> None:
    ip("link", "set", "wan5", "up")
    ip("addr", "replace", "10.150.19.95/24", "dev", "wan5")
    ip("route", "replace", "default", "via", "10.150.19.1", "dev", "wan5", "table", "105")


def test_an_instance_starts_within_a_second_of_its_wan_and_others_stay_as_they_are(host: Host) -> None:
    host.add("mpq5", "wan5")
    host.add("mpq1", "wan1")
    host.start()
    ip("link", "set", "wan5", "up")
    ip("addr", "add", "10.150.19.95/24", "dev", "wan5")
    time.sleep(0.3)  # Nothing may happen: an address without a default route is no WAN.
    assert host.running() == set()
    bring_up()
    assert wait_for(lambda: host.running() == {"mpquic@mpq5.service"}) < 1.0
    assert host.log() == ["start mpquic@mpq5.service"]
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
        wait_for(lambda: host.running() == {"mpquic@mpq5.service"})
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
    host.ask(b"renew wan5")  # Too soon.
    time.sleep(8.2)  # The pause between two renewals of a device.
    host.ask(b"renew wan5")
    wait_for(lambda: "reconfigure wan5" in host.log())
    assert host.log() == ["start mpquic@mpq5.service", "renew wan5", "reconfigure wan5"]
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
    # A renewal of wan5 that hangs until the file is there.
    (host.tools / "networkctl").write_text(
        f'#!/bin/sh\n[ "$2" = wan6 ] || until [ -e {host.state}/go ]; do sleep 0.02; done\n'
        f'echo "$1 $2" >> {host.state}/log\n'
    )
    host.start()
    wait_for(lambda: len(host.running()) == 2)
    for device in ("wan5", "wan6"):
        host.ask(f"renew {device}".encode())
    wait_for(lambda: "renew wan6" in host.log())
    assert "renew wan5" not in host.log()
    (host.state / "go").touch()
    wait_for(lambda: "renew wan5" in host.log())
    assert host.stop() == 0


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
