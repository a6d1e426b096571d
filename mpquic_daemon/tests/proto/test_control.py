from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpquic.proto.control import messages as control
from mpquic.proto.control.messages import (
    Bye,
    Challenge,
    ControlDecoder,
    ControlError,
    Held,
    Hello,
    Message,
    NegotiationError,
    Probe,
    ProbeAck,
    Refuse,
    RefuseCode,
    Register,
    Unknown,
    Welcome,
)

_words = st.text(max_size=30)
_numbers = st.integers(0, 2**63 - 1)
_nonces = st.binary(min_size=32, max_size=32)
_messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Hello, min_version=_numbers, max_version=_numbers, nonce=_nonces, features=st.lists(_words, max_size=4)),
    st.builds(Challenge, version=_numbers, nonce=_nonces, features=st.lists(_words, max_size=4)),
    st.builds(
        Register,
        tunnel=_words,
        path=_words,
        boot_id=st.binary(min_size=16, max_size=16),
        epoch=_numbers,
        inner=st.lists(_words, min_size=1, max_size=4),
        certificates=st.lists(st.binary(max_size=300), min_size=1, max_size=4),
        algorithm=_words,
        signature=st.binary(max_size=80),
        weight=st.floats(0.1, 1000),
        priority=st.integers(0, 65535),
    ),
    st.builds(Welcome, session=st.binary(min_size=8, max_size=8), inner=st.lists(_words, max_size=3)),
    st.builds(Refuse, code=_words, reason=_words, retry_after=st.none() | st.floats(0, 86400)),
    st.builds(Probe, sequence=_numbers),
    st.builds(ProbeAck, sequence=_numbers),
    st.builds(
        Held,
        by=st.text(min_size=1, max_size=64),
        reason=st.text(max_size=200),
        since=st.floats(0, 253402300799),
        until=st.none() | st.floats(0, 253402300799),
        origin=_words,
    ),
    st.builds(Bye, reason=_words),
)


@given(st.lists(st.tuples(_numbers, _messages), min_size=1, max_size=5), st.integers(1, 200))
def test_messages_come_back_as_they_were_however_the_stream_is_cut(sent: list[tuple[int, Message]], piece: int) -> None:
    data = b"".join(control.encode(message, number) for number, message in sent)
    decoder = ControlDecoder()
    got = [pair for at in range(0, len(data), piece) for pair in decoder.feed(data[at : at + piece])]
    assert got == sent
    assert decoder.buffered == 0


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_a_message_or_a_control_error(data: bytes) -> None:
    try:
        number, message = control.decode(data)
    except ControlError as error:
        assert error.reason == "undecodable"  # noqa: PT017
    else:
        assert number >= 0
        assert isinstance(message, Message)


_msgpack_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from([kind.TYPE for kind in control._TYPES] + ["other"]), _msgpack_values, _msgpack_values)
def test_well_formed_msgpack_of_any_shape_is_a_message_or_a_control_error(
    kind: str, number: object, body: object
) -> None:
    data = msgspec.msgpack.encode({"type": kind, "id": number, "body": body})
    try:
        _, message = control.decode(data)
    except ControlError as error:
        assert error.reason == "undecodable"  # noqa: PT017
    else:
        assert message.TYPE in (kind, "unknown")


def test_deep_nesting_is_refused_and_not_a_crash() -> None:
    with pytest.raises(ControlError):
        control.decode(b"\x83\xa4type\xa5hello\xa2id\x01\xa4body" + b"\x91" * 30000 + b"\xc0")


def test_text_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(ControlError):
        control.decode(b"\x83\xa4type\xa3bye\xa2id\x01\xa4body\x81\xa6reason\xa2\xff\xfe")


def test_an_unknown_type_is_ignored_and_unknown_keys_too() -> None:
    data = msgspec.msgpack.encode({"type": "forecast", "id": 7, "body": {"rain": True}})
    assert control.decode(data) == (7, Unknown("forecast"))
    data = msgspec.msgpack.encode({"type": "probe", "id": 8, "body": {"sequence": 3, "colour": "red"}, "more": 1})
    assert control.decode(data) == (8, Probe(sequence=3))


def test_a_length_beyond_the_limit_is_refused_before_it_is_buffered() -> None:
    decoder = ControlDecoder()
    with pytest.raises(ControlError, match="too long"):
        decoder.feed((control.MAX_MESSAGE + 1).to_bytes(4, "big"))
    assert decoder.buffered == 0
    with pytest.raises(ControlError):
        decoder.feed(control.encode(Bye(), 1))


def test_what_is_too_long_to_receive_is_not_sent() -> None:
    with pytest.raises(ControlError, match="too long"):
        control.encode(Bye(reason="x" * control.MAX_MESSAGE), 1)


def test_lists_and_numbers_out_of_range_are_refused() -> None:
    for body in ({"sequence": -1}, {"sequence": 2**64 - 1}, {"sequence": "1"}, {}):
        with pytest.raises(ControlError):
            control.decode(msgspec.msgpack.encode({"type": "probe", "id": 1, "body": body}))


def _hello(low: int, high: int) -> Hello:
    return Hello(min_version=low, max_version=high, nonce=bytes(32))


@pytest.mark.parametrize(
    ("client", "server", "chosen"), [((1, 1), (1, 1), 1), ((1, 2), (1, 1), 1), ((1, 1), (1, 2), 1), ((2, 4), (1, 3), 3)]
)
def test_neighbouring_versions_understand_each_other(
    client: tuple[int, int], server: tuple[int, int], chosen: int
) -> None:
    assert control.negotiate_version(_hello(*client), *server) == chosen


@pytest.mark.parametrize(("client", "server"), [((3, 4), (1, 2)), ((1, 2), (3, 4)), ((2, 1), (1, 2))])
def test_without_a_common_version_the_reason_names_both_ranges(
    client: tuple[int, int], server: tuple[int, int]
) -> None:
    with pytest.raises(NegotiationError, match=f"{client[0]}-{client[1]}.*{server[0]}-{server[1]}") as caught:
        control.negotiate_version(_hello(*client), *server)
    assert caught.value.code is RefuseCode.VERSION


def test_features_are_those_in_common_and_a_missing_required_one_is_named() -> None:
    assert control.negotiate_features(["b", "a", "x"], ["c"], frozenset("abc")) == ["a", "b", "c"]
    with pytest.raises(NegotiationError, match="warp"):
        control.negotiate_features([], ["warp"], frozenset("abc"))
