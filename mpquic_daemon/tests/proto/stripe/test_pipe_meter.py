"""What each pipe tells of itself: its losses and round trip in each direction, and nothing of those of the others."""

from __future__ import annotations

from itertools import pairwise
from statistics import mean
from typing import TYPE_CHECKING

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from mpquic.proto.path.estimators import LOSS_WINDOW
from mpquic.proto.stripe.adaptive import FecMode
from mpquic.proto.stripe.config import StripeConfig
from mpquic.proto.stripe.keepalive import Keepalive, PipeRtt, encode_keepalive
from mpquic.proto.stripe.pipe_meter import ReceivingMeter
from mpquic.proto.stripe.wire import PacketType

from .duplex import Duplex, LinkProfile

if TYPE_CHECKING:
    from .duplex import Host, Link

PIPES = range(4)
BAD = 2
SECONDS = 8
STEP = 0.5
COVERED = round(LOSS_WINDOW / STEP)
WIDE = 1.25e7
"""Bytes per second with which no queue adds to the round trip."""


def load(duplex: Duplex, seconds: float, *, frames: int = 8, pause: float = 0.01) -> None:
    """Send as many frames both ways in each pause."""
    for _ in range(round(seconds / pause)):
        duplex.client.offer(frames)
        duplex.server.offer(frames)
        duplex.run(pause)


def settle(duplex: Duplex) -> None:
    """Let everything that is on its way be acknowledged or lost, and told."""
    duplex.run(4.0)


def totals_agree(host: Host) -> None:
    session = host.session
    sending, receiving = ([getattr(pipe, name) for pipe in session.pipes.all] for name in ("sending", "receiving"))
    inflight = session.sender.recovery.inflight
    assert sum(meter.datagrams for meter in sending) == session.traffic.tx_datagrams
    assert sum(meter.octets for meter in sending) == session.traffic.tx_bytes
    assert sum(meter.acked for meter in sending) == inflight.arrived_shards
    assert sum(meter.lost for meter in sending) == inflight.lost_shards
    assert sum(meter.shards for meter in receiving) == session.receiver.shards
    refused = sum(session.receiver.refused.values())
    assert sum(meter.datagrams for meter in receiving) == session.traffic.rx_datagrams - refused
    if not refused:
        assert sum(meter.octets for meter in receiving) == session.traffic.rx_bytes


def share(lost: int, rest: int) -> float:
    return lost / (lost + rest)


@pytest.mark.simulation
@pytest.mark.parametrize("burst", [1.0, 6.0], ids=["single", "bursts"])
@pytest.mark.parametrize("lossy", ["up", "down", "both"])
@settings(max_examples=2, deadline=None, phases=[Phase.generate])
@given(
    seed=st.integers(0, 2**32), frames=st.sampled_from([2, 8, 60]), fec=st.sampled_from([FecMode.ADAPTIVE, FecMode.OFF])
)
def test_a_pipe_that_loses_three_of_ten_is_told_from_the_others(
    lossy: str, burst: float, seed: int, frames: int, fec: FecMode
) -> None:
    profile = {
        name: LinkProfile(pipe_loss={BAD: 0.3} if lossy in (name, "both") else {}, pipe_burst=burst)
        for name in ("up", "down")
    }
    duplex = Duplex(seed, config=StripeConfig(fec=fec), **profile)
    duplex.run_until_ready()
    # The proof of the bad pipe's address may be lost a few times in a row.
    while any(pipe.address is None for pipe in duplex.server.session.pipes.all):
        assert duplex.now < 160.0
        duplex.run(0.1)
    directions = ((duplex.client, duplex.server, duplex.up), (duplex.server, duplex.client, duplex.down))
    estimates: dict[Link, list[list[float]]] = {duplex.up: [], duplex.down: []}
    told: dict[Link, list[list[float]]] = {duplex.up: [], duplex.down: []}
    sent: dict[Link, list[list[tuple[int, int]]]] = {duplex.up: [], duplex.down: []}
    for _ in range(round(SECONDS / STEP)):
        load(duplex, STEP, frames=frames, pause=frames / 800)
        for sender, receiver, link in directions:
            estimates[link].append([pipe.sending.loss for pipe in sender.session.pipes.all])
            told[link].append([pipe.receiving.loss for pipe in receiver.session.pipes.all])
            sent[link].append([(link.pipe_lost[number], link.pipe_shards[number]) for number in PIPES])
    # What is told at the end is to come through.
    lossy_links = [link for link in (duplex.up, duplex.down) if link.profile.pipe_loss]
    for link in lossy_links:
        link.profile.pipe_loss = {}
    settle(duplex)
    for sender, receiver, link in directions:
        for number in PIPES:
            sending = sender.session.pipes.all[number].sending
            receiving = receiver.session.pipes.all[number].receiving
            true = share(link.pipe_lost[number], link.pipe_shards[number] - link.pipe_lost[number])
            if number == BAD and link in lossy_links:
                assert true > (0.2 if burst == 1.0 else 0.1), "the link isn't what it is meant to be"
            else:
                assert true == 0.0
            # At the end everything is known, and what was called lost and came after all is put right.
            assert sending.shards == link.pipe_shards[number]
            assert sending.acked + sending.lost == sending.shards
            assert share(sending.lost, sending.acked) == pytest.approx(true, abs=0.005)
            assert share(receiving.lost, receiving.shards) == pytest.approx(true, abs=0.005)
            # And all the while it is that of the time which an estimate covers.
            counts = [each[number] for each in sent[link]]
            # A long run goes by one pipe, so another may have none for a while.
            shares = {
                place: (after[0] - before[0]) / (after[1] - before[1])
                for place, (before, after) in enumerate(zip(counts, counts[COVERED:], strict=False), COVERED)
                if after[1] > before[1]
            }
            # A receiver is told once a second: bursts of that second are in the one share and not in the other.
            for kept, within in ((estimates[link], 0.03), (told[link], 0.03 if burst == 1.0 else 0.07)):
                recent = [kept[place][number] for place in shares]
                assert mean(recent) == pytest.approx(mean(shares.values()), abs=within)
                if not true:
                    assert max(recent) < 0.01
        totals_agree(sender)


