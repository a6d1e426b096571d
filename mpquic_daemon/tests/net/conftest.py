"""Network namespaces for a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .namespace import FarSide, ip, new_namespace

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def namespace() -> Iterator[None]:
    """Run the test in a fresh network namespace whose loopback is up."""
    with new_namespace():
        ip("link set lo up")
        yield


@pytest.fixture
def far_side(namespace: None) -> Iterator[FarSide]:  # noqa: ARG001
    """A second namespace beside the test's own."""
    side = FarSide()
    yield side
    side.close()
