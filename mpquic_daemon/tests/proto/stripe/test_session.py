"""Two ends over a link that loses, doubles and reorders: what arrives, at what rate, and what is left behind."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpquic.proto.congestion.bbr import BbrState
from mpquic.proto.packet.frame import LOW_LATENCY
from mpquic.proto.stripe import keys, pipes
from mpquic.proto.stripe.adaptive import FecMode
from mpquic.proto.stripe.config import StripeConfig
from mpquic.proto.stripe.pipe import DEAD_AFTER

from .duplex import Duplex, LinkProfile
from .inner_tcp import InnerTcp

MSS_SHARE = 1448 / 1500


def goodput_share(duplex: Duplex, seconds: float = 1.5) -> float:
    """Share of what plain TCP would carry on the same link, were it not to mind the loss."""
    duplex.run_until_ready()
    duplex.client.offer(10**9)
    duplex.run(1.0)
    before = duplex.server.received_bytes
    duplex.run(seconds)
    profile = duplex.up.profile
    limit = profile.rate * (1 - profile.loss) * MSS_SHARE
    return (duplex.server.received_bytes - before) / seconds / limit


def drain(duplex: Duplex) -> int:
    """Stop the source, wait for what is on its way, and return how many frames never arrived."""
    duplex.client.backlog = 0
    duplex.run(1.5)
    return duplex.client.next_sequence - len(duplex.server.received)


@pytest.mark.simulation
@pytest.mark.parametrize(
    ("loss", "least"), [(0.0, 0.96), (0.01, 0.95), (0.05, 0.92), (0.1, 0.90), (0.3, 0.80)], ids=lambda value: f"{value}"
)
def test_a_bulk_flow_gets_nearly_all_that_a_lossy_link_can_carry(loss: float, least: float) -> None:
    duplex = Duplex(seed=7, up=LinkProfile(loss=loss))
    share = goodput_share(duplex)
    missing = drain(duplex)
    assert share >= least
    assert missing <= duplex.client.next_sequence * 1e-3
    assert duplex.up.tail_drops <= duplex.up.sent * 0.01


def test_a_clean_link_carries_no_redundancy() -> None:
    duplex = Duplex()
    goodput_share(duplex, 1.0)
    sender = duplex.client.session.sender
    assert (sender.parity_shards, sender.recovery.arq.retransmitted, sender.recovery.inflight.spurious) == (0, 0, 0)
    assert drain(duplex) == 0
    assert duplex.server.session.receiver.refused == {}


@pytest.mark.parametrize("loss", [0.0, 0.1, 0.5])
def test_a_time_to_send_is_never_told_when_there_is_nothing_to_send_by(loss: float) -> None:
    """Else an event loop that waits for that time spins: copies that wait, and can't be sent, have taken the budget."""
    duplex = Duplex(seed=3, up=LinkProfile(rate=2e5, loss=loss, delay=0.05), down=LinkProfile(loss=loss, delay=0.05))
    duplex.run_until_ready()
    duplex.client.offer(10**8)
    session, told = duplex.client.session, 0
    for _ in range(3000):
        duplex.run(0.001)
        at = session.send_time(duplex.now)
        if at is not None and at <= duplex.now:
            assert session.budget(duplex.now) > 0
            told += 1
    assert told


def test_a_session_that_has_used_up_its_keys_wants_nothing_more() -> None:
    duplex = Duplex()
    duplex.run_until_ready()
    session = duplex.client.session
    assert session.next_time(duplex.now) is not None
    session.exhausted = True
    assert session.next_time(duplex.now + 100.0) is None
    session.poll(duplex.now + 100.0)
    assert session.take_outgoing() == []
    assert session.take_outgoing() == []