@pytest.mark.parametrize("extra", [0.08, 0.3])
def test_a_pipe_with_a_longer_way_is_told_from_the_others(extra: float) -> None:
    profile = LinkProfile(rate=WIDE, pipe_delay={BAD: extra / 2})
    duplex = Duplex(up=profile, down=profile)
    duplex.run_until_ready()
    load(duplex, 5.0)
    for host in (duplex.client, duplex.server):
        for pipe in host.session.pipes.all:
            true = 0.03 + (extra if pipe.number == BAD else 0.0)
            assert pipe.rtt.smoothed == pytest.approx(true, abs=max(0.2 * true, 0.005))
    settle(duplex)
    for host in (duplex.client, duplex.server):
        for pipe in host.session.pipes.all:
            assert share(pipe.sending.lost, pipe.sending.acked) < 0.01, "late is not lost"
            assert pipe.receiving.lost == 0
        totals_agree(host)


@pytest.mark.parametrize("after", [0.11, 0.03])
@pytest.mark.parametrize("idle", [False, True])
def test_the_round_trip_of_a_pipe_is_right_3_s_after_a_change(after: float, *, idle: bool) -> None:
    """The server, which sends no requests, is told by the next one."""
    before = 0.03 if after > 0.03 else 0.15
    duplex = Duplex(up=LinkProfile(rate=WIDE, delay=before / 2))
    duplex.run_until_ready()
    load(duplex, 2.0)
    if idle:
        duplex.run(8.0)
    for link in (duplex.up, duplex.down):
        link.profile.pipe_delay = {BAD: (after - before) / 2}
    for host, seconds in ((duplex.client, 3.0), (duplex.server, 1.0)):
        load(duplex, seconds)
        for pipe in host.session.pipes.all:
            true = after if pipe.number == BAD else before
            assert pipe.rtt.smoothed == pytest.approx(true, abs=max(0.2 * true, 0.005))


def test_what_was_called_lost_and_came_after_all_is_put_right() -> None:
    duplex = Duplex()
    duplex.run_until_ready()
    load(duplex, 1.0)
    sending = [pipe.sending for pipe in duplex.client.session.pipes.all]
    duplex.up.profile.pipe_delay = {BAD: 0.15}
    load(duplex, 0.1)
    for _ in range(60):
        load(duplex, 0.005, pause=0.005)
        if sending[BAD].lost:
            break
    assert sending[BAD].lost > 0, "the test's premise"
    duplex.up.profile.pipe_delay = {}
    load(duplex, 0.5)
    settle(duplex)
    assert duplex.client.session.sender.recovery.inflight.spurious > 0
    assert [meter.lost for meter in sending] == [0] * 4
    assert [meter.acked for meter in sending] == [meter.shards for meter in sending]
    totals_agree(duplex.client)


@pytest.mark.parametrize("loss", [0.0, 0.05, 0.3])
def test_pipes_add_up_to_the_path_whatever_is_lost_doubled_and_overtaken(loss: float) -> None:
    profile = LinkProfile(loss=loss, duplicate=0.05, reorder=0.05, jitter=0.001)
    duplex = Duplex(5, up=profile, down=profile)
    duplex.run_until_ready()
    for _ in range(20):
        load(duplex, 0.1)
        totals_agree(duplex.client)
        totals_agree(duplex.server)
    settle(duplex)
    for host, peer, link in ((duplex.client, duplex.server, duplex.up), (duplex.server, duplex.client, duplex.down)):
        totals_agree(host)
        for pipe, other in zip(host.session.pipes.all, peer.session.pipes.all, strict=True):
            assert pipe.sending.acked + pipe.sending.lost == pipe.sending.shards == link.pipe_shards[pipe.number]
            assert other.receiving.lost == pipe.sending.shards - other.receiving.shards


