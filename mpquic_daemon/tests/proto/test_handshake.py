from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import dataclass, field

import msgspec
import pytest
from cryptography import x509
from mpquic.proto.control import messages as control
from mpquic.proto.control.client_registration import ClientRegistration, RegistrationRequest
from mpquic.proto.control.groups import GroupTable, Registration, RegistrationRefusedError
from mpquic.proto.control.handshake import FEATURES, Admitted, HandshakeState, Output, Rejected, Send, Welcomed
from mpquic.proto.control.identity import ChainVerifier, Credentials, Identity
from mpquic.proto.control.messages import (
    Bye,
    Challenge,
    ControlDecoder,
    Hello,
    Message,
    Probe,
    Refuse,
    RefuseCode,
    Register,
    Unknown,
    Wait,
    Welcome,
)
from mpquic.proto.control.peers import PeerRule, PeerTable
from mpquic.proto.control.prefix import parse_prefix
from mpquic.proto.control.server_registration import ServerRegistration

from . import pki
from .pki import CA, CLIENT, CLIENT_AUTH, FOREIGN_CA, NOW, SERVER, SITE1, issue, uri

_nonces = itertools.count(1)


def entropy(size: int) -> bytes:
    return next(_nonces).to_bytes(size, "big")


OWN = ("10.200.5.1/32", "fd00::1/128")
REQUEST = RegistrationRequest("mpq5", "wan5", b"b" * 16, 1, OWN)


@dataclass
class Server:
    """Everything of a server that an unregistered peer could leave state in."""

    verifier: ChainVerifier = field(default_factory=lambda: ChainVerifier([CA.certificate]))
    groups: GroupTable[str] = field(default_factory=lambda: GroupTable(entropy))
    admissions: int = 0

    def connection(self, name: str, now: float = 0.0, **options: object) -> ServerRegistration:
        peers = PeerTable([PeerRule(SITE1, "mpq5", tuple(parse_prefix(text) for text in OWN))])

        def admit(identity: Identity, register: Register) -> Welcome:
            self.admissions += 1
            _, prefixes = peers.authorize(identity.uri, register.tunnel, register.inner)
            wish = Registration(
                identity.uri, register.tunnel, register.path, register.boot_id, register.epoch, prefixes
            )
            joined = self.groups.register(wish, name, now)
            return Welcome(session=joined.group.session, inner=register.inner, tun_mtu=1400)

        return ServerRegistration(self.verifier, SERVER.der, admit, lambda: NOW, entropy, now, **options)  # type: ignore[arg-type]


def client(
    credentials: Credentials | None = None, request: RegistrationRequest = REQUEST, now: float = 0.0, **options: object
) -> ClientRegistration:
    return ClientRegistration(request, credentials or CLIENT.credentials(), SERVER.der, entropy, now, **options)  # type: ignore[arg-type]


def converse(one: ClientRegistration, other: ServerRegistration, now: float = 0.0) -> tuple[Output, Output | None]:
    """Carry messages both ways over encoded streams until both are silent; return both results."""
    to_server, to_client = ControlDecoder(), ControlDecoder()
    results: list[list[Output]] = [[], []]
    outputs = one.start()
    while outputs:
        answers: list[Output] = []
        for output in outputs:
            if isinstance(output, Send):
                for _, message in to_server.feed(output.encode()):
                    answers += other.receive(message, now)
            else:
                results[0].append(output)
        outputs = []
        for output in answers:
            if isinstance(output, Send):
                for _, message in to_client.feed(output.encode()):
                    outputs += one.receive(message, now)
            else:
                results[1].append(output)
    assert len(results[0]) == 1
    assert len(results[1]) <= 1
    return results[0][0], results[1][0] if results[1] else None


def assert_no_trace(server: Server) -> None:
    assert (len(server.groups), server.groups.connection_count, len(server.groups._prefixes)) == (0, 0, 0)


def test_each_end_is_told_the_others_release_once_both_are_authenticated() -> None:
    welcomed, admitted = converse(client(release="0.2.0-aa"), Server().connection("c1", release="0.2.0-bb"))
    assert isinstance(welcomed, Welcomed)
    assert isinstance(admitted, Admitted)
    assert (admitted.register.release, welcomed.welcome.release) == ("0.2.0-aa", "0.2.0-bb")


def test_who_does_not_prove_its_identity_is_told_no_release() -> None:
    server = Server().connection("c1", release="0.2.0-bb")
    [hello] = client(release="0.2.0-aa").start()
    assert isinstance(hello, Send)
    sent = [each for each in server.receive(hello.message, 0.0) if isinstance(each, Send)]
    assert len(sent) == 1
    assert b"0.2.0-bb" not in sent[0].encode()


