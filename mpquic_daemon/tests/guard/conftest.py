"""A provisioned host with the guard at work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .provisioned import Host, new_namespace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with new_namespace():
        found = Host(tmp_path)
        try:
            found.provision()
            found.want()
            found.start()
            yield found
        finally:
            found.stop()
