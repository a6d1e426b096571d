"""A whole lab of its own name, from nothing to nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root

NAME = "labtest"
PROJECT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"MPQLAB_NAME": NAME}
FIRST_TIME_SECONDS = 900.0
PYTHON = "ansible_python_interpreter=/usr/bin/python3"


def mpqlab(
    *arguments: str, timeout: float = 180.0, check: bool = True, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command for the lab of this test."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from mpqlab.cli import main; sys.exit(main())", "--quiet", *arguments],
        env=ENVIRONMENT | (environment or {}),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert not check or done.returncode == 0, f"mpqlab {' '.join(arguments)}: {done.stderr}"
    return done


def ansible(*arguments: str, pipelining: str = "1") -> subprocess.CompletedProcess[str]:
    """Let Ansible call its module `ping` on all hosts."""
    return subprocess.run(
        [str(Path(sys.executable).with_name("ansible")), "all", "-m", "ping", *arguments],
        env=ENVIRONMENT | {"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_PIPELINING": pipelining},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def shell(node: str, script: str) -> str:
    return mpqlab("exec", node, "--", "sh", "-c", script).stdout.strip()


def link(name: str) -> dict[str, Any]:
    links = json.loads(mpqlab("status", "--json").stdout)["links"]
    return next(entry for entry in links if entry["wan"] == name)


def own_network() -> list[str]:
    """Return what the controller's own network is made of, without what changes by itself."""
    shown = [subprocess.check_output(["ip", *words], text=True) for words in (("-br", "link"), ("route",), ("rule",))]
    keys = ("ipv4/ip_forward", "ipv4/conf/all/rp_filter", "ipv6/conf/all/forwarding")
    return [*shown, *(Path("/proc/sys/net", key).read_text() for key in keys)]


def traces() -> list[str]:
    """Return what a lab of this name has left on the controller."""
    found = [str(path) for path in (Path("/run", NAME), Path("/var/lib", NAME)) if path.exists()]
    if Path("/run/netns").is_dir():
        found += [str(path) for path in Path("/run/netns").glob(f"{NAME}-*")]
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"/{NAME}" in line]
    found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{NAME}-*")]
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = command.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"{NAME}-" in words or f"/{NAME}/" in words:
            found.append(words)
    return found


@pytest.fixture(scope="module")
def lab() -> Iterator[list[str]]:
    """Start the lab; the value is what the controller's network was before."""
    if os.geteuid() != 0:
        pytest.fail("This test makes machines and network namespaces: run it as root.")
    before = own_network()
    mpqlab("down")
    assert mpqlab("up", timeout=FIRST_TIME_SECONDS).stdout == "started (Debian bookworm)\n"
    yield before
    mpqlab("down")
    assert traces() == []


