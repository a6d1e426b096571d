"""The role openwrt on a router that consists of busybox, dropbear and a stand-in for `uci`, over ssh without a network.

ssh's ProxyCommand starts dropbear, as an inetd would, in the router's file system, on one end of a pair of sockets.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mpquic_plan
import pytest
import yaml
from mpquic_plan.openwrt import uci
from waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
ANSIBLE = Path(sys.executable).with_name("ansible-playbook")
PACKAGES = ("network", "firewall", "mwan3")
PROGRAMS = ("busybox", "dropbear", "dropbearkey", "ssh-keygen")

pytestmark = [
    pytest.mark.root,
    pytest.mark.waits,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not all(map(shutil.which, PROGRAMS)), reason="busybox and dropbear aren't installed"),
]

PLAY = """
- hosts: router
  gather_facts: false
  roles: [openwrt]
"""
ENTER = """#!/bin/sh -e
# Runs a program in the router: its file system, without a network.
exec unshare --mount --net --propagation private /bin/sh -ec '
    root=$1; shift
    mount --bind /usr "$root/usr"; mount --bind /dev "$root/dev"; mount -t proc proc "$root/proc"
    exec chroot "$root" "$@"' sh "$(dirname "$0")/root" "$@"
"""
PROXY = """
import socket, subprocess, sys

near, far = socket.socketpair()
server = [sys.argv[1], "/usr/sbin/dropbear", "-i", "-r", "/etc/host_key"]
subprocess.Popen(server, stdin=far, stdout=far, stderr=subprocess.DEVNULL)
socket.send_fds(socket.socket(fileno=1), [b" "], [near.fileno()])
"""
SERVICE = """#!/bin/sh
# Notes what is asked of it; fails where a test wants that; runs what a test has put there.
echo "${0##*/} $1" >>/var/asked
[ ! -e "/etc/fails-${0##*/}" ] || { rm "/etc/fails-${0##*/}"; exit 1; }
[ ! -e "/etc/then-${0##*/}" ] || . "/etc/then-${0##*/}"
"""
# What a person has configured, with the sections that OpenWrt has by itself.
THEIRS = {
    "network": """
config interface 'loopback'
	option device 'lo'
	option proto 'static'
	option ipaddr '127.0.0.1'
	option netmask '255.0.0.0'

config device
	option name 'br-lan'
	option type 'bridge'
	list ports 'eth0'

config interface 'lan'
	option device 'br-lan'
	option proto 'static'
	option ipaddr '192.168.1.1'
	option netmask '255.255.255.0'
""",
    "firewall": """
config defaults
	option input 'REJECT'

config zone
	option name 'lan'
	list network 'lan'
	option input 'ACCEPT'

config rule
	option name 'O'\\''Neill "quotes"; #1 \\ $HOME'
	option src 'lan'
	option target 'ACCEPT'
""",
    "mwan3": """
config globals 'globals'
	option mmx_mask '0x3F00'

config rule 'printer'
	option src_ip '192.168.1.9'
	option use_policy 'default'
""",
}


@dataclass
class Router:
    """A router that Ansible reaches by ssh; `slice` is what the plan holds for it."""

    folder: Path
    slice: dict[str, Any]
    variables: dict[str, Any] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def text(self, package: str) -> str:
        return (self.root / "etc/config" / package).read_text()

    def texts(self) -> dict[str, str]:
        return {package: self.text(package) for package in PACKAGES}

    def sections(self, package: str, *, ours: bool = True) -> list[uci.Section]:
        found = uci.parse(f"package {package}\n{self.text(package)}")[package]
        return [section for section in found if section.ours == ours]

    def wanted(self, package: str) -> list[uci.Section]:
        return [uci.section(item) for item in self.slice["packages"][package]]

    def asked(self) -> list[str]:
        """What the services were asked since the last call."""
        path = self.root / "var/asked"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    def run(self, *options: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        given = {"mpquic_slice": self.slice, "openwrt_destdir": str(self.folder / "made"), **variables}
        (self.folder / "variables.json").write_text(json.dumps(given))
        command = [str(ANSIBLE), "-i", "hosts.yml", "play.yml", "-e", "@variables.json", *options]
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),
            "ANSIBLE_LOCAL_TEMP": str(self.folder / "tmp"),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.folder / "cp"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_FORCE_COLOR": "0",
            "COLUMNS": "10000",
        }
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120, check=False
        )


def changed(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether the router was changed, as the run says."""
    assert done.returncode == 0, done.stdout + done.stderr
    return "changed: [router]" in done.stdout


