"""mpquicctl shows every instance of the host, whether its process runs, hangs or is absent."""

import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from mpquic import config, control_client, ctl
from mpquic.config import InstanceConfig
from mpquic.ctl import instances, status
from mpquic.ctl.reconnect import reconnect
from mpquic.daemon.statistics import PipeStatistics
from mpquic.release import RELEASE
from mpquic.table import table

CLIENT = {
    "name": "mpq5",
    "role": "client",
    "tun_name": "mpq5",
    "inner_addresses": ["10.200.5.1/32"],
    "bind_ip": "iface:mpq-absent0",
    "remote_addr": "203.0.113.10",
    "remote_port": 45005,
    "wan": "wan5",
    "tls": {"ca_file": "/a", "cert_file": "/b", "key_file": "/c", "server_name": "vps1"},
}
SERVER = {
    "name": "srv",
    "role": "server",
    "tun_name": "srv",
    "bind_ip": "::",
    "bind_port": 45005,
    "tls": {"ca_file": "/a", "cert_file": "/b", "key_file": "/c"},
}
LACK = "mpq-absent0: no such device"
UP = {
    "name": "mpq5", "role": "client", "state": "up", "since": "2026-06-01T12:30:00Z", "duration_seconds": 3700.2,
    "peer": "203.0.113.10:45005", "wan": "wan5", "class": None, "missing": None, "peers": None,
    "rtt_seconds": 0.01324, "loss_ratio": 0.015, "tx_bytes": 1234567, "rx_bytes": 999, "reconnects": 2, "flaps": 1,
    "secret": "x",
    "release": "9.9-ab", "peer_releases": ["9.8-cd"], "hold": None, "hold_at": None,
    "certificate": {"serial": "a", "not_after": "2028-06-01T12:30:00Z", "days_left": 99},
}  # fmt: skip


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "instances").mkdir()
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("MPQUIC_RUNTIME_DIR", str(tmp_path / "run"))
    return tmp_path


def write(host: Path, name: str, data: object) -> Path:
    path = host / "instances" / f"{name}.yml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return path


