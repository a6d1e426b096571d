"""A real client and a real server with real TUNs carry traffic, and come back from what happens to them."""

import pytest

pytestmark = pytest.mark.root


def test_ping_passes_with_both_families_and_sizes(running) -> None:  # type: ignore[no-untyped-def]
    assert running.ping()
    assert running.ping(target="fd09::2")
    assert running.ping(size=1300)