@pytest.mark.parametrize("certified", [CLIENT, pki.ED25519_CLIENT], ids=["ecdsa", "ed25519"])
def test_a_client_that_is_known_gets_its_registration(certified: pki.Certified) -> None:
    server = Server()
    welcomed, admitted = converse(client(certified.credentials()), server.connection("c1"))
    assert isinstance(welcomed, Welcomed)
    assert isinstance(admitted, Admitted)
    assert welcomed.version == admitted.version == control.PROTOCOL_VERSION
    assert welcomed.features == admitted.features == ("fragment", "superframe")
    assert admitted.identity.uri == SITE1
    group = server.groups.owner_of(bytes([10, 200, 5, 1]))
    assert group is not None
    assert group.session == welcomed.welcome.session
    assert group.connections == ["c1"]


@pytest.mark.parametrize(
    "credentials",
    [
        issue("x", FOREIGN_CA, names=[uri(SITE1)], usages=[CLIENT_AUTH]).credentials(),
        issue("x", None, names=[uri(SITE1)], usages=[CLIENT_AUTH]).credentials(),
        issue("x", CA, names=[uri(SITE1)], usages=[CLIENT_AUTH], end=NOW - dt.timedelta(hours=1)).credentials(),
        SERVER.credentials(),
        Credentials((CLIENT.der,), pki.p256()),
        Credentials((b"",), pki.p256()),
        Credentials((CLIENT.der, b"garbage"), CLIENT.credentials().key),
    ],
    ids=["foreign-ca", "self-signed", "expired", "server-certificate", "wrong-key", "empty", "garbage-in-chain"],
)
def test_an_attacker_gets_nothing_learns_nothing_and_leaves_no_state(credentials: Credentials) -> None:
    server = Server()
    result, log = converse(client(credentials), server.connection("evil"))
    assert result == Rejected("authentication", "client not authenticated", None)
    assert isinstance(log, Rejected)
    assert log.reason != "client not authenticated"
    assert server.admissions == 0
    assert_no_trace(server)


def test_without_a_certificate_there_is_no_register_message_at_all() -> None:
    register = _recorded_register(Server())
    fields = msgspec.to_builtins(register, builtin_types=(bytes,)) | {"certificates": []}
    data = msgspec.msgpack.encode({"type": "register", "id": 2, "body": fields})
    with pytest.raises(control.ControlError):
        control.decode(data)


@pytest.mark.parametrize("claimed", [("10.200.6.1/32",), ("10.200.5.0/24",), (*OWN, "0.0.0.0/0"), ("::/0",)])
def test_an_address_that_is_not_its_own_is_refused_with_the_reason_and_no_trace(claimed: tuple[str, ...]) -> None:
    server = Server()
    request = RegistrationRequest("mpq5", "wan5", b"b" * 16, 1, claimed)
    result, _ = converse(client(request=request), server.connection("c1"))
    assert isinstance(result, Rejected)
    assert result.code == RefuseCode.AUTHORIZATION
    assert "may not use" in result.reason
    assert_no_trace(server)


def _recorded_register(server: Server) -> Register:
    """Let a rightful client register, and keep what an eavesdropper inside the channel would have."""
    own, connection = client(), server.connection("rightful")
    [hello] = own.start()
    assert isinstance(hello, Send)
    [challenge] = connection.receive(hello.message, 0.0)
    assert isinstance(challenge, Send)
    [register] = own.receive(challenge.message, 0.0)
    assert isinstance(register, Send)
    assert isinstance(register.message, Register)
    return register.message


def test_a_recorded_registration_is_worth_nothing_on_another_connection() -> None:
    server = Server()
    recorded = _recorded_register(server)
    connection = server.connection("replay")
    connection.receive(Hello(min_version=2, max_version=2, nonce=b"n" * 32), 0.0)
    outputs = connection.receive(recorded, 0.0)
    assert isinstance(outputs[-1], Rejected)
    assert outputs[-1].code == RefuseCode.AUTHENTICATION
    assert_no_trace(server)


@pytest.mark.parametrize(
    "change",
    [{"tunnel": "mpq6"}, {"path": "wan6"}, {"epoch": 2}, {"boot_id": b"x" * 16}, {"inner": ["10.200.5.1/32"]}],
    ids=str,
)
def test_a_registration_that_was_altered_after_signing_is_refused(change: dict[str, object]) -> None:
    server, own = Server(), client()
    connection = server.connection("c1")
    [hello] = own.start()
    assert isinstance(hello, Send)
    [challenge] = connection.receive(hello.message, 0.0)
    assert isinstance(challenge, Send)
    [register] = own.receive(challenge.message, 0.0)
    assert isinstance(register, Send)
    altered = msgspec.structs.replace(register.message, **change)
    refuse, rejected = connection.receive(altered, 0.0)
    assert isinstance(refuse, Send)
    assert isinstance(rejected, Rejected)
    assert rejected.code == RefuseCode.AUTHENTICATION
    assert_no_trace(server)