def test_a_reply_that_waited_while_this_process_slept_says_nothing_of_now() -> None:
    asked, both = 100.0, pipes.Pipes(2, 100.0, client=True, entropy=os.urandom)
    assert both.on_reply(0, asked, asked + 0.03) == pytest.approx(0.03)
    assert both.all[0] in both.alive(asked + 1.0)
    assert both.on_reply(1, asked, asked + 45.0) is None
    assert both.alive(asked + 45.0) == []


@pytest.mark.parametrize("phase", [0.0, 0.2, 0.4, 0.6, 0.8])
@pytest.mark.parametrize("frames", [0, 1])
def test_a_server_knows_since_when_it_is_not_heard(phase: float, frames: int) -> None:
    """Its client goes on asking, and the first of its requests then says that it has had a reply since the last."""
    duplex = Duplex()
    duplex.run_until_ready()
    for _ in range(100 + round(phase * 20)):
        duplex.server.offer(frames)
        duplex.run(0.05)
    cut = duplex.now
    duplex.down.profile.loss = 1.0
    duplex.run(3.0)
    proved = duplex.server.session.round_trip_at
    assert proved is not None
    assert proved <= cut + 0.1
    assert duplex.server.session.heard_at > cut + 2.0


def test_the_queue_stays_short() -> None:
    duplex = Duplex(up=LinkProfile(buffer=2.0))
    goodput_share(duplex)
    duplex.server.latencies.clear()
    duplex.run(1.0)
    latencies = sorted(duplex.server.latencies)
    assert latencies[len(latencies) // 2] < 0.030
    assert latencies[len(latencies) * 99 // 100] < 0.060


def test_a_drop_of_capacity_is_followed_and_a_rise_is_found() -> None:
    duplex = Duplex()
    goodput_share(duplex, 0.5)
    duplex.up.profile.rate = 0.6e6
    drops = duplex.up.tail_drops
    duplex.run(1.5)
    assert duplex.up.tail_drops - drops < 500
    drops = duplex.up.tail_drops
    assert goodput_share(duplex, 1.0) > 0.85
    assert duplex.up.tail_drops == drops
    duplex.up.profile.rate = 2.5e6
    duplex.run(2.0)
    assert goodput_share(duplex, 1.0) > 0.9


def test_a_policer_without_a_queue_is_not_overrun() -> None:
    duplex = Duplex(up=LinkProfile(buffer=0.004))
    assert goodput_share(duplex) > 0.78
    before, sent = duplex.up.tail_drops, duplex.up.sent
    duplex.run(1.0)
    assert duplex.up.tail_drops - before < (duplex.up.sent - sent) * 0.08


def test_pipes_add_up_where_each_flow_is_shaped() -> None:
    def rate(pipes: int) -> float:
        profile = LinkProfile(rate=2.5e6, pipe_rate=0.5e6)
        return goodput_share(Duplex(config=StripeConfig(pipes=pipes), up=profile))

    assert rate(1) < 0.21
    assert rate(4) > 0.70


def test_reordering_is_learned_and_not_taken_for_loss() -> None:
    duplex = Duplex(up=LinkProfile(reorder=0.02, jitter=0.002))
    assert goodput_share(duplex) > 0.85
    sender = duplex.client.session.sender
    spurious, sent = sender.recovery.inflight.spurious, duplex.up.sent
    assert sender.recovery.inflight.reordering > 3
    duplex.run(1.0)
    assert sender.recovery.inflight.spurious - spurious < (duplex.up.sent - sent) * 0.01
    assert drain(duplex) == 0


@pytest.mark.parametrize("mode", list(FecMode))
def test_every_mode_of_fec_delivers_everything(mode: FecMode) -> None:
    duplex = Duplex(config=StripeConfig(fec=mode), up=LinkProfile(loss=0.05), down=LinkProfile(loss=0.05))
    duplex.run_until_ready()
    for _ in range(20):
        duplex.client.offer(50)
        duplex.run(0.05)
    sender = duplex.client.session.sender
    assert drain(duplex) == 0
    assert (sender.parity_shards > 0) is (mode is not FecMode.OFF)
    if mode is FecMode.ALWAYS:
        assert sender.parity_shards == pytest.approx(sender.data_shards * 0.25, rel=0.25)
        assert duplex.server.session.receiver.decoder.repaired > 20


def test_repaired_loss_is_still_loss_for_the_controller() -> None:
    duplex = Duplex(config=StripeConfig(fec=FecMode.ALWAYS, parity_shards=5), up=LinkProfile(loss=0.05))
    goodput_share(duplex)
    sender = duplex.client.session.sender
    assert sender.recovery.loss.loss == pytest.approx(0.05, abs=0.02)
    assert sender.recovery.arq.retransmitted < sender.recovery.inflight.lost_shards * 0.05


def test_redundancy_stays_within_its_share() -> None:
    config = StripeConfig(max_overhead=0.1)
    duplex = Duplex(config=config, up=LinkProfile(loss=0.3))
    goodput_share(duplex)
    sender = duplex.client.session.sender
    extra = sender.parity_shards + sender.recovery.arq.retransmitted
    assert 0 < extra <= 0.1 * sender.data_shards + 65536 / config.datagram_size + 1


def test_a_critical_packet_on_a_lossy_link_comes_soon_or_not_at_all() -> None:
    duplex = Duplex(seed=3, up=LinkProfile(loss=0.05), down=LinkProfile(loss=0.05))
    duplex.client.traffic_class = LOW_LATENCY
    duplex.client.frame_size = 200
    duplex.run_until_ready()
    for _ in range(1000):
        duplex.client.offer(2)
        duplex.run(0.01)
    missing = drain(duplex)
    assert missing <= 0.003 * duplex.client.next_sequence
    assert max(duplex.server.latencies) < 0.2
    assert sorted(duplex.server.latencies)[-20] < 0.06


def test_the_last_packet_of_a_burst_is_not_left_lost() -> None:
    for seed in range(12):
        duplex = Duplex(seed=seed, up=LinkProfile(loss=0.3), down=LinkProfile(loss=0.3))
        duplex.run_until_ready(20.0)
        duplex.client.offer(3)
        duplex.run(1.5)
        assert len(duplex.server.received) >= 2, seed


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    loss=st.floats(0, 0.15),
    back=st.floats(0, 0.15),
    duplicate=st.floats(0, 0.2),
    reorder=st.floats(0, 0.2),
    size=st.integers(20, 1380),
)
def test_whatever_the_link_does_nothing_is_forged_lost_or_kept(
    seed: int, loss: float, back: float, duplicate: float, reorder: float, size: int
) -> None:
    up = LinkProfile(loss=loss, duplicate=duplicate, reorder=reorder, jitter=0.001)
    duplex = Duplex(seed=seed, up=up, down=LinkProfile(loss=back, duplicate=duplicate, reorder=reorder))
    duplex.client.frame_size = size
    duplex.run_until_ready()
    for _ in range(5):
        duplex.client.offer(60)
        duplex.server.offer(30)
        duplex.run(0.1)
    assert drain(duplex) <= 1
    sender, receiver = duplex.client.session.sender, duplex.server.session.receiver
    duplex.run(3.0)
    assert sender.recovery.inflight.bytes == 0
    assert len(sender.recovery.arq) == 0
    assert len(receiver.decoder) == 0
    assert set(receiver.refused) <= {"replayed", "late"}


def test_keys_move_in_both_directions_under_loss_and_reordering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "REKEY_INTERVAL", 0.3)
    monkeypatch.setattr(pipes, "KEEPALIVE_INTERVAL", 0.1)
    bad = LinkProfile(loss=0.05, reorder=0.1, jitter=0.005, rate=1.25e6)
    duplex = Duplex(up=bad, down=LinkProfile(loss=0.05, reorder=0.1, rate=1.25e6))
    duplex.run_until_ready()
    for _ in range(150):
        duplex.client.offer(6)
        duplex.server.offer(6)
        duplex.run(0.02)
    assert drain(duplex) == 0
    assert len(duplex.client.received) == duplex.server.next_sequence
    for session in (duplex.client.session, duplex.server.session):
        assert min(session.epochs) >= 7
        assert "forged" not in session.receiver.refused
        assert "epoch" not in session.receiver.refused


