"""The control socket answers each request, good or bad, and survives whatever is written to it."""

import asyncio
import json
import os
import pwd
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mpquic.daemon.control_socket import ControlSocket
from mpquic.daemon.json_lines import MAX_CLIENTS, MAX_LINE, RequestError, caller

Lines = list[dict[str, object]]


class FakeInstance:
    """Answers what it was asked."""

    def get(self, what: str) -> object:
        return {"asked": what}

    def set(self, key: str, value: object, owner: str, ttl: float | None) -> object:
        if key != "log_level":
            raise RequestError(f"key: {key} is not policy")
        return {"key": key, "value": value, "owner": owner, "ttl_seconds": ttl}

    def reload(self) -> object:
        return {"applied": []}

    def reconnect(self, *, silent: bool) -> object:
        return {"silent": silent}

    def hand_over(self, who: str, tunnel: str | None, seconds: float, by: str) -> object:
        if who == "nobody":
            raise RequestError("there is no client nobody here")
        return [who, tunnel, seconds, by]


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[ControlSocket]:
    control = ControlSocket(path, FakeInstance())
    await control.open()
    try:
        yield control
    finally:
        await control.close()


async def exchange(path: Path, data: bytes) -> Lines:
    """Send bytes, close our direction, return every answer."""
    reader, writer = await asyncio.open_unix_connection(path, limit=1 << 20)
    writer.write(data)
    try:
        writer.write_eof()
        answers = await asyncio.wait_for(reader.read(), 5)
    except (ConnectionError, OSError):
        answers = b""
    writer.close()
    return [json.loads(line) for line in answers.splitlines()]


def in_loop(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(work(), 20)

    asyncio.run(main())


def request(**fields: object) -> bytes:
    return json.dumps({"v": 1, "id": 7, **fields}).encode() + b"\n"


def test_requests_are_answered_in_order_with_their_id(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path / "a.sock"):
            answers = await exchange(
                tmp_path / "a.sock", request(op="get", what="status") + request(id="x", op="get", what="paths")
            )
            assert answers == [
                {"v": 1, "id": 7, "ok": True, "result": {"asked": "status"}},
                {"v": 1, "id": "x", "ok": True, "result": {"asked": "paths"}},
            ]

    in_loop(work)


BAD = {
    "not JSON": (b"status\n", "not valid JSON"),
    "not UTF-8": (b"\xff\xfe\n", "not valid JSON"),
    "no object": (b"[1]\n", "expected a JSON object"),
    "deeply nested": (b"[" * 9000 + b"\n", "not valid JSON"),
    "no version": (b'{"op": "get"}\n', "v: expected 1, the version of this protocol"),
    "version as text": (b'{"v": "1"}\n', "v: expected 1, the version of this protocol"),
    "version true": (b'{"v": true}\n', "v: expected 1, the version of this protocol"),
    "later version": (b'{"v": 2, "op": "get"}\n', "v: expected 1, the version of this protocol"),
    "id is a list": (b'{"v": 1, "id": [], "op": "get"}\n', "id: expected a number or a text"),
    "reconnect loudly": (request(op="reconnect", silent="no"), "silent: expected true or false"),
    "unknown operation": (request(op="kill"), "op: expected one of get, watch, set, reload, reconnect, handover"),
    "operation is a list": (request(op=["get"]), "op: expected one of get, watch, set, reload, reconnect, handover"),
    "unknown subject": (request(op="get", what={}), "what: expected one of status, paths, config, counters, version"),
    "set without a key": (request(op="set"), "key: expected the name of a key"),
    "set without an owner": (
        request(op="set", key="log_level", value="debug"),
        "owner: expected a text of 1 to 64 characters that says who sets this",
    ),
    "set for ever and a day": (
        request(op="set", key="log_level", value="debug", owner="me", ttl_seconds=1e9),
        "ttl_seconds: expected seconds from 1 to 604800",
    ),
    "handover to nobody": (request(op="handover", for_seconds=60), "who: expected the name of a site, or an identity"),
    "handover of no tunnel": (
        request(op="handover", who="site1", tunnel=5, for_seconds=60),
        "tunnel: expected the name of a tunnel",
    ),
    "handover without a time": (request(op="handover", who="site1"), "for_seconds: expected seconds from 1 to 86400"),
    "handover for true": (
        request(op="handover", who="a", for_seconds=True),
        "for_seconds: expected seconds from 1 to 86400",
    ),
    "handover for a week": (
        request(op="handover", who="a", for_seconds=7 * 86400),
        "for_seconds: expected seconds from 1 to 86400",
    ),
    "handover of an unknown site": (
        request(op="handover", who="nobody", for_seconds=60),
        "there is no client nobody here",
    ),
    "set of what isn't policy": (request(op="set", key="tun_mtu", value=1, owner="me"), "key: tun_mtu is not policy"),
}


@pytest.mark.parametrize(("user", "by"), [("alice", "alice"), (None, None), ("a\nb", None)])
def test_who_asks_for_a_handover_is_what_the_kernel_says(tmp_path: Path, user: str | None, by: str | None) -> None:
    """Root may say on whose behalf it asks, as sudo tells it."""

    async def work() -> None:
        async with serving(tmp_path / "a.sock"):
            data = request(op="handover", who="site1", tunnel="mpq5", for_seconds=60, user=user)
            (answer,) = await exchange(tmp_path / "a.sock", data)
            own = pwd.getpwuid(os.getuid()).pw_name
            expected = own if by is None or os.getuid() != 0 else by
            assert answer["result"] == ["site1", "mpq5", 60.0, expected]

    in_loop(work)


@pytest.mark.parametrize(
    ("uid", "user", "by"),
    [(65534, "bob", "bob (as it says)"), (65534, "a\nb", "nobody"), (4294967295 - 1, "bob", None)],
)
def test_a_user_that_the_kernel_does_not_know_names_itself(uid: int, user: str, by: str | None) -> None:
    """As in the user namespace of an instance, with PrivateUsers=."""

    class Connection:
        def getsockopt(self, *_: int) -> bytes:
            return struct.pack("=iII", 1, uid, 1)

    assert caller(Connection(), user) == (by or f"uid {uid}")  # type: ignore[arg-type]


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_is_answered_with_the_reason(case: str, tmp_path: Path) -> None:
    data, expected = BAD[case]

    async def work() -> None:
        async with serving(tmp_path / "a.sock"):
            (answer,) = await exchange(tmp_path / "a.sock", data)
            assert (answer["ok"], answer["error"]) == (False, expected)

    in_loop(work)


def test_a_line_without_end_is_refused_and_the_next_client_is_served(tmp_path: Path) -> None:
    async def work() -> None:
        path = tmp_path / "a.sock"
        async with serving(path):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"x" * (3 * MAX_LINE))
            answer = json.loads(await asyncio.wait_for(reader.readline(), 5))
            assert answer["error"] == f"a request is at most {MAX_LINE} bytes long"
            writer.close()
            (answer,) = await exchange(path, request(op="reload"))
            assert answer["result"] == {"applied": []}

    in_loop(work)