def test_a_proof_made_for_another_server_is_refused() -> None:
    other = issue("evil", CA, names=[x509.DNSName("other.example.net")], usages=[pki.SERVER_AUTH])
    server = Server()
    relayed = ClientRegistration(REQUEST, CLIENT.credentials(), other.der, entropy, 0.0)
    result, _ = converse(relayed, server.connection("relay"))
    assert isinstance(result, Rejected)
    assert result.code == RefuseCode.AUTHENTICATION
    assert_no_trace(server)


def test_a_stale_epoch_is_refused_and_the_present_connection_stays() -> None:
    server = Server()
    converse(client(), server.connection("c1"))
    result, _ = converse(client(), server.connection("c2"))
    assert isinstance(result, Rejected)
    assert result.code == RefuseCode.STALE
    group = server.groups.get(SITE1, "mpq5")
    assert group is not None
    assert group.connections == ["c1"]


@pytest.mark.parametrize(("oldest", "newest"), [(1, 1), (7, 9)])
def test_a_client_with_another_version_is_told_which_ones_are_spoken(oldest: int, newest: int) -> None:
    connection = Server().connection("c1")
    refuse, rejected = connection.receive(Hello(min_version=oldest, max_version=newest, nonce=bytes(32)), 0.0)
    assert isinstance(refuse, Send)
    assert isinstance(refuse.message, Refuse)
    assert refuse.message.code == RefuseCode.VERSION
    assert f"client speaks {oldest}-{newest}, server speaks 2-2" in refuse.message.reason
    assert isinstance(rejected, Rejected)


def test_a_newer_client_that_also_speaks_our_version_is_welcome_with_what_both_can() -> None:
    connection = Server().connection("c1")
    hello = Hello(min_version=1, max_version=9, nonce=bytes(32), features=["superframe", "telepathy"])
    [challenge] = connection.receive(hello, 0.0)
    assert isinstance(challenge, Send)
    assert isinstance(challenge.message, Challenge)
    assert (challenge.message.version, challenge.message.features) == (2, ["superframe"])


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_required_feature_that_the_other_end_lacks_ends_it_with_its_name(side: str) -> None:
    server = Server()
    one = client(required=frozenset({"telepathy"})) if side == "client" else client()
    other = server.connection("c1", required=frozenset({"telepathy"})) if side == "server" else server.connection("c1")
    result, log = converse(one, other)
    for rejected in (result, log):
        assert isinstance(rejected, Rejected)
        assert "telepathy" in rejected.reason
    assert_no_trace(server)


@pytest.mark.parametrize(
    "message", [Probe(sequence=1), Bye(), Wait(), Welcome(session=bytes(8), inner=[])], ids=lambda m: m.TYPE
)
def test_the_server_hears_nothing_else_before_registration(message: Message) -> None:
    for steps in (0, 1):
        connection = Server().connection("c1")
        if steps:
            connection.receive(Hello(min_version=2, max_version=2, nonce=bytes(32)), 0.0)
        refuse, rejected = connection.receive(message, 0.0)
        assert isinstance(rejected, Rejected)
        assert rejected.code == RefuseCode.PROTOCOL
        assert isinstance(refuse, Send)
        assert connection.state is HandshakeState.FAILED
        assert connection.receive(Hello(min_version=2, max_version=2, nonce=bytes(32)), 0.0) == []


def test_the_client_refuses_messages_out_of_order() -> None:
    one = client()
    one.start()
    [rejected] = one.receive(Welcome(session=bytes(8), inner=[]), 0.0)
    assert isinstance(rejected, Rejected)
    assert one.state is HandshakeState.FAILED


def test_unknown_messages_are_passed_over() -> None:
    connection = Server().connection("c1")
    assert connection.receive(Unknown("forecast"), 0.0) == []
    assert connection.state is HandshakeState.START
    one = client()
    one.start()
    assert one.receive(Unknown("forecast"), 0.0) == []


class Undecided:
    """A server that decides later; `answer` is what it then says."""

    def __init__(self) -> None:
        self.answer: Welcome | RegistrationRefusedError | None = None
        self.asked = 0
        verifier = ChainVerifier([CA.certificate])
        self.own = client()
        self.connection = ServerRegistration(verifier, SERVER.der, self._admit, lambda: NOW, entropy, 0.0, timeout=5.0)
        [hello] = self.own.start()
        assert isinstance(hello, Send)
        [challenge] = self.connection.receive(hello.message, 0.0)
        assert isinstance(challenge, Send)
        [register] = self.own.receive(challenge.message, 0.0)
        assert isinstance(register, Send)
        assert self.connection.receive(register.message, 0.5) == []

    def _admit(self, identity: Identity, register: Register) -> Welcome | None:
        assert (identity.uri, register.tunnel) == (SITE1, "mpq5")
        self.asked += 1
        if isinstance(self.answer, RegistrationRefusedError):
            raise self.answer
        return self.answer