@pytest.fixture(scope="module")
def slices() -> dict[str, Any]:
    folder = ROOT / "inventories/prod/group_vars"
    hosts = {
        "site1-client": yaml.safe_load((folder / "site1/site.yml").read_text()),
        "vps1": yaml.safe_load((folder / "vps/vps.yml").read_text()),
    }
    return mpquic_plan.build_all(hosts).routers


@pytest.fixture
def router(slices: dict[str, Any]) -> Iterator[Router]:
    # The names of ssh's control sockets must be short.
    with tempfile.TemporaryDirectory(prefix="mpq") as name:
        folder = Path(name)
        _make(folder)
        yield Router(folder, copy.deepcopy(slices["site1-router"]))
        subprocess.run(
            ["ssh", "-o", f"ControlPath={folder}/cp/%C", "-O", "exit", "root@router"],
            capture_output=True,
            check=False,
            timeout=10,
        )


def _make(folder: Path) -> None:
    root = folder / "root"
    for name in ("bin", "sbin", "etc/config", "etc/init.d", "root/.ssh", "tmp", "var", "usr", "dev", "proc", "run"):
        (root / name).mkdir(parents=True)
    for name in ("lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, root / "bin/busybox")
    for name in subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if name != "busybox":
            (root / "bin" / name).symlink_to("busybox")
    shutil.copy(Path(__file__).with_name("router") / "uci", root / "sbin/uci")
    for package in PACKAGES:
        (root / "etc/config" / package).write_text(THEIRS[package])
        script = root / "etc/init.d" / package
        script.write_text(SERVICE)
        script.chmod(0o755)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/shells").write_text("/bin/sh\n")
    for command in (
        ["dropbearkey", "-t", "ed25519", "-f", str(root / "etc/host_key")],
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")],
    ):
        subprocess.run(command, capture_output=True, check=True, timeout=30)
    shutil.copy(folder / "key.pub", root / "root/.ssh/authorized_keys")
    for path in (root, root / "root", root / "root/.ssh"):
        path.chmod(0o700)
    enter = folder / "enter"
    enter.write_text(ENTER)
    enter.chmod(0o755)
    (folder / "proxy.py").write_text(PROXY)
    options = {
        "ProxyCommand": f"{sys.executable} {folder}/proxy.py {enter}",
        "ProxyUseFdpass": "yes",
        "UserKnownHostsFile": str(folder / "known_hosts"),
        "StrictHostKeyChecking": "no",
        "IdentitiesOnly": "yes",
    }
    host = {
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(folder / "key"),
        "ansible_ssh_common_args": " ".join(f"-o {key}='{value}'" for key, value in options.items()),
    }
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"router": host}}}))
    (folder / "play.yml").write_text(PLAY)
    shutil.copy(ROOT / "ansible.cfg", folder / "ansible.cfg")
    for name in ("library", "plugins", "roles"):
        (folder / name).symlink_to(ROOT / name)


def _until_gone(path: Path, seconds: float) -> None:
    wait_for(lambda: not path.exists(), seconds, f"{path} is gone")


def test_a_run_makes_our_sections_and_the_second_one_changes_nothing(router: Router) -> None:
    theirs = {package: router.sections(package, ours=False) for package in PACKAGES}
    before = router.texts()
    assert changed(router.run("--check", "--diff"))
    assert router.texts() == before
    assert router.asked() == []

    done = router.run("--diff")
    assert changed(done)
    assert "+config interface 'mpq_l1v11'" in done.stdout
    for package in PACKAGES:
        assert router.sections(package) == router.wanted(package)
        assert router.sections(package, ours=False) == theirs[package]
        assert (router.folder / "made" / package).read_text() == uci.text(package, router.wanted(package))
    assert sorted(router.asked()) == ["firewall reload", "mwan3 reload", "network reload"]
    _until_gone(router.root / "tmp/mpquic-uci", 5)

    after = router.texts()
    assert not changed(router.run())
    assert router.texts() == after
    assert router.asked() == []


def test_what_the_plan_no_longer_has_goes_and_rules_keep_their_order(router: Router) -> None:
    assert changed(router.run())
    router.asked()
    packages = router.slice["packages"]
    first = {
        "type": "rule",
        "name": "mpq_c1_r0",
        "options": {"proto": "udp", "dest_port": "3478", "use_policy": "mpq_c1"},
    }
    place = next(place for place, each in enumerate(packages["mwan3"]) if each["type"] == "rule")
    packages["mwan3"].insert(place, first)
    gone = next(each for each in packages["mwan3"] if each["name"] == "mpq_l6_c3")
    packages["mwan3"].remove(gone)
    for each in packages["mwan3"]:
        if each["type"] == "policy":
            each["options"]["use_member"] = [name for name in each["options"]["use_member"] if name != gone["name"]]
    assert changed(router.run())
    rules = [each for each in router.sections("mwan3", ours=False) if each.type == "rule"]
    assert [each.name for each in rules] == ["printer"]
    ours = [each.name for each in router.sections("mwan3") if each.type == "rule"]
    assert ours == [each["name"] for each in packages["mwan3"] if each["type"] == "rule"]
    assert "mpq_l6_c3" not in router.text("mwan3")
    # Nothing else has changed.
    assert router.asked() == ["mwan3 reload"]
    assert not changed(router.run())