def test_keys_move_though_nothing_but_keepalives_is_sent() -> None:
    duplex = Duplex()
    duplex.run_until_ready()
    duplex.run(250.0)
    assert duplex.client.session.epochs == duplex.server.session.epochs == (2, 2)
    assert duplex.server.session.ready(duplex.now)


def test_a_restart_leaves_nothing_behind() -> None:
    duplex = Duplex(up=LinkProfile(loss=0.1))
    goodput_share(duplex, 0.5)
    duplex.client.offer(100)
    old = duplex.client.next_sequence
    duplex.restart(0x1234, bytes(reversed(range(32))))
    sequence, duplex.client.next_sequence, duplex.client.backlog = 0, 0, 0
    duplex.client.sent_at.clear()
    before = dict(duplex.server.received)
    duplex.run_until_ready()
    duplex.client.offer(200)
    duplex.run(1.5)
    receiver = duplex.server.session.receiver
    assert receiver.refused["session"] > 0
    assert duplex.client.next_sequence == 200
    assert all(before[number] <= duplex.now for number in range(sequence, 200))
    assert receiver.window.highest < old
    assert receiver.shards >= 200
    assert duplex.client.session.sender.controller.state is not BbrState.PROBE_RTT  # type: ignore[attr-defined]


def test_dead_pipes_are_left_and_used_again_when_they_return() -> None:
    duplex = Duplex()
    duplex.run_until_ready()
    duplex.run(0.5)
    duplex.up.profile.dead_pipes.update({1, 2})
    duplex.run(5.0)
    now = duplex.now
    assert [pipe.number for pipe in duplex.client.session.pipes.alive(now)] == [0, 3]
    assert [pipe.number for pipe in duplex.server.session.pipes.alive(now)] == [0, 3]
    duplex.client.offer(500)
    duplex.run(1.0)
    assert len(duplex.server.received) == 500
    assert duplex.client.session.sender.recovery.arq.retransmitted == 0
    duplex.up.profile.dead_pipes.clear()
    duplex.run(1.0)
    assert len(duplex.server.session.pipes.alive(duplex.now)) == 4
    spread = [pipe.charged_bytes for pipe in duplex.client.session.pipes.all]
    duplex.client.offer(1000)
    duplex.run(1.0)
    carried = [
        pipe.charged_bytes - before for pipe, before in zip(duplex.client.session.pipes.all, spread, strict=True)
    ]
    assert max(carried) < 2 * min(carried)


