"""What `mpquicctl trace` refuses, before it looks at anything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from mpquic import ctl

FILES = Path(__file__).parents[3] / "molecule/render/golden/west-client/etc/systemd/network"


def trace(*words: str) -> int:
    return ctl.main(["trace", "--networkd-dir", str(FILES), *words])


@pytest.fixture
def _root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def test_it_says_that_it_needs_root(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert trace("lan5", "192.0.2.80") == 2
    assert "root alone may: sudo mpquicctl trace" in capsys.readouterr().err


@pytest.mark.usefixtures("_root")
def test_an_unknown_name_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert trace("lan9", "192.0.2.80") == 4
    assert (
        "no LAN lan9; it has lan4 (enp6s23), lan4.17 (enp6s23.17), lan5 (inside), lan5.21 (inside.21)"
        in capsys.readouterr().err
    )


@pytest.mark.usefixtures("_root")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("lan5", "example.net"), "example.net is no IPv4 or IPv6 address"),
        (("lan5", "224.0.0.1"), "expected an address to which packets are forwarded"),
        (("lan5", "fe80::1"), "expected an address to which packets are forwarded"),
        (("lan5", "192.0.2.80", "udp"), "udp needs a PORT"),
        (("lan5", "192.0.2.80", "icmp", "5"), "icmp has no ports"),
        (("lan5", "192.0.2.80", "--source", "2001:db8::1"), "aren't of the same IP version"),
        (("lan5.21", "2001:db8::1"), "give the host's by --source"),
    ],
)
def test_a_question_without_sense_is_refused(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trace(*words) == 2
    assert message in capsys.readouterr().err