def test_all_sections_of_ours_go_when_that_is_asked(router: Router) -> None:
    theirs = {package: router.sections(package, ours=False) for package in PACKAGES}
    assert changed(router.run())
    assert changed(router.run(openwrt_state="absent"))
    for package in PACKAGES:
        assert router.sections(package) == []
        assert router.sections(package, ours=False) == theirs[package]
    assert not changed(router.run(openwrt_state="absent"))


def test_what_stands_in_the_way_is_named_and_goes_where_that_is_asked(router: Router) -> None:
    others = {
        "mwan3": "config rule 'default_rule_v4'\n\toption dest_ip '0.0.0.0/0'\n\toption use_policy 'balanced'\n",
        "network": "config interface 'wan4'\n\toption device 'eth4'\n\toption ipaddr '172.16.4.2'\n",
    }
    for package, text in others.items():
        with (router.root / "etc/config" / package).open("a") as file:
            file.write(f"\n{text}")
    before = router.texts()
    done = router.run()
    assert done.returncode == 2
    assert "mwan3.default_rule_v4: takes all traffic before our rules are tried" in done.stdout
    assert "network.wan4: has the address 172.16.4.2, which mpq_l4 is to have" in done.stdout
    assert "openwrt_take_over: [network.wan4, mwan3.default_rule_v4]" in done.stdout
    assert router.texts() == before

    assert changed(router.run(openwrt_take_over=["network.wan4", "mwan3.default_rule_v4"]))
    assert {"wan4", "default_rule_v4"} & {
        each.name for name in PACKAGES for each in router.sections(name, ours=False)
    } == set()
    assert not changed(router.run(openwrt_take_over=["network.wan4", "mwan3.default_rule_v4"]))


def test_changes_that_somebody_has_not_committed_are_left_alone(router: Router) -> None:
    (router.root / "tmp/.uci").mkdir()
    (router.root / "tmp/.uci/firewall").write_text("set firewall.lan=zone\n")
    done = router.run()
    assert done.returncode == 2
    assert "somebody has changed firewall and not committed it; commit it (uci commit firewall)" in done.stdout
    assert (router.root / "tmp/.uci/firewall").exists()


def test_a_router_without_mwan3_is_told_what_it_lacks(router: Router) -> None:
    (router.root / "etc/config/mwan3").unlink()
    done = router.run()
    assert done.returncode == 2
    assert "install mwan3 (opkg install mwan3)" in done.stdout


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("uci-refuses", "mpq_c2_r1.dest_port", "uci refused the configuration, and nothing was changed"),
        ("uci-full", "mwan3", "mwan3 could not be committed, and everything is as before"),
        ("fails-firewall", "", "did not take their new configuration, and have the old one again: firewall"),
    ],
)
def test_a_failure_on_the_router_leaves_everything_as_it_was(
    router: Router, file: str, content: str, says: str
) -> None:
    before = router.texts()
    (router.root / "etc" / file).write_text(content)
    done = router.run()
    assert done.returncode == 2
    assert says in done.stdout
    assert router.texts() == before
    assert not list((router.root / "tmp/.uci").iterdir())
    assert not (router.root / "tmp/mpquic-uci").exists()
    (router.root / "etc" / file).unlink(missing_ok=True)
    assert changed(router.run())


def test_a_router_that_nobody_can_reach_any_more_takes_the_change_back(router: Router) -> None:
    before = router.texts()
    # A login works without our sections only, and who is in stays in.
    (router.root / "etc/then-network").write_text(
        "if grep -q mpq_ /etc/config/network; then mv /root/.ssh /root/closed; else mv /root/closed /root/.ssh; fi\n"
    )
    done = router.run(openwrt_confirm_s=3)
    assert done.returncode == 4
    _until_gone(router.root / "tmp/mpquic-uci", 20)
    assert router.texts() == before
    assert router.asked()[-3:] == ["network reload", "firewall reload", "mwan3 reload"]
    (router.root / "etc/then-network").unlink()
    assert changed(router.run())