@pytest.mark.parametrize("number", range(4))
def test_a_pipe_that_dies_while_its_turn_comes_delays_single_packets_by_a_few_probes(number: int) -> None:
    duplex = Duplex(seed=number)
    duplex.run_until_ready()
    duplex.run(0.5)
    duplex.client.offer(400)
    duplex.run(1.0)
    client = duplex.client.session
    # As behind runs of bulk at a high rate: all that is small goes to one pipe until it has made up for it.
    client.pipes.all[number].charged_bytes -= 400_000
    duplex.up.profile.dead_pipes.add(number)
    duplex.server.latencies.clear()
    for _ in range(40):
        duplex.client.offer(1)
        duplex.run(0.05)
    duplex.run(0.5)
    assert number in {pipe.number for pipe in client.pipes.alive(duplex.now)}
    assert len(duplex.server.latencies) == 40
    assert max(duplex.server.latencies) < 0.35


def test_a_pipe_that_is_cut_in_one_direction_is_used_in_none() -> None:
    duplex = Duplex()
    duplex.run_until_ready()
    duplex.down.profile.dead_pipes.add(2)
    duplex.run(5.0)
    for session in (duplex.client.session, duplex.server.session):
        assert [pipe.number for pipe in session.pipes.alive(duplex.now)] == [0, 1, 3]