def test_a_registration_waits_for_its_decision_and_its_client_hears_of_it() -> None:
    both = Undecided()
    assert both.connection.decide(0.6) == []
    assert both.connection.poll(1.4) == []
    [wait] = both.connection.poll(1.5)
    assert isinstance(wait, Send)
    assert isinstance(wait.message, Wait)
    assert both.own.receive(wait.message, 1.5) == []
    assert both.connection.poll(1.6) == []
    both.answer = Welcome(session=bytes(8), inner=[])
    welcome, admitted = both.connection.decide(2.0)
    assert isinstance(welcome, Send)
    assert isinstance(admitted, Admitted)
    [welcomed] = both.own.receive(welcome.message, 2.0)
    assert isinstance(welcomed, Welcomed)
    assert both.asked == 3
    assert both.connection.decide(2.1) == both.connection.poll(9.0) == []


def test_a_registration_that_waits_is_refused_with_the_address_of_who_is_there() -> None:
    both = Undecided()
    both.answer = RegistrationRefusedError(RefuseCode.IN_USE, "another machine", 4.0, "192.0.2.1:4711")
    refuse, log = both.connection.decide(1.0)
    assert isinstance(refuse, Send)
    assert isinstance(log, Rejected)
    assert (log.identity, log.tunnel) == (SITE1, "mpq5")
    assert both.own.receive(refuse.message, 1.0) == [Rejected("in_use", "another machine", 4.0, peer="192.0.2.1:4711")]


def test_a_registration_does_not_wait_beyond_its_deadline() -> None:
    both = Undecided()
    both.answer = Welcome(session=bytes(8), inner=[])
    [late] = both.connection.decide(5.0)
    assert isinstance(late, Rejected)
    assert (late.code, both.asked) == ("timeout", 1)


def test_both_sides_give_up_at_their_deadline() -> None:
    connection, one = Server().connection("c1", timeout=5.0), client(timeout=10.0)
    one.start()
    connection.receive(Hello(min_version=2, max_version=2, nonce=bytes(32)), 0.0)
    assert connection.poll(4.99) == []
    [late] = connection.poll(5.0)
    assert isinstance(late, Rejected)
    assert connection.poll(6.0) == []
    assert one.poll(9.9) == []
    [rejected] = one.receive(Challenge(version=1, nonce=bytes(32)), 10.0)
    assert isinstance(rejected, Rejected)
    assert rejected.code == "timeout"


def test_a_registration_after_the_deadline_has_no_effect() -> None:
    server = Server()
    own, connection = client(), server.connection("c1", timeout=5.0)
    [hello] = own.start()
    assert isinstance(hello, Send)
    [challenge] = connection.receive(hello.message, 0.0)
    assert isinstance(challenge, Send)
    [register] = own.receive(challenge.message, 0.0)
    assert isinstance(register, Send)
    [rejected] = connection.receive(register.message, 5.0)
    assert isinstance(rejected, Rejected)
    assert_no_trace(server)


@pytest.mark.parametrize("version", [1, 3])
def test_a_server_that_chooses_a_version_nobody_offered_is_left(version: int) -> None:
    one = client()
    one.start()
    [rejected] = one.receive(Challenge(version=version, nonce=bytes(32)), 0.0)
    assert isinstance(rejected, Rejected)
    assert rejected.code == RefuseCode.VERSION


def test_the_largest_registration_fits_a_message() -> None:
    register = msgspec.structs.replace(
        _recorded_register(Server()), certificates=[bytes(2000)] * 3, inner=["f" * 43] * 64
    )
    assert len(control.encode(register, 2)) <= control.MAX_MESSAGE


def test_nothing_is_offered_that_does_not_exist() -> None:
    assert "report" not in FEATURES


def test_what_an_older_client_says_beyond_is_ignored() -> None:
    """Earlier clients sent `limits`, which nobody read."""
    body = {
        "min_version": 2,
        "max_version": 2,
        "nonce": bytes(32),
        "features": ["report"],
        "limits": {"max_message": 9},
    }
    data = msgspec.msgpack.encode({"type": "hello", "id": 1, "body": body})
    [(_, hello)] = ControlDecoder().feed(len(data).to_bytes(4, "big") + data)
    assert isinstance(hello, Hello)
    assert hello.features == ["report"]
