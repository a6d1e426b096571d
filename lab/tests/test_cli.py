"""The command line: what is understood and what is refused, without a lab."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from mpqlab import preflight
from mpqlab.cli import main, parse
from mpqlab.errors import LabError
from mpqlab.topology import RUN

if TYPE_CHECKING:
    from collections.abc import Sequence


def refused(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        parse(arguments)
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_exec_passes_everything_behind_the_node_on() -> None:
    options = parse(["exec", "client", "--", "sh", "-c", "true", "--", "--json"])
    assert options.node == "client"
    assert options.command == ["sh", "-c", "true", "--", "--json"]


def test_exec_without_a_separator_works_too() -> None:
    assert parse(["exec", "host5", "ping", "-c", "1", "192.0.2.80"]).command == ["ping", "-c", "1", "192.0.2.80"]


def test_ssh_passes_everything_behind_the_machine_on() -> None:
    assert parse(["ssh", "vps", "--", "sudo", "id"]).command == ["sudo", "id"]


@pytest.mark.parametrize(("text", "umask"), [("077", "077"), ("0027", "027")])
def test_a_umask_is_read_with_three_or_four_digits(text: str, umask: str) -> None:
    assert parse(["up", "--ssh", "--umask", text]).umask == umask


def test_a_umask_without_ssh_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "give --ssh, too" in refused(["up", "--umask", "077"], capsys)


def test_other_commands_take_nothing_behind_the_separator(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["status", "--", "x"])
    assert "only `exec NODE -- CMD` and `ssh MACHINE -- CMD`" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["link", "cut", "wan5"], ["link", "cut", "WAN5", "up"], ["link", "cut", "5", "down"]]
)
def test_cut_takes_a_direction_and_defaults_to_both(words: list[str]) -> None:
    options = parse(words)
    assert options.wan.number == 5
    assert options.direction == (words[3] if len(words) > 3 else "both")


def test_set_takes_pairs() -> None:
    options = parse(["link", "set", "wan4", "delay_ms=20", "up.rate_mbit=5", "--json"])
    assert options.pairs == ["delay_ms=20", "up.rate_mbit=5"]
    assert options.json


def test_speedtest_defaults_to_runs_of_ten_seconds_on_lan_5() -> None:
    options = parse(["speedtest"])
    assert (options.lan.number, options.seconds, options.bytes, options.runs) == (5, 10.0, None, 1)
    assert not options.reverse
    assert not options.udp


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["link", "cut", "wan9"], "no WAN is called 'wan9': choose one of wan1, wan2"),
        (["speedtest", "--lan", "9"], "there is no LAN 9: choose one of 1, 2"),
        (["speedtest", "--seconds", "86400"], "expected at most 600 seconds"),
        (["speedtest", "--rate", "0"], "expected a number above 0"),
        (["speedtest", "--seconds", "3", "--bytes", "5"], "not allowed with argument"),
        (["exec", "moon", "--", "true"], "invalid choice: 'moon'"),
        (["reboot", "openwrt"], "invalid choice: 'openwrt'"),
        (["freeze", "0"], "expected a number above 0"),
        (["up", "--suite", "potato"], "invalid choice: 'potato'"),
        (["up", "--ssh", "--umask", "9"], "9: expected three octal digits, as 077"),
        (["ssh", "openwrt"], "invalid choice: 'openwrt'"),
        (["seed", "client", "windows"], "invalid choice: 'windows'"),
        ([], "required: COMMAND"),
    ],
)
def test_wrong_arguments_are_refused_by_name(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in refused(arguments, capsys)


def test_without_root_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["status"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "needs root: run the command again with sudo" in said.err


def test_on_another_system_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight.platform, "system", lambda: "Darwin")
    with pytest.raises(LabError, match=r"needs Linux \(Debian 12 or newer\), and this is Darwin"):
        preflight.check_system()


def test_missing_programs_are_named_by_their_packages() -> None:
    there = {"ip", "mount", "nft", "nsenter", "unshare", "iperf3"}
    packages = preflight.missing_programs(
        preflight.PROGRAMS, lambda program: f"/usr/bin/{program}" if program in there else None
    )
    assert packages == ["debootstrap", "dnsmasq-base", "openssh-client", "systemd-container"]


def test_a_command_for_a_lab_that_is_down_says_how_to_start_it() -> None:
    if os.geteuid() != 0:
        pytest.skip("each command asks for root first")
    environment = os.environ | {"MPQLAB_NAME": "nolab"}
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from mpqlab.cli import main; sys.exit(main())", "link", "cut", "wan5"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "mpqlab: the lab isn't up: start it with `mpqlab up`\n"
    assert not RUN.with_name("nolab").exists()
