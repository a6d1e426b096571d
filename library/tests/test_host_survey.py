"""What the survey reads from programs and files of a host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import host_survey
import pytest
from hypothesis import given
from hypothesis import strategies as st

LISTENERS = """\
udp   UNCONN 0      0          127.0.0.53%lo:53        0.0.0.0:*    users:(("systemd-resolve",pid=411,fd=13))
udp   UNCONN 0      0      203.0.113.10%eth0:68        0.0.0.0:*    users:(("systemd-network",pid=380,fd=22))
udp   UNCONN 0      0                   [::]:5355         [::]:*    users:(("systemd-resolve",pid=411,fd=12))
udp   UNCONN 0      0      [fe80::1]%eth0:546             [::]:*    users:(("dhclient",pid=500,fd=20))
udp   UNCONN 0      0                0.0.0.0:51820     0.0.0.0:*
tcp   LISTEN 0      128                 [::]:22         [::]:*  users:(("sshd",pid=701,fd=4),("systemd",pid=1,fd=90))
tcp   LISTEN 0      4096                   *:9100            *:*    users:(("node exporter",pid=802,fd=3))
tcp   LISTEN 0      50   [::ffff:127.0.0.1]:8080             *:*    users:(("java",pid=900,fd=7))
"""


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    monkeypatch.setattr(host_survey, "unit_of", lambda pid: f"unit{pid}.service")
    return host_survey.sockets(LISTENERS)


def test_each_socket_is_listed_with_its_address_device_and_port(listed: list[dict[str, Any]]) -> None:
    assert [(each["protocol"], each["address"], each["device"], each["port"]) for each in listed] == [
        ("udp", "127.0.0.53", "lo", 53),
        ("udp", "203.0.113.10", "eth0", 68),
        ("udp", "::", "", 5355),
        ("udp", "fe80::1", "eth0", 546),
        ("udp", "0.0.0.0", "", 51820),
        ("tcp", "::", "", 22),
        ("tcp", "*", "", 9100),
        ("tcp", "::ffff:127.0.0.1", "", 8080),
    ]


def test_a_socket_has_the_first_of_its_processes_and_its_unit(listed: list[dict[str, Any]]) -> None:
    by_port = {each["port"]: (each["process"], each["pid"], each["unit"]) for each in listed}
    assert by_port[22] == ("sshd", 701, "unit701.service")
    assert by_port[9100] == ("node exporter", 802, "unit802.service")
    assert by_port[51820] == ("", 0, "")


@given(st.one_of(st.text(), st.lists(st.sampled_from(LISTENERS.split(" "))).map(" ".join)))
def test_any_output_of_ss_can_be_read(text: str) -> None:
    for each in host_survey.sockets(text):
        assert each["protocol"] in ("tcp", "udp")


@pytest.mark.parametrize(
    ("group", "unit"),
    [
        ("0::/system.slice/ssh.service\n", "ssh.service"),
        ("0::/system.slice/system-mpquic.slice/mpquic@mpq1.service\n", "mpquic@mpq1.service"),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/app.service\n", "app.service"),
        ("12:pids:/system.slice/ssh.service\n1:name=systemd:/system.slice/ssh.service\n", "ssh.service"),
        ("0::/system.slice/docker-0123.scope\n", ""),
        ("0::/init.scope\n", ""),
        ("", ""),
    ],
)
def test_the_unit_of_a_process_is_in_its_control_group(monkeypatch: pytest.MonkeyPatch, group: str, unit: str) -> None:
    monkeypatch.setattr(host_survey, "read", lambda path: group if path == "/proc/4711/cgroup" else None)
    assert host_survey.unit_of(4711) == unit


LINKS = host_survey.links(
    [
        {
            "ifname": "enp6s18",
            "address": "52:54:00:aa:bb:cc",
            "permaddr": "52:54:00:11:22:33",
            "altnames": ["ens18"],
            "master": "br0",
            "addr_info": [
                {"family": "inet", "local": "10.10.11.100", "prefixlen": 24},
                {"family": "inet6", "local": "fe80::1", "prefixlen": 64},
                {"family": "inet"},
            ],
        },
        {
            "ifname": "br0",
            "address": "52:54:00:aa:bb:cc",
            "linkinfo": {"info_kind": "bridge"},
            "addr_info": [{"local": "fe80::1", "prefixlen": 64}, {"local": "2001:db8::5", "prefixlen": 64}],
        },
        {},
    ]
)


def test_links_have_kind_addresses_and_all_their_names() -> None:
    assert list(LINKS) == ["enp6s18", "br0"]
    assert LINKS["enp6s18"] == {
        "mac": "52:54:00:aa:bb:cc",
        "permanent_mac": "52:54:00:11:22:33",
        "kind": "",
        "master": "br0",
        "altnames": ["ens18"],
        "lease": {"address": "", "client": ""},
        "addresses": ["10.10.11.100/24", "fe80::1/64"],
    }
    assert LINKS["br0"]["kind"] == "bridge"


@pytest.mark.parametrize(
    ("text", "address", "client"),
    [
        ("# private\nADDRESS=192.0.2.7\nSERVER_ADDRESS=192.0.2.1\nCLIENTID=FF6d70f7\n", "192.0.2.7", "ff6d70f7"),
        ("CLIENTID=\n", "", ""),
        ("", "", ""),
    ],
)
def test_the_lease_of_networkd_tells_with_which_identifier_it_was_asked_for(
    tmp_path: Path, text: str, address: str, client: str
) -> None:
    (tmp_path / "2").write_text(text)
    assert host_survey.lease(2, str(tmp_path)) == {"address": address, "client": client}
    assert host_survey.lease(3, str(tmp_path)) == {"address": "", "client": ""}


@pytest.mark.parametrize(
    ("address", "device"),
    [
        ("10.10.11.100", "enp6s18"),
        ("::ffff:10.10.11.100", "enp6s18"),
        ("2001:db8::5", "br0"),
        ("fe80::1%br0", "br0"),
        ("fe80::1%enp6s18", "enp6s18"),
        ("fe80::1%gone", "enp6s18"),
        ("192.0.2.1", ""),
        ("UNKNOWN", ""),
    ],
)
def test_the_device_of_an_address_is_the_one_that_its_scope_names_or_that_has_it(address: str, device: str) -> None:
    assert host_survey.owner_of(LINKS, address) == device


def started(environment: dict[str, str]) -> subprocess.Popen[str]:
    """A process without ssh in its own environment, whose parent has this one."""
    child = "import os, sys; print(os.getpid(), flush=True); sys.stdin.read()"
    parent = (
        "import subprocess, sys; "
        f"subprocess.run([sys.executable, '-c', {child!r}], env={{}}, stdin=sys.stdin, check=True)"
    )
    return subprocess.Popen(
        [sys.executable, "-c", parent], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("198.51.100.7 50000 10.10.11.100 22", ["198.51.100.7", "50000", "10.10.11.100", "22"]),
        ("fe80::7%eth0 50000 fe80::1%eth0 22", ["fe80::7%eth0", "50000", "fe80::1%eth0", "22"]),
        ("damaged", []),
    ],
)
def test_the_connection_is_found_in_the_parents_as_sudo_takes_it_away(value: str, words: list[str]) -> None:
    with started({"SSH_CONNECTION": value}) as process:
        assert process.stdout is not None
        assert host_survey.ssh_connection(int(process.stdout.readline())) == words
        process.communicate("")


@pytest.mark.parametrize("process", [0, 1, 2**30])
def test_without_a_process_there_is_no_connection(process: int) -> None:
    assert host_survey.ssh_connection(process) == []


def test_units_that_do_not_exist_are_left_out() -> None:
    text = (
        "Id=docker.service\nLoadState=loaded\nActiveState=active\nUnitFileState=enabled\n\n"
        "Id=ufw.service\nLoadState=not-found\nActiveState=inactive\nUnitFileState=\n\n"
        "Id=NetworkManager.service\nLoadState=masked\nActiveState=inactive\nUnitFileState=masked\n"
    )
    assert host_survey.unit_states(text) == {
        "docker.service": {"active": "active", "enabled": "enabled"},
        "NetworkManager.service": {"active": "inactive", "enabled": "masked"},
    }
    assert host_survey.unit_states("") == {}


def test_interfaces_of_ifupdown_are_those_of_its_iface_lines() -> None:
    text = (
        "auto lo\niface lo inet loopback\n# iface eth9 inet dhcp\nallow-hotplug enp6s18\n"
        "iface enp6s18 inet static\n  address 10.10.11.100/24\niface enp6s18 inet6 auto\n  iface enp7s3 inet dhcp\n"
    )
    assert host_survey.configured_devices(text) == ["enp6s18", "enp7s3"]


def test_what_goes_with_a_package_is_told_by_apt() -> None:
    text = (
        "Building dependency tree...\nThe following packages will be REMOVED:\n  ifenslave* ifupdown*\n"
        "Purg ifenslave [2.13]\nPurg ifupdown [0.8.41]\n"
    )
    assert host_survey.purged(text) == ["ifenslave", "ifupdown"]
    assert host_survey.purged("") == []


@pytest.fixture
def cloud(tmp_path: Path) -> Path:
    """The root of a host with cloud-init."""
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/cloud-init").touch()
    (tmp_path / "etc/cloud/cloud.cfg.d").mkdir(parents=True)
    return tmp_path


def test_cloud_init_configures_the_network_unless_it_is_told_not_to(cloud: Path) -> None:
    assert host_survey.cloud_configures_network(str(cloud))


def test_a_host_without_cloud_init_is_configured_by_others(tmp_path: Path) -> None:
    assert not host_survey.cloud_configures_network(str(tmp_path))


@pytest.mark.parametrize("name", ["cloud.cfg", "cloud.cfg.d/99-net.cfg"])
@pytest.mark.parametrize(
    "text",
    [
        "network: {config: disabled}\n",
        'network: {config: "disabled"}\n',
        "network:{config: disabled}\n",
        "network:\n  config: disabled\n",
        "users: []\nnetwork:\n    config: 'disabled'\n",
    ],
)
def test_cloud_init_leaves_the_network_alone_if_its_configuration_says_so(cloud: Path, name: str, text: str) -> None:
    (cloud / "etc/cloud" / name).write_text(text)
    assert not host_survey.cloud_configures_network(str(cloud))


@pytest.mark.parametrize("text", ["network: {config: {version: 2}}\n", "# network: {config: disabled}\n", "", "\0"])
def test_other_configuration_does_not_stop_cloud_init(cloud: Path, text: str) -> None:
    (cloud / "etc/cloud/cloud.cfg.d/50.cfg").write_text(text)
    assert host_survey.cloud_configures_network(str(cloud))


def test_cloud_init_that_is_disabled_configures_nothing(cloud: Path) -> None:
    (cloud / "etc/cloud/cloud-init.disabled").touch()
    assert not host_survey.cloud_configures_network(str(cloud))


def test_files_of_networkd_are_listed_but_neither_ours_nor_masked_ones(tmp_path: Path) -> None:
    etc, packaged = tmp_path / "etc", tmp_path / "usr"
    etc.mkdir()
    packaged.mkdir()
    for path in (
        etc / "05-mpquic-10-enp6s18.network",
        etc / "10-a.network",
        etc / "10-a.network.d",
        etc / "readme",
        packaged / "10-masked.network",
        packaged / "10-b.link",
    ):
        path.write_text(path.name)
    (etc / "10-masked.network").symlink_to(os.devnull)
    (etc / "10-gone.netdev").symlink_to(etc / "nowhere")
    assert host_survey.network_files((str(etc), str(packaged))) == [
        {"path": str(etc / "10-a.network"), "text": "10-a.network"},
        {"path": str(packaged / "10-b.link"), "text": "10-b.link"},
    ]


@pytest.mark.parametrize(
    ("text", "enabled"),
    [("ENABLED=yes\nLOGLEVEL=low\n", True), ("ENABLED=no\n", False), ("# ENABLED=yes\n", False), ("", False)],
)
def test_ufw_filters_if_its_configuration_enables_it(text: str, enabled: bool) -> None:
    assert host_survey.ufw_is_enabled(text) is enabled


def test_a_damaged_note_is_still_one_of_an_earlier_run() -> None:
    assert host_survey.note_of(None) is None
    assert host_survey.note_of("") == host_survey.note_of('{"files": [') == host_survey.note_of("[]") == {}
    assert host_survey.note_of('{"files": ["a"]}') == {"files": ["a"]}


def test_a_file_that_never_ends_or_is_none_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "big").write_bytes(b"\xff" * 100_000)
    assert host_survey.read(tmp_path / "fifo") is None
    assert host_survey.read(tmp_path) is None
    assert host_survey.read(tmp_path / "nowhere") is None
    assert len(host_survey.read(tmp_path / "big") or "") == host_survey.LARGEST_FILE


def test_free_space_is_told_by_file_system() -> None:
    root = host_survey.disk()["/"]
    assert root["bytes"] >= 0
    assert root["device"] == Path("/").stat().st_dev
    assert root["read_only"] is root["noexec"] is False


def test_the_module_surveys_the_machine_that_it_runs_on(tmp_path: Path) -> None:
    """Whatever is installed here: nothing is missing, and all of it can be sent to the controller."""
    (tmp_path / "instances").mkdir()
    (tmp_path / "instances/mpq1.yml").write_text("role: server\n")
    (tmp_path / "note.json").write_text("")
    arguments = {
        "certificate": "site1",
        "instances": str(tmp_path / "instances"),
        "pki": str(tmp_path),
        "taken_over": str(tmp_path / "note.json"),
    }
    done = subprocess.run(
        [sys.executable, host_survey.__file__],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(done.stdout)
    assert result["changed"] is False
    survey = result["survey"]
    assert abs(survey["time"] - time.time()) < 60
    assert survey["instances"] == {"mpq1": "role: server\n"}
    assert survey["pki"] == {"ca": None, "certificate": None}
    assert survey["taken_over"] == {}
    assert survey["memory"] > 0


def test_a_module_is_there_as_a_file_built_in_or_loaded(tmp_path: Path) -> None:
    kernel, loaded = tmp_path / "6.1.0", tmp_path / "module"
    assert host_survey.missing_modules(kernel, loaded) == [], "nothing is known of a kernel without its folder"
    kernel.mkdir()
    (loaded / "nft_ct").mkdir(parents=True)
    (kernel / "modules.builtin").write_text("kernel/net/8021q/8021q.ko\n")
    (kernel / "modules.dep").write_text(
        "kernel/drivers/net/tun.ko.xz:\nkernel/net/netfilter/nft-masq.ko: kernel/net/netfilter/nf_tables.ko\n"
        "kernel/net/netfilter/nf_tables.ko:\n"
    )
    assert host_survey.missing_modules(kernel, loaded) == ["nft_fib_inet"]


def test_values_of_os_release_are_without_quotes() -> None:
    text = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n# ID=other\nID=debian\nVERSION_ID='12'\nbroken\n"
    assert host_survey.os_release(text) == {
        "PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)",
        "ID": "debian",
        "VERSION_ID": "12",
    }
