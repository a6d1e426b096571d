from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from mpquic.proto.packet.frame import Frame, FrameError
from mpquic.proto.stripe.fec import GROUP_COST, SHARD_COST, GroupDecoder, parity
from mpquic.proto.stripe.shard import bundle, trim


def shard(rng: random.Random, sequence: int, longest: int = 300) -> bytes:
    """One to three frames, whose payload may end in zeros."""
    frames = [
        Frame(rng.randbytes(rng.randint(1, longest // 4)) + bytes(rng.randint(0, 9)), 1, sequence + place)
        for place in range(rng.randint(1, 3))
    ]
    return b"".join(frame.encode() for frame in frames)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 24), st.integers(0, 8), st.randoms(use_true_random=False), st.integers(0, 10))
def test_any_k_of_a_group_give_the_data_back(
    shards: int, parity_shards: int, rng: random.Random, more_lost: int
) -> None:
    data = [shard(rng, 10 * place) for place in range(shards)]
    bodies = data + parity(data, parity_shards)
    lost = set(rng.sample(range(len(bodies)), min(len(bodies), rng.randint(0, parity_shards + more_lost))))
    arrivals = [place for place in range(len(bodies)) if place not in lost]
    rng.shuffle(arrivals)
    decoder = GroupDecoder()
    got: dict[int, bytes] = {}
    for place in arrivals:
        if place < shards:
            new, repaired = decoder.add_data(100, place, bodies[place], 0.0)
            assert new is (place not in got)
            got[place] = bodies[place]
        else:
            repaired = decoder.add_parity(100, place, shards, bodies[place], 0.0)
        for index, body in repaired:
            assert index not in got
            got[index] = body
    if len(arrivals) >= shards and (len(lost) == 0 or any(place >= shards for place in arrivals)):
        assert got == dict(enumerate(data))
    assert all(data[index] == body for index, body in got.items())
    assert not decoder.inconsistent


@given(st.integers(1, 20), st.integers(1, 10), st.randoms(use_true_random=False))
def test_parity_doesnt_depend_on_how_much_of_it_is_made(shards: int, count: int, rng: random.Random) -> None:
    data = [shard(rng, place) for place in range(shards)]
    assert parity(data, 10)[:count] == parity(data, count)


def test_a_late_shard_of_a_repaired_group_is_not_new() -> None:
    rng = random.Random(1)
    data = [shard(rng, place) for place in range(3)]
    [parity_shard] = parity(data, 1)
    decoder = GroupDecoder()
    decoder.add_data(0, 0, data[0], 0.0)
    decoder.add_data(0, 1, data[1], 0.0)
    assert decoder.add_parity(0, 3, 3, parity_shard, 0.0) == [(2, data[2])]
    assert decoder.add_data(0, 2, data[2], 0.0) == (False, [])
    assert decoder.add_parity(0, 4, 3, parity_shard, 0.0) == []
    assert decoder.repaired == 1


def test_memory_is_bounded_in_groups_octets_and_age() -> None:
    decoder = GroupDecoder(max_groups=8, max_bytes=10_000, max_age=2.0)
    for base in range(0, 1000, 10):
        decoder.add_data(base, 0, bytes(100), 0.0)
        assert len(decoder) <= 8
    assert decoder.bytes == 8 * (100 + GROUP_COST + SHARD_COST)
    for place in range(200):
        decoder.add_data(5000, place % 128, bytes(1000), 0.0)
        decoder.add_data(6000, place % 128, bytes(1000), 0.0)
        assert decoder.bytes <= 160_000
    decoder.add_data(7000, 0, b"x", 1.0)
    decoder.expire(2.5)
    assert len(decoder) == 1
    assert decoder.bytes == 1 + GROUP_COST + SHARD_COST
    decoder.expire(3.5)
    assert (len(decoder), decoder.bytes) == (0, 0)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 20), st.integers(1, 12), st.binary(max_size=40)),
        max_size=60,
    )
)
def test_contradictory_shards_do_no_harm(arrivals: list[tuple[bool, int, int, int, bytes]]) -> None:
    decoder = GroupDecoder(max_groups=3, max_bytes=200)
    for is_parity, base, index, shards, body in arrivals:
        if is_parity:
            decoder.add_parity(base, max(index, shards), shards, body, 0.0)
        else:
            decoder.add_data(base, index, body, 0.0)
        assert len(decoder) <= 3
        assert decoder.bytes >= 0


@given(st.lists(st.integers(1, 400), min_size=1, max_size=20), st.integers(0, 50))
def test_zeros_behind_frames_are_cut_and_those_in_them_are_not(sizes: list[int], zeros: int) -> None:
    body = b"".join(Frame(bytes(size), 1, 0).encode() for size in sizes)
    assert trim(body + bytes(zeros)) == body


@given(st.binary(max_size=60))
def test_trimming_arbitrary_octets_is_done_or_refused(block: bytes) -> None:
    try:
        body = trim(block)
    except FrameError:
        return
    assert block == body.ljust(len(block), b"\0")


def test_shards_never_mix_classes_or_dscp() -> None:
    def frame(traffic_class: int, tos: int, version: int = 4) -> Frame:
        first = bytes((0x45, tos)) if version == 4 else (0x6000 | tos << 4).to_bytes(2, "big")
        return Frame(first + bytes(30), traffic_class, 0)

    frames = [frame(1, 0), frame(1, 3), frame(1, 0xB8), frame(0, 0xB8), frame(0, 0xB8, version=6), frame(0, 0)]
    runs = bundle(frames, 1000, 10**6).stretches
    assert [label for label, _ in runs] == [256, 256 + 46, 46, 0]
    assert [len(bodies) for _, bodies in runs] == [1, 1, 1, 1]
    assert b"".join(body for _, bodies in runs for body in bodies) == b"".join(one.encode() for one in frames)
    assert bundle([Frame(b"\x45\xb8", 1, 0, 1, fragment_index=1, fragment_count=2)], 1000, 1)[0][0][0] == 256


@given(st.lists(st.integers(1, 90), min_size=1, max_size=40))
def test_a_shard_holds_as_many_small_frames_as_fit(sizes: list[int]) -> None:
    frames = [Frame(b"\x45\0".ljust(size, b"x")[:size], 1, place) for place, size in enumerate(sizes)]
    [(_, bodies)] = bundle(frames, 100, 10**6).stretches
    assert all(len(body) <= 100 for body in bodies)
    assert b"".join(bodies) == b"".join(frame.encode() for frame in frames)


def test_frames_are_taken_while_there_is_room_and_those_that_never_fit_are_counted() -> None:
    frames = [Frame(bytes(50), 1, 0), Frame(bytes(93), 1, 1), Frame(bytes(50), 1, 2), Frame(bytes(50), 1, 3)]
    assert bundle(frames, 100, 59) == ([(256, [frames[0].encode(), frames[2].encode()])], 3, 1)
    assert bundle(frames, 100, 0) == ([], 0, 0)
