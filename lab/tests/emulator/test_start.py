"""What the command says when something is wrong, before anything is made."""

import json
import os
import socket
import threading
from pathlib import Path

import pytest
from mpqlab.emulator import __main__ as command
from mpqlab.emulator.client import EmulatorClient, EmulatorError

DEVICES = ["--up", "emut-none:em0", "--down", "emut-none:em1"]


def arguments(folder: Path, *more: str) -> list[str]:
    return ["--name", "x", "--control", str(folder / "c.sock"), *DEVICES, *more]


def test_every_wrong_key_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(arguments(tmp_path, "delay=5", "up.mtu=x")) == 2
    assert capsys.readouterr().err.splitlines() == [
        "python -m mpqlab.emulator: Unknown key delay: did you mean delay_ms?",
        "python -m mpqlab.emulator: mtu=x: expected a whole number from 0 to 65535.",
    ]


def test_a_device_needs_its_namespace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(["--name", "x", "--control", str(tmp_path), "--up", "em0", "--down", "a:b"])
    assert caught.value.code == 2
    assert "em0: expected NETNS:DEVICE" in capsys.readouterr().err


def test_without_root_there_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert command.main(arguments(tmp_path)) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "run it as root" in error


def test_without_tun_there_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(Path, "is_char_device", lambda path: str(path) != "/dev/net/tun")
    assert command.main(arguments(tmp_path)) == 1
    assert "/dev/net/tun is missing: load the kernel's module" in capsys.readouterr().err


def test_without_the_namespace_there_is_one_sentence_and_no_socket(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(Path, "is_char_device", lambda _: True)
    assert command.main(arguments(tmp_path)) == 1
    assert "There is no network namespace emut-none" in capsys.readouterr().err
    assert not (tmp_path / "c.sock").exists()


def test_a_socket_in_a_missing_folder_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(Path, "is_char_device", lambda _: True)
    assert command.main(arguments(tmp_path / "none")) == 1
    assert "can't be made: No such file or directory" in capsys.readouterr().err


def test_a_client_says_that_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(EmulatorError, match="No emulator answers at"):
        EmulatorClient(tmp_path / "c.sock").get()
    with pytest.raises(EmulatorError, match="No emulator answers at"):
        EmulatorClient(tmp_path / "c.sock").wait_until_ready(0.1)


def test_a_client_gives_up_on_one_that_hangs_or_refuses(tmp_path: Path) -> None:
    path = tmp_path / "c.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(4)
        with pytest.raises(EmulatorError, match="doesn't answer: timed out"):
            EmulatorClient(path, timeout=0.1).get()
        listener.accept()[0].close()

        def refuse() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(json.dumps({"ok": False, "error": "No."}).encode() + b"\n")

        thread = threading.Thread(target=refuse)
        thread.start()
        with pytest.raises(EmulatorError, match=r"^No\.$"):
            EmulatorClient(path).cut()
        thread.join()
