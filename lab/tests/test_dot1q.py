"""Tags of 802.1Q: put in, taken out, and read as the kernel tells of them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpqlab import trunk
from mpqlab.dot1q import Tag, with_tag, without_tag

tags = st.builds(Tag, st.integers(0, 4095), st.integers(0, 7), st.booleans())
frames = st.binary(min_size=14, max_size=1514)


@given(frames, tags)
def test_a_tag_that_was_put_in_comes_out_and_leaves_the_frame_as_it_was(frame: bytes, tag: Tag) -> None:
    assert without_tag(with_tag(frame, tag)) == (tag, frame)


@given(frames, tags, tags)
def test_the_tag_that_was_put_in_last_is_the_outermost(frame: bytes, inner: Tag, outer: Tag) -> None:
    assert without_tag(with_tag(with_tag(frame, inner), outer)) == (outer, with_tag(frame, inner))


@given(st.binary(max_size=64))
def test_a_frame_without_a_tag_stays_as_it_is(frame: bytes) -> None:
    untagged = frame[:12] + b"\x08\x00" + frame[14:] if len(frame) >= 14 else frame
    assert without_tag(untagged) == (None, untagged)


@given(tags)
def test_the_sixteen_bits_of_a_tag_say_all_of_it(tag: Tag) -> None:
    assert Tag.from_tci(tag.tci) == tag


def test_a_tag_stands_behind_the_addresses_as_the_standard_has_it() -> None:
    frame = bytes(range(12)) + b"\x86\xdd" + b"payload"
    tagged = with_tag(frame, Tag(21, priority=5))
    assert tagged == bytes(range(12)) + b"\x81\x00" + b"\xa0\x15" + b"\x86\xdd" + b"payload"


@pytest.mark.parametrize(("vlan", "priority"), [(4096, 0), (-1, 0), (1, 8)])
def test_a_tag_that_cannot_be_written_is_refused(vlan: int, priority: int) -> None:
    with pytest.raises(ValueError, match=f"no tag has VLAN {vlan} and priority {priority}"):
        Tag(vlan, priority)


VALID, VALID_TPID = 1 << 4, 1 << 6


@pytest.mark.parametrize(
    ("status", "tpid", "tag"),
    [
        (VALID | VALID_TPID, 0x8100, Tag(21, 5)),
        (VALID, 0, Tag(21, 5)),
        # A provider's tag (802.1ad) is none of ours, and without the flag there is none.
        (VALID | VALID_TPID, 0x88A8, None),
        (0, 0, None),
    ],
)
def test_the_kernel_tells_the_tag_that_it_has_taken_out(status: int, tpid: int, tag: Tag | None) -> None:
    assert trunk.tag_of(struct.pack("IIIHHHH", status, 60, 60, 0, 14, 0xA015, tpid)) == tag
