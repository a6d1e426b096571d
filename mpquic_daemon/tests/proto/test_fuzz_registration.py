"""Whatever an unregistered peer says: a registration ends in a refusal, and nobody is admitted by it."""

from __future__ import annotations

import random

import msgspec
from mpquic.proto.control import messages as control
from mpquic.proto.control.handshake import Admitted, Rejected, Send, Welcomed
from mpquic.proto.control.messages import (
    Challenge,
    ControlDecoder,
    ControlError,
    Message,
    Refuse,
    Register,
    StripeGrant,
    Wait,
    Welcome,
)

from .mutations import INPUTS, mutate
from .test_handshake import Server, assert_no_trace, client

UNPROVED = frozenset({"certificates", "wan", "weight", "priority", "transport_mode", "stripe", "release"})
"""What the proof doesn't cover: what a client says of its path, and certificates behind the leaf."""


def told(message: Message, rng: random.Random) -> Message | None:
    """Have some fields of a message mutated, or all its bytes; None when no decoder takes it."""
    data = control.encode(message, 2)
    if rng.random() < 0.5:
        fields = msgspec.msgpack.decode(data[4:])
        body = fields["body"]
        for name in rng.sample(sorted(body), min(len(body), rng.randrange(1, 4))):
            body[name] = changed(body[name], rng)
        text = msgspec.msgpack.encode(fields)
        data = len(text).to_bytes(4, "big") + text
    else:
        # The length is repaired, or hardly anything would get beyond it.
        text = mutate(rng, [data[4:]])
        data = len(text).to_bytes(4, "big") + text
    try:
        return ControlDecoder().feed(data)[0][1]
    except ControlError:
        return None


def changed(value: object, rng: random.Random) -> object:
    if isinstance(value, bytes):
        return mutate(rng, [value])
    if isinstance(value, str):
        return mutate(rng, [value.encode()]).decode(errors="replace")
    if isinstance(value, list) and value:
        place = rng.randrange(len(value))
        return [*value[:place], changed(value[place], rng), *value[place + rng.randrange(2) :]]
    if isinstance(value, int | float):
        return rng.choice((value + 1, 0, -1, 1 << 40, 0.5, float("inf"), float("nan"), "text"))
    return rng.choice((None, [], {}, "", 7))


def test_a_server_admits_nobody_by_a_message_whose_proof_does_not_fit() -> None:
    rng = random.Random("register")
    server = Server()
    taken = admitted = 0
    for _ in range(INPUTS // 4):
        end = server.connection("c1")
        honest = client(release="0.2.0-1a2b3c")
        [hello] = honest.start()
        assert isinstance(hello, Send)
        [challenge] = end.receive(hello.message, 0.0)
        assert isinstance(challenge, Send)
        [register] = honest.receive(challenge.message, 0.0)
        assert isinstance(register, Send)
        message = told(register.message, rng)
        if message is None:
            continue
        taken += 1
        outputs = end.receive(message, 0.0)
        assert all(isinstance(each, Send | Rejected | Admitted) for each in outputs)
        for each in outputs:
            if isinstance(each, Send):
                each.encode()
        if any(isinstance(each, Admitted) for each in outputs):
            admitted += 1
            assert isinstance(message, Register)
            assert isinstance(register.message, Register)
            assert message.certificates[0] == register.message.certificates[0]
            for name in set(Register.__struct_fields__) - UNPROVED:
                assert getattr(message, name) == getattr(register.message, name)
            server = Server()
        else:
            assert_no_trace(server)
    assert taken > INPUTS // 20
    assert admitted < taken / 2


def test_a_client_takes_whatever_a_server_says_for_a_welcome_or_a_refusal() -> None:
    rng = random.Random("welcome")
    grant = StripeGrant(session=7, secret=bytes(32), port=46005, suite=1)
    challenge = Challenge(version=2, nonce=bytes(32), features=["fragment"])
    replies = [
        Welcome(session=bytes(8), inner=["10.200.5.1/32"], policy={"x": 1}, stripe=grant, release="0.2.0-1a2b3c"),
        Refuse(code="in_use", reason="another machine", retry_after=4.0, peer="192.0.2.9:1"),
        Wait(),
    ]
    ended = 0
    for count in range(INPUTS // 4):
        one = client()
        one.start()
        first = told(challenge, rng) if count % 2 else challenge
        outputs = one.receive(first, 0.0) if first is not None else []
        second = told(rng.choice(replies), rng)
        if second is not None:
            outputs += one.receive(second, 0.0)
        for each in outputs:
            assert isinstance(each, Send | Rejected | Welcomed)
            if isinstance(each, Send):
                each.encode()
            else:
                ended += 1
    assert ended > INPUTS // 40