def test_both_ends_know_in_time_that_no_pipe_carries_though_nothing_is_sent() -> None:
    duplex = Duplex()
    duplex.run_until_ready()
    duplex.run(20.0)
    duplex.up.profile.loss = 1.0
    duplex.run(pipes.KEEPALIVE_INTERVAL)
    for session in (duplex.client.session, duplex.server.session):
        # As an owner does who looks at it only when it is due.
        now, until = duplex.now, duplex.now + DEAD_AFTER
        while session.ready(now):
            due = session.next_time(now)
            assert due is not None
            assert due <= until
            now = max(due, now + 0.001)
            session.poll(now)


def test_an_outage_is_survived_and_no_stale_bulk_follows() -> None:
    duplex = Duplex()
    goodput_share(duplex, 0.5)
    duplex.up.profile.loss = duplex.down.profile.loss = 1.0
    duplex.run(3.0)
    duplex.client.backlog = 0
    duplex.up.profile.loss = duplex.down.profile.loss = 0.0
    duplex.run_until_ready()
    sent = duplex.up.sent
    duplex.run(0.2)
    assert duplex.up.sent - sent < 50
    assert goodput_share(duplex, 1.0) > 0.9


@pytest.mark.parametrize("pause", [0.02, 0.002], ids=["now and then", "like acknowledgements"])
def test_a_trickle_teaches_nothing_about_the_link(pause: float) -> None:
    duplex = Duplex()
    duplex.run_until_ready()
    duplex.client.frame_size = 60
    for _ in range(int(2 / pause)):
        duplex.client.offer(1)
        duplex.run(pause)
    duplex.client.frame_size = 1380
    duplex.client.offer(10**9)
    duplex.run(0.5)
    before = duplex.server.received_bytes
    duplex.run(0.5)
    assert (duplex.server.received_bytes - before) / 0.5 > 0.85 * duplex.up.profile.rate


@pytest.mark.parametrize("loss", [0.02, 0.1, 0.3])
def test_a_connection_inside_sees_its_segments_in_order(loss: float) -> None:
    duplex = Duplex(seed=11, up=LinkProfile(loss=loss))
    duplex.client.tcp = True
    goodput_share(duplex)
    order = duplex.server.order
    assert order.held > 100
    assert duplex.server.out_of_order <= len(duplex.server.received) * 1e-3
    assert drain(duplex) <= duplex.client.next_sequence * 1e-3
    assert order.bytes == 0
    assert max(duplex.server.latencies) < 1.3


@pytest.mark.simulation
@pytest.mark.parametrize(("loss", "seed", "least"), [(0.1, 5, 0.85), (0.3, 2, 0.85), (0.3, 5, 0.85)])
def test_a_connection_inside_uses_most_of_what_a_lossy_link_can_carry(loss: float, seed: int, least: float) -> None:
    """The share of `goodput` that the bench's case `lossy` measures, on the same link."""
    duplex = Duplex(seed=seed, up=LinkProfile(rate=6.25e6, buffer=0.03))
    duplex.run_until_ready()
    duplex.up.profile.loss = loss
    tcp = InnerTcp(duplex)
    tcp.run(3.0)
    share = tcp.goodput(5.0) / (duplex.up.profile.rate * (1 - loss) * MSS_SHARE)
    sender = duplex.client.session.sender
    assert share >= least
    assert duplex.server.order.given_up == 0
    redundancy = sender.parity_shards + sender.recovery.arq.retransmitted
    assert redundancy <= 0.5 * sender.data_shards + 65536 / sender.datagram_size