def test_a_pipe_tells_when_it_was_heard_and_when_what_it_carried_was_acknowledged() -> None:
    duplex = Duplex()
    duplex.run_until_ready()
    load(duplex, 1.0)
    cut = duplex.now
    duplex.up.profile.dead_pipes = {BAD}
    load(duplex, 2.0)
    pipes, theirs = duplex.client.session.pipes.all, duplex.server.session.pipes.all
    for number in PIPES:
        acked_at, heard_at = pipes[number].sending.acked_at, theirs[number].receiving.heard_at
        assert acked_at is not None
        assert heard_at is not None
        assert (acked_at < cut + 0.1, heard_at < cut + 0.1) == (number == BAD, number == BAD)
        assert (pipes[number].receiving.heard_at or 0.0) > cut + 1.0, "the other direction is whole"


def test_a_count_that_was_overtaken_tells_nothing_and_one_that_is_nonsense_does_no_harm() -> None:
    meter = ReceivingMeter()
    meter.on_told(100, 90, 1.0)
    assert meter.lost == 10
    meter.on_told(50, 95, 1.1)
    assert meter.lost == 10
    meter.on_told(100, 95, 1.2)
    assert meter.lost == 5
    meter.on_told(100, 300, 1.3)
    assert (meter.lost, meter.loss) == (0, 0.0)
    meter.on_told(2**64 - 1, 300, 1.4)
    assert 0.99 < meter.loss <= 1.0


def test_a_round_trip_of_a_pipe_that_is_not_there_is_nobodys() -> None:
    duplex = Duplex()
    duplex.run_until_ready()
    client, server = duplex.client.session, duplex.server.session
    before = [pipe.rtt.samples for pipe in server.pipes.all]
    body = encode_keepalive(Keepalive.REQUEST, 0, duplex.now, PipeRtt(255, 9.0, 0.0))
    request = client._sealer.seal_control(PacketType.KEEPALIVE, 0, body)
    server.receive([(request, len(request), ("192.0.2.1", 40000))], duplex.now)
    assert [pipe.rtt.samples for pipe in server.pipes.all] == before
    assert server.rtt == pytest.approx(0.03, abs=0.005)


@pytest.mark.parametrize(("before", "after"), [(0.034, 0.16), (0.16, 0.034), (0.034, 0.6)])
@pytest.mark.parametrize("idle", [False, True])
def test_both_ends_know_the_round_trip_of_the_path_3_s_after_a_change(
    before: float, after: float, *, idle: bool
) -> None:
    for moment in (0.0, 0.3, 0.7):  # of the second in which requests come
        duplex = Duplex(up=LinkProfile(rate=WIDE, delay=before / 2))
        duplex.run_until_ready()
        duplex.run(12.0 + moment)
        if not idle:
            load(duplex, 2.0, frames=2, pause=0.02)
        for link in (duplex.up, duplex.down):
            link.profile.delay = after / 2
        duplex.run(3.0) if idle else load(duplex, 3.0, frames=2, pause=0.02)
        for host in (duplex.client, duplex.server):
            assert host.session.estimators.rtt.smoothed == pytest.approx(after, abs=max(0.2 * after, 0.005))


@pytest.mark.parametrize("idle", [False, True])
def test_both_ends_know_the_round_trip_of_the_path_3_s_after_the_end_of_a_cut(*, idle: bool) -> None:
    for seconds in (1.0, 3.0, 12.0):
        duplex = Duplex(up=LinkProfile(rate=WIDE, delay=0.017))
        duplex.run_until_ready()
        duplex.run(12.0)
        for link in (duplex.up, duplex.down):
            link.profile.loss = 1.0
        duplex.run(seconds) if idle else load(duplex, seconds, frames=1, pause=0.05)
        for link in (duplex.up, duplex.down):
            link.profile.loss, link.profile.delay = 0.0, 0.08
        duplex.run(3.0) if idle else load(duplex, 3.0, frames=1, pause=0.05)
        for host in (duplex.client, duplex.server):
            assert host.session.estimators.rtt.smoothed == pytest.approx(0.16, abs=0.032)


def test_losses_of_a_pipe_are_forgotten_when_it_is_whole_again() -> None:
    duplex = Duplex(up=LinkProfile(pipe_loss={BAD: 0.3}))
    duplex.run_until_ready()
    load(duplex, 4.0)
    sending = duplex.client.session.pipes.all[BAD].sending
    receiving = duplex.server.session.pipes.all[BAD].receiving
    assert min(sending.loss, receiving.loss) > 0.2
    duplex.up.profile.pipe_loss = {}
    seen = []
    for _ in range(5):
        load(duplex, 1.0)
        seen.append(sending.loss)
    assert all(later <= earlier for earlier, later in pairwise(seen))
    assert max(sending.loss, receiving.loss) < 0.01