def test_watchers_hear_of_changes_until_they_leave(tmp_path: Path) -> None:
    async def work() -> None:
        path = tmp_path / "a.sock"
        async with serving(path) as control:
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(request(op="watch"))
            assert json.loads(await reader.readline())["result"] == {"asked": "status"}
            control.publish({"state": "up"})
            assert json.loads(await reader.readline()) == {"v": 1, "id": 7, "event": {"state": "up"}}
            writer.close()
            (answer,) = await exchange(path, request(op="get", what="version"))
            control.publish({"state": "down"})
            assert answer["ok"] is True

    in_loop(work)


def test_a_watcher_that_does_not_read_is_dropped(tmp_path: Path) -> None:
    async def work() -> None:
        path = tmp_path / "a.sock"
        async with serving(path) as control:
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(request(op="watch"))
            await reader.readline()
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            for _ in range(2000):
                control.publish({"padding": "x" * 1000})
                await asyncio.sleep(0)
            assert not control._watchers
            writer.close()

    in_loop(work)


def test_the_number_of_clients_is_bounded(tmp_path: Path) -> None:
    async def work() -> None:
        path = tmp_path / "a.sock"
        async with serving(path):
            idle = [await asyncio.open_unix_connection(path) for _ in range(MAX_CLIENTS)]
            (answer,) = await exchange(path, b"")
            assert answer["error"] == "too many clients of this control socket"
            for _, writer in idle:
                writer.close()

    in_loop(work)


def test_a_socket_left_behind_is_replaced_and_one_that_answers_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()

    async def work() -> None:
        async with serving(path):
            assert path.stat().st_mode & 0o777 == 0o660
            with pytest.raises(OSError, match="another process serves"):
                await ControlSocket(path, FakeInstance()).open()
        assert not path.exists()

    in_loop(work)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from(["v", "id", "op", "get", "set", "watch", "what", "status", "key", "owner", "ttl_seconds"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(["v", "id", "op", "what", "key", "value", "owner", "ttl_seconds"]), inner, max_size=8
    ),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode()), max_size=6))  # fmt: skip
def test_whatever_is_written_each_line_has_an_answer_and_the_socket_lives(tmp_path: Path, lines: list[bytes]) -> None:
    data = b"".join(line.replace(b"\n", b" ") + b"\n" for line in lines)

    async def work() -> None:
        path = tmp_path / "a.sock"
        async with serving(path):
            answers = await exchange(path, data)
            assert len(answers) == len(lines)
            assert all(answer["v"] == 1 and isinstance(answer["ok"], bool) for answer in answers)
            (answer,) = await exchange(path, request(op="get", what="status"))
            assert answer["ok"] is True

    in_loop(work)


def test_a_defect_behind_a_valid_request_is_not_called_invalid_json(tmp_path: Path) -> None:
    class Broken(FakeInstance):
        def get(self, what: str) -> object:
            raise ValueError(f"a defect in {what}")

    control = ControlSocket(tmp_path / "x.sock", Broken())
    with pytest.raises(ValueError, match="a defect in status"):
        control._answer(b'{"v": 1, "id": 1, "op": "get", "what": "status"}\n', None)