@pytest.mark.usefixtures("lab")
class TestRunningLab:
    """Behaviour of one running lab; each test leaves it as it was."""

    def test_both_machines_have_booted_without_a_failed_unit(self) -> None:
        nodes = {node["name"]: node for node in json.loads(mpqlab("status", "--json").stdout)["nodes"]}
        assert nodes["client"]["state"] == "running"
        assert nodes["vps"]["state"] == "running"

    def test_starting_again_is_quick_and_changes_nothing(self) -> None:
        leader = shell("client", "cat /proc/sys/kernel/random/boot_id; stat -c %Y /proc/1")
        seconds = []
        # Three times, since another process may have had the processor in one of them.
        for _ in range(3):
            started = time.monotonic()
            assert mpqlab("up").stdout == "running already (Debian bookworm)\n"
            seconds.append(time.monotonic() - started)
        assert min(seconds) < 5.0
        assert shell("client", "cat /proc/sys/kernel/random/boot_id; stat -c %Y /proc/1") == leader

    def test_the_client_is_a_bare_host_as_the_installer_leaves_it(self) -> None:
        assert shell("client", "hostname") == "site1-client"
        assert "10.10.11.100/24" in shell("client", "ip -4 -br address show enp6s18")
        assert shell("client", "systemctl is-enabled networking systemd-networkd || true").split() == [
            "enabled",
            "disabled",
        ]
        assert shell("client", "stat -c %a /dev/net/tun") == "666"

    def test_the_client_has_no_device_for_wan1_and_no_carrier_on_wan2(self) -> None:
        devices = shell("client", "ls /sys/class/net").split()
        assert "enp7s3" not in devices
        assert {"enp7s4", "enp7s5", "enp7s6", "enp7s7", "enp7s8"} <= set(devices)
        assert (
            shell("client", "ip link set enp7s4 up; cat /sys/class/net/enp7s4/carrier; ip link set enp7s4 down") == "0"
        )

    def test_the_vps_reaches_the_internet_by_name_from_its_own_address(self) -> None:
        assert shell("vps", "curl -4 -sS -m 20 http://internet.example.net/ip") == "203.0.113.10"
        assert shell("vps", "curl -6 -sS -m 20 http://internet.example.net/ip") == "2001:db8:113::10"

    def test_the_internet_knows_no_way_to_inner_addresses(self) -> None:
        for address in ("10.200.5.1", "172.16.5.2", "192.168.105.2", "10.150.19.95"):
            assert "unreachable" in shell("internet", f"ip route get {address} 2>&1 || true")

    def test_a_host_has_no_way_around_the_client(self) -> None:
        answered = mpqlab("exec", "host5", "--", "ping", "-c", "1", "-W", "1", "192.0.2.80", check=False)
        assert answered.returncode == 1

    def test_the_exit_status_of_a_command_is_passed_on(self) -> None:
        for node in ("client", "mgmt"):
            assert mpqlab("exec", node, "--", "sh", "-c", "exit 7", check=False).returncode == 7

    def test_an_unplugged_device_disappears_and_comes_back_as_the_same(self) -> None:
        before = shell("client", "cat /sys/class/net/enp7s7/address")
        mpqlab("link", "unplug", "wan5")
        assert "enp7s7" not in shell("client", "ls /sys/class/net").split()
        assert link("wan5")["plugged"] is False
        mpqlab("link", "plug", "wan5")
        assert shell("client", "cat /sys/class/net/enp7s7/address") == before

    def test_settings_apply_to_the_named_direction_and_a_wrong_key_changes_nothing(self) -> None:
        mpqlab("link", "set", "wan6", "up.loss_percent=5")
        refused = mpqlab("link", "set", "wan6", "up.loss_percent=9", "down.los_percent=9", check=False)
        assert refused.returncode == 1
        assert "did you mean loss_percent?" in refused.stderr
        settings = link("wan6")["settings"]
        assert (settings["up"]["loss_percent"], settings["down"]["loss_percent"]) == (5.0, 0.0)
        mpqlab("link", "set", "wan6", "loss_percent=0")

    def test_a_cut_is_silent_and_ends(self) -> None:
        def answers(seconds: int) -> str:
            return shell("vps", f"ping -c 1 -W {seconds} 198.51.100.4 2>&1 | grep -c 'bytes from' || true")

        assert answers(10) == "1"
        mpqlab("link", "cut", "wan4", "down")
        assert answers(1) == "0"
        assert link("wan4")["cut"] == "down"
        mpqlab("link", "heal", "wan4")
        assert answers(10) == "1"

    def test_renumbering_moves_gateway_and_public_address_there_and_back(self) -> None:
        before = link("wan5")
        mpqlab("link", "renumber", "wan5", "--flap")
        after = link("wan5")
        assert (before["gateway"], before["public"]) == ("10.150.19.1/24", "198.51.100.5")
        assert (after["gateway"], after["public"]) == ("10.150.20.1/24", "198.51.100.105")
        assert "198.51.100.5 " not in shell("internet", "ip route show dev wan5")
        mpqlab("link", "renumber", "wan5")
        assert link("wan5")["public"] == "198.51.100.5"

    def test_ansible_reaches_the_machines_with_and_without_pipelining(self) -> None:
        for pipelining in ("1", "0"):
            node = f"ansible_connection=mpqlab_node mpqlab_node=client {PYTHON}"
            done = ansible("-i", "client,", "-e", node, pipelining=pipelining)
            assert "pong" in done.stdout, done.stdout + done.stderr

    def test_a_bare_node_has_python_and_root_and_no_systemd(self) -> None:
        assert shell("bare", "id -u; cat /proc/1/comm") == "0\nsh"
        assert shell("bare", "systemctl is-system-running || true") == "offline"
        done = ansible("-i", "bare1,", "-e", f"ansible_connection=mpqlab_node mpqlab_node=bare {PYTHON}")
        assert "pong" in done.stdout, done.stdout + done.stderr
        shell("bare", f"echo kept > /etc/{NAME}")
        assert shell("bare", f"cat /etc/{NAME}") == "kept"
        assert not Path("/etc", NAME).exists()

    def test_another_choice_of_device_names_is_refused_while_the_lab_runs(self) -> None:
        for words in (["up"], ["status"], ["exec", "client", "--", "true"]):
            refused = mpqlab(*words, check=False, environment={"MPQLAB_NICS": "eth"})
            assert refused.returncode == 1
            assert "set MPQLAB_NICS to reference or leave it out" in refused.stderr

    def test_the_controller_has_no_way_in_by_ssh_before_it_is_asked_for(self) -> None:
        refused = mpqlab("ssh", "client", "--", "true", check=False)
        assert "`mpqlab up --ssh` makes it" in refused.stderr

    def test_the_controller_comes_in_as_a_sudo_user_with_the_umask_that_was_asked_for(self) -> None:
        assert mpqlab("up", "--ssh", "--umask", "077").stdout == "started (Debian bookworm)\n"
        assert mpqlab("up", "--ssh", "--umask", "077").stdout == "running already (Debian bookworm)\n"
        for machine in ("client", "vps"):
            said = mpqlab("ssh", machine, "--", "id -un; umask; sudo sh -c 'id -un; umask'; hostname").stdout.split()
            hostname = {"client": "site1-client", "vps": "vps1"}[machine]
            assert said == ["operator", "0077", "root", "0077", hostname]
        mpqlab("up", "--ssh")
        assert mpqlab("ssh", "client", "--", "umask; sudo sh -c umask").stdout.split() == ["0022", "0022"]

    def test_ansible_comes_in_by_ssh_and_by_the_key_alone(self) -> None:
        mpqlab("up", "--ssh")
        over_ssh = ["-i", str(PROJECT / "inventories/lab"), "-i", f"/run/{NAME}/ssh.yml", "-e", PYTHON]
        for pipelining in ("1", "0"):
            done = ansible(*over_ssh, "--become", pipelining=pipelining)
            assert done.stdout.count("pong") == 2, done.stdout + done.stderr
        assert list(Path("/run", NAME, "ssh/control").iterdir()), "Ansible keeps its connections in the lab's folder"
        refused = ["-o", "PubkeyAuthentication=no", "-o", "ControlPath=none", "operator@203.0.113.10", "true"]
        done = subprocess.run(
            [Path(sys.executable).with_name("mpqlab-ssh"), *refused],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Permission denied (publickey" in done.stderr

    def test_a_machine_with_another_host_key_is_not_trusted(self) -> None:
        mpqlab("up", "--ssh")
        known = Path("/run", NAME, "ssh/known_hosts")
        kept = known.read_text()
        known.write_text(kept.replace("203.0.113.10", "203.0.113.99"))
        refused = mpqlab("ssh", "vps", "--", "true", check=False)
        known.write_text(kept)
        assert "Host key verification failed" in refused.stderr

    def test_a_site_that_is_off_refuses_the_connection(self) -> None:
        mpqlab("up", "--ssh")
        done = ansible(
            *("-i", "off,", "-i", f"/run/{NAME}/ssh.yml", "-l", "off"),
            *("-e", "ansible_connection=ssh ansible_host=10.10.11.254"),
        )
        assert done.returncode == 4
        assert "Connection refused" in done.stdout + done.stderr

    def test_the_client_has_no_internet_by_the_controller(self) -> None:
        for address in ("192.0.2.80", "192.0.2.1", "203.0.113.10"):
            shell("client", f"ip route replace {address} via 10.10.11.1")
            assert shell("client", f"ping -c 2 -i 0.2 -W 1 {address} | grep -c 'bytes from' || true") == "0"
            shell("client", f"ip route delete {address}")
        assert shell("mgmt", "ping -c 1 -W 10 203.0.113.10 >/dev/null && echo there") == "there"

    def test_a_program_that_was_seeded_is_back_after_a_reboot_and_can_be_removed(self) -> None:
        mpqlab("seed", "vps", "docker", "ufw")
        fetch = "curl -sS -m 10 http://203.0.113.10:8080"
        assert shell("internet", fetch) == "answer of the container"
        mpqlab("reboot", "vps")
        assert shell("internet", fetch) == "answer of the container"
        assert shell("vps", "ip netns exec web curl -sS -m 10 http://192.0.2.80/ip") == "203.0.113.10"
        assert shell("vps", "systemctl list-units --failed --plain --no-legend") == ""
        mpqlab("seed", "vps", "docker", "ufw", "--remove")
        assert shell("vps", "nft list ruleset; ip netns list; ls /sys/class/net").split() == ["ens18", "lo"]

    def test_files_of_netplan_come_back_as_long_as_its_generator_is_there(self) -> None:
        mpqlab("seed", "client", "netplan", "hardening")
        shell("client", "rm /run/systemd/network/10-netplan-*; echo 1 > /proc/sys/net/ipv4/ip_forward")
        mpqlab("reboot", "client")
        assert shell("client", "ls /run/systemd/network").split() == [
            "10-netplan-all-en.network",
            "10-netplan-enp7s7.network",
        ]
        values = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/all/rp_filter"
        assert shell("client", values).split() == ["0", "1"]
        assert "10.10.11.100/24" in shell("client", "ip -4 -br address show enp6s18")

    def test_managers_of_the_network_run_until_they_are_removed(self) -> None:
        programs = ("networkmanager", "dhcpcd", "cloud-init")
        units = "NetworkManager dhcpcd cloud-init"
        mpqlab("seed", "client", *programs)
        assert shell("client", f"systemctl is-active {units}; systemctl is-enabled {units}").split() == [
            *["active"] * 3,
            *["enabled"] * 3,
        ]
        shell("client", "rm /etc/netplan/50-cloud-init.yaml")
        mpqlab("reboot", "client")
        assert shell("client", f"systemctl is-active {units}").split() == ["active"] * 3
        assert "enp7s7" in shell("client", "cat /etc/netplan/50-cloud-init.yaml")
        mpqlab("seed", "client", *programs, "--remove")
        assert shell("client", f"systemctl is-active {units} || true").split() == ["inactive"] * 3

    def test_where_netplan_is_alone_the_client_keeps_its_management_by_networkd(self) -> None:
        mpqlab("seed", "client", "netplan-alone")
        there = "ping -c 1 -W 10 10.10.11.100 >/dev/null && ping -c 1 -W 10 10.10.10.100 >/dev/null && echo there"
        assert shell("mgmt", there) == "there"
        mpqlab("reboot", "client")
        assert shell("mgmt", there) == "there"
        assert "routable" in shell("client", "networkctl --no-legend list enp6s18")

    def test_a_reboot_keeps_files_and_forgets_what_the_kernel_knew(self) -> None:
        shell(
            "client", "echo kept > /root/file; ip tuntap add mpq9 mode tun; ip rule add table 99; nft add table inet x"
        )
        mpqlab("link", "unplug", "wan6")
        mpqlab("reboot", "client")
        assert shell("client", "cat /root/file") == "kept"
        devices = shell("client", "ls /sys/class/net").split()
        assert "mpq9" not in devices
        assert "enp7s8" not in devices, "what was unplugged stays so"
        assert "lookup 99" not in shell("client", "ip rule")
        assert shell("client", "nft list tables") == ""
        assert shell("mgmt", "ping -c 1 -W 10 10.10.11.100 >/dev/null && echo there") == "there"
        mpqlab("link", "plug", "wan6")

    def test_a_machine_that_went_off_by_itself_is_started_again(self) -> None:
        shell("vps", "ip tuntap add mpq9 mode tun")
        mpqlab("exec", "vps", "--", "systemctl", "poweroff", check=False)
        wait_for(lambda: mpqlab("exec", "vps", "--", "true", check=False).returncode != 0, 60.0, "the machine is off")
        refused = mpqlab("exec", "vps", "--", "true", check=False)
        assert "the machine vps isn't running: start it again with `mpqlab up`" in refused.stderr
        assert mpqlab("up").stdout == "started (Debian bookworm)\n"
        assert shell("vps", "systemctl is-system-running; ls /sys/class/net").split() == ["running", "ens18", "lo"]

    def test_the_controllers_own_network_is_as_before(self, lab: list[str]) -> None:
        assert own_network() == lab


@pytest.mark.usefixtures("lab")
def test_down_cleans_up_when_the_records_are_lost_and_twice_is_no_error() -> None:
    mpqlab("up", "--ssh")
    ansible("-i", str(PROJECT / "inventories/lab"), "-i", f"/run/{NAME}/ssh.yml", "-e", PYTHON)
    assert [line for line in traces() if "[mux]" in line], "Ansible's connections are still open"
    for record in Path("/run", NAME, "processes").iterdir():
        record.unlink()
    assert mpqlab("down").stdout == "stopped\n"
    assert traces() == []
    assert mpqlab("down").stdout == "nothing to stop\n"
