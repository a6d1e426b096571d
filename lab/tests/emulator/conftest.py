import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from .testbed import Testbed


@pytest.fixture
def link(tmp_path: Path) -> Iterator[Callable[..., Testbed]]:
    """Start a link with the given key=value pairs; it is gone after the test."""
    if os.geteuid() != 0:
        pytest.fail("This test makes network namespaces and TUN devices: run it as root.")
    with ExitStack() as stack:

        def start(*values: str, ipv6: bool = False) -> Testbed:
            return stack.enter_context(Testbed(tmp_path, values, ipv6=ipv6))

        yield start
