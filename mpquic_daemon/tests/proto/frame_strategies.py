"""Frames of any kind, for property tests."""

from hypothesis import strategies as st
from mpquic.proto.packet.frame import Frame, FrameFlag


@st.composite
def frames(draw: st.DrawFn, max_payload: int = 300) -> Frame:
    flags = draw(st.integers(0, 7))
    count = draw(st.integers(2, 255)) if flags & FrameFlag.FRAGMENT else 1
    return Frame(
        draw(st.binary(min_size=1, max_size=max_payload)),
        draw(st.integers(0, 255)),
        draw(st.integers(0, 2**32 - 1)),
        flags,
        draw(st.integers(1, 65535)) if flags & FrameFlag.SUPERFRAME else 0,
        draw(st.integers(0, count - 1)) if flags & FrameFlag.FRAGMENT else 0,
        count,
    )