@contextmanager
def process(host: Path, name: str, answer: Callable[[dict[str, object]], bytes]) -> Iterator[None]:
    """Serve a control socket as a daemon would."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(host / "run" / f"{name}.sock"))
    listener.listen()

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as stream:
                reply = answer(json.loads(stream.readline()))
                if reply:
                    stream.write(reply)
                else:
                    stopped.wait(10)

    stopped = threading.Event()
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def ok(result: object) -> Callable[[dict[str, object]], bytes]:
    return lambda request: json.dumps({"v": 1, "id": request["id"], "ok": True, "result": result}).encode() + b"\n"


def run(host: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert ctl.main([*arguments, "--instances-dir", str(host / "instances")]) == 0
    return capsys.readouterr().out


def test_status_json_has_the_documented_keys_of_a_running_instance(
    host: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(host, "mpq5", CLIENT)
    with process(host, "mpq5", ok(UP)):
        (row,) = json.loads(run(host, capsys, "status", "--json"))
    assert row == {**{key: UP[key] for key in UP if key != "secret"}, "error": None}


def test_status_is_a_table_in_natural_order_for_people(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(host, "mpq10", {**CLIENT, "name": "mpq10"})
    write(host, "mpq5", CLIENT)
    with process(host, "mpq5", ok(UP)):
        lines = run(host, capsys, "status").splitlines()
    dashes = "-      -       -     -         -         -           -      -        -             "
    heading = "NAME   ROLE    STATE     FOR    PEER                WAN   CLASS  RTT_MS  LOSS  TX_BYTES  RX_BYTES  "
    numbers = "13.2    1.5%  1.2MB     999B      2           1      9.9-ab   9.8-cd        -"
    assert lines == [
        f"{heading}RECONNECTS  FLAPS  RELEASE  PEER RELEASE  ERROR",
        f"mpq5   client  up        1h 1m  203.0.113.10:45005  wan5  -      {numbers}",
        f"mpq10  client  inactive  -      203.0.113.10:45005  wan5  {dashes}{LACK}",
    ]


def test_tunnels_are_grouped_by_their_wan_and_behind_the_others_by_class(
    host: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, wan, more in (
        ("br1", "wan4", {"class_name": "bulk", "traffic_class": 2}),
        ("cr1", "wan4", {"class_name": "critical", "traffic_class": 1}),
        ("cr2", "wan10", {"class_name": "critical", "traffic_class": 1}),
        ("mpq4", "wan4", {}),
    ):
        write(host, name, {**CLIENT, "name": name, "wan": wan, **more})
    write(host, "mt4", {**SERVER, "name": "mt4"})
    rows = json.loads(run(host, capsys, "status", "--json"))
    assert [(row["name"], row["wan"], row["class"]) for row in rows] == [
        ("mpq4", "wan4", None),
        ("br1", "wan4", "bulk"),
        ("cr1", "wan4", "critical"),
        ("cr2", "wan10", "critical"),
        ("mt4", None, None),
    ]


def test_without_a_process_an_instance_is_inactive_when_its_wan_is_absent_and_down_otherwise(
    host: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(host, "mpq5", CLIENT)
    write(host, "bound", {**CLIENT, "bind_ip": "192.0.2.1"})
    write(host, "srv", SERVER)
    rows = {row["name"]: row for row in json.loads(run(host, capsys, "status", "--json"))}
    assert (rows["mpq5"]["state"], rows["mpq5"]["error"]) == ("inactive", "mpq-absent0: no such device")
    assert (rows["mpq5"]["missing"], rows["bound"]["missing"]) == ("device", None)
    reason = "the process is not running: journalctl -u mpquic@bound tells why"
    assert (rows["bound"]["state"], rows["bound"]["error"]) == ("down", reason)
    assert (rows["srv"]["role"], rows["srv"]["state"]) == ("server", "down")


def test_an_instance_that_the_variables_take_out_of_service_is_held_and_no_fault(
    host: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(host, "mpq5", {**CLIENT, "bind_ip": "192.0.2.1", "enabled": False})
    os.utime(path, (1_790_000_000, 1_790_000_000))
    (row,) = json.loads(run(host, capsys, "status", "--json"))
    assert (row["role"], row["state"], row["hold_at"]) == ("client", "held", "here")
    assert row["hold"] == {
        "by": "the variables",
        "reason": "enabled: false",
        "since": "2026-09-21T14:13:20Z",
        "until": None,
        "origin": "variables",
    }
    assert row["error"] == "held by the variables: enabled: false"
    assert row["since"] == "2026-09-21T14:13:20Z"


def test_a_socket_left_behind_by_a_killed_process_counts_as_no_process(
    host: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(host, "srv", SERVER)
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(host / "run" / "srv.sock"))
    stale.close()
    (row,) = json.loads(run(host, capsys, "status", "--json"))
    assert (row["state"], row["error"]) == ("down", "the process is not running: journalctl -u mpquic@srv tells why")


def test_a_hung_process_is_down_with_the_reason(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(host, "srv", SERVER)
    with process(host, "srv", lambda _request: b""):
        (row,) = json.loads(run(host, capsys, "status", "--json"))
    assert row["state"] == "down"
    assert row["error"] == "no answer in 2 s; the process hangs or the machine is overloaded"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"{}\n", "the answer is not of version 1 of the protocol; upgrade both"),
        (b"hello\n", "the answer is not JSON"),
        (b'{"v": 1, "ok": false, "error": "no"}\n', "no"),
    ],
)
def test_an_answer_that_is_wrong_is_told(
    host: Path, capsys: pytest.CaptureFixture[str], answer: bytes, error: str
) -> None:
    write(host, "srv", SERVER)
    with process(host, "srv", lambda _request: answer):
        (row,) = json.loads(run(host, capsys, "status", "--json"))
    assert (row["state"], row["error"]) == ("down", error)


def test_an_instance_with_a_wrong_file_is_listed_with_the_wrong_key(
    host: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(host, "mpq5", {**CLIENT, "remote_prt": 1})
    (row,) = json.loads(run(host, capsys, "status", "--json"))
    assert (row["name"], row["state"]) == ("mpq5", "down")
    assert row["error"] == "configuration: remote_prt: unknown key; did you mean remote_port?"


def test_paths_lists_those_of_running_instances(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(host, "mpq5", CLIENT)
    write(host, "srv", SERVER)
    told = {"path": "wan5", "state": "up", "rtt_seconds": 0.013, "release": "9.9-ab", "peer_release": "9.8-cd"}
    with process(host, "mpq5", ok([told])):
        (row,) = json.loads(run(host, capsys, "paths", "--json"))
        line = run(host, capsys, "paths").splitlines()[1]
    assert (row["release"], row["peer_release"]) == ("9.9-ab", "9.8-cd")
    assert line.split()[-2:] == ["9.9-ab", "9.8-cd"]
    assert (row["instance"], row["path"], row["state"], row["rtt_seconds"]) == ("mpq5", "wan5", "up", 0.013)


def test_paths_says_whether_the_striped_data_plane_carries(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"path": name, "state": "up", "stripe": stripe} for name, stripe in (
        ("wan5", {"carries": True, "lost_shards": 3}), ("wan6", {"carries": False}), ("wan7", None),
    )]  # fmt: skip
    write(host, "mpq5", CLIENT)
    with process(host, "mpq5", ok(rows)):
        lines = run(host, capsys, "paths").splitlines()
        found = json.loads(run(host, capsys, "paths", "--json"))
    assert [line.split()[3] for line in lines] == ["STRIPE", "carries", "silent", "-"]
    assert found[0]["stripe"]["lost_shards"] == 3


def test_paths_shows_each_pipe(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = {"pipe": 1, "rtt_seconds": 0.034, "tx_bytes": 5000, "tx_loss_ratio": 0.3, "rx_loss_ratio": 0.0,
            "rx_bytes": 700, "tx_acked_age_seconds": 0.2, "rx_heard_age_seconds": None}  # fmt: skip
    rows = [{"path": "wan5", "pipes": [pipe, {**pipe, "pipe": 2}]}, {"path": "wan6", "pipes": []}]
    write(host, "mpq5", CLIENT)
    with process(host, "mpq5", ok(rows)):
        heading, *lines = [line.split() for line in run(host, capsys, "paths", "--pipes").splitlines()]
    assert [line[:3] for line in lines] == [["mpq5", "wan5", "1"], ["mpq5", "wan5", "2"]]
    shown = dict(zip(heading, lines[0], strict=True))
    assert (shown["RTT_MS"], shown["TX_LOSS"], shown["RX_LOSS"]) == ("34.0", "30.0%", "0.0%")
    assert (shown["ACKED"], shown["HEARD"], shown["TX_BYTES"]) == ("0s", "-", "5.0kB")


def test_version_names_this_command_and_each_instance(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(host, "mpq5", CLIENT)
    write(host, "srv", SERVER)
    with process(host, "mpq5", ok({"release": "9.9-ab", "peer_releases": ["9.8-cd"]})):
        rows = json.loads(run(host, capsys, "version", "--json"))
        lines = [re.split(r"\s{2,}", line) for line in run(host, capsys, "version").splitlines()]
    assert [(row["name"], row["release"], row["peer_releases"]) for row in rows] == [
        ("mpquicctl", RELEASE, None), ("mpq5", "9.9-ab", ["9.8-cd"]), ("srv", None, None),
    ]  # fmt: skip
    assert lines[0][:3] == ["NAME", "RELEASE", "PEER RELEASE"]
    assert lines[2][:3] == ["mpq5", "9.9-ab", "9.8-cd"]


def test_a_missing_directory_is_said_and_is_not_a_traceback(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl.main(["status", "--instances-dir", str(host / "none")]) == 2
    assert capsys.readouterr().err == f"mpquicctl: can't list {host / 'none'}: No such file or directory\n"


def test_check_says_what_is_wrong_with_a_file(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tls = dict(CLIENT["tls"])
    for key in ("ca_file", "cert_file", "key_file"):
        (host / key).write_text("x")
        tls[key] = str(host / key)
    good = write(host, "mpq5", {**CLIENT, "tls": tls})
    bad = write(host, "bad", {**CLIENT, "transport_mode": "stream", "wieght": 2})
    assert ctl.main(["check", str(good)]) == 0
    assert capsys.readouterr().out == f"{good}: ok, client mpq5\n"
    assert ctl.main(["check", str(bad)]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"{bad}: wieght: unknown key; did you mean weight?",
        f"{bad}: transport_mode: expected datagram or reliable, not 'stream'",
    ]
    assert ctl.main(["check", str(host / "none.yml")]) == 1
    assert capsys.readouterr().err == f"can't read {host / 'none.yml'}: No such file or directory\n"
    (host / "ca_file").unlink()
    (host / "key_file").write_text("")
    assert ctl.main(["check", str(good)]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"{good}: tls.ca_file: can't read {host / 'ca_file'}: No such file or directory",
        f"{good}: tls.key_file: {host / 'key_file'} is empty",
    ]


def test_check_does_not_wait_for_a_fifo_or_read_a_device(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fifo = host / "fifo.yml"
    os.mkfifo(fifo)
    instance = write(host, "mpq5", {**CLIENT, "tls": {**CLIENT["tls"], "ca_file": str(fifo), "cert_file": "/dev/zero"}})
    assert (ctl.main(["check", str(fifo)]), ctl.main(["check", str(instance)])) == (1, 1)
    told = capsys.readouterr().err.splitlines()
    assert told[:3] == [
        f"can't read {fifo}: it is not a regular file",
        f"{instance}: tls.ca_file: can't read {fifo}: it is not a regular file",
        f"{instance}: tls.cert_file: can't read /dev/zero: it is not a regular file",
    ]


def test_named_instances_alone_are_shown(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("mpq4", "mpq5", "mpq6"):
        write(host, name, {**CLIENT, "name": name})
    with process(host, "mpq5", ok(UP)):
        (row,) = json.loads(run(host, capsys, "status", "mpq5", "--json"))
    assert row["name"] == "mpq5"


@pytest.mark.parametrize("command", ["status", "paths", "version", "counters", "reconnect"])
def test_an_unknown_name_and_a_stopped_instance_differ(
    host: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    write(host, "mpq5", CLIENT)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(host / "run/mpq5.sock"))
    directory = host / "instances"
    assert ctl.main([command, "mpq9", "--instances-dir", str(directory)]) == 4
    assert capsys.readouterr().err == f"mpquicctl: there is no instance mpq9; {directory} has mpq5\n"
    assert ctl.main([command, "mpq5", "--instances-dir", str(directory)]) == 3
    captured = capsys.readouterr()
    if command in ("counters", "reconnect"):
        assert captured.err == "mpquicctl: mpq5 is not running: mpq-absent0: no such device\n"


def test_version_is_an_option_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        ctl.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"mpquicctl {RELEASE}\n"


@pytest.mark.parametrize("times", ["0", "-1", "1.5", "many", ""])
def test_fewer_connections_than_one_are_refused(capsys: pytest.CaptureFixture[str], times: str) -> None:
    with pytest.raises(SystemExit) as ended:
        ctl.main(["reconnect", "mpq5", f"--times={times}"])
    assert ended.value.code == 2
    assert f"argument --times: {times!r} isn't a whole number of 1 or more" in capsys.readouterr().err


@pytest.mark.parametrize(("times", "count"), [(1, ""), (3, "after 0 of 3 new connections ")])
@pytest.mark.parametrize(
    ("error", "reason"),
    [(None, "it is connecting, and no reply has come from 203.0.113.10:45005 yet"), ("revoked", "revoked")],
)
def test_a_connection_that_does_not_come_has_a_reason(
    host: Path, times: int, count: str, error: str | None, reason: str
) -> None:
    answer = {**UP, "state": "connecting", "error": error}
    with process(host, "mpq5", ok(answer)), pytest.raises(control_client.ControlError) as caught:
        reconnect("mpq5", times=times, silent=False, timeout=0.05)
    assert str(caught.value) == f"{count}no new connection in 0.05 s: {reason}"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (59.9, "59s"), (61, "1m 1s"), (3600, "1h 0m"), (90061, "1d 1h"), (20782 * 86400, "20782d 0h")],
)
def test_a_duration_has_the_letter_of_each_unit(seconds: float, text: str) -> None:
    assert table([{"duration_seconds": seconds}], {"duration_seconds": "FOR"}).splitlines()[1] == text


def test_what_a_peer_says_reaches_no_terminal_as_a_command() -> None:
    rows = [{"identity": "urn:mpquic:site:\x1b[2Jsite1\n", "error": "\x9b31m"}]
    assert table(rows, {"identity": "PEER IDENTITY", "error": "ERROR"}).splitlines()[1:] == [r"\x1b[2Jsite1\n  \x9b31m"]


def test_files_are_read_in_one_thread_since_msgspec_crashes_in_several(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers: list[threading.Thread] = []

    def load(path: Path) -> InstanceConfig:
        readers.append(threading.current_thread())
        return config.load(path)

    monkeypatch.setattr(instances, "load", load)
    files = [write(host, f"mpq{number}", {**CLIENT, "name": f"mpq{number}"}) for number in range(8)]
    assert {row["state"] for row in status.status(files)} == {"inactive"}
    assert readers == [threading.main_thread()] * 8


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("status", status.JSON_FIELDS),
        ("paths", status.JSON_PATH_FIELDS),
        ("version", status.JSON_VERSION_FIELDS),
    ],
)
def test_the_fields_for_programs_are_those_of_the_document(command: str, names: tuple[str, ...]) -> None:
    assert sorted(documented(f"`mpquicctl {command} --json`")) == sorted(names)


def test_the_fields_of_a_pipe_are_those_of_the_document() -> None:
    assert documented("of `pipes`") == [field.name for field in fields(PipeStatistics)]
    assert set(status.PIPE_FIELDS) <= {"instance", "path", "identity", *documented("of `pipes`")}


def documented(heading: str) -> list[str]:
    """Return the fields in the table of docs/mpquicctl.md that has this heading."""
    page = (Path(__file__).parents[3] / "docs/mpquicctl.md").read_text()
    (table_text,) = re.findall(rf"^\| {heading} .*?(?=^$)", page, re.MULTILINE | re.DOTALL)
    rows = table_text.splitlines()[2:]
    return [name for row in rows for name in re.findall(r"`([a-z_]+)`", row.split("|")[1])]
