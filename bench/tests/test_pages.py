"""Users who load pages, over the loopback."""

import asyncio
import subprocess
import sys

import pytest
from mpqbench import browsing, pages
from mpqbench.pages import READY, page
from mpqlab.emulator.model import DirectionConfig, parse_pairs

PORT = 45872


def test_a_page_is_loaded_object_by_object_and_users_go_on_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "SHORTEST", 0.01)
    monkeypatch.setattr(pages, "LONGEST", 0.02)
    command = [sys.executable, "-m", "mpqbench.pages", "serve", str(PORT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            assert server.stdout.readline().strip() == READY
            assert 0 < asyncio.run(page("127.0.0.1", PORT, [1, 200_000, 70_000])) < 30
            took = asyncio.run(pages.browse("127.0.0.1", PORT, 3, 2.0, 7))
        finally:
            server.terminate()
    assert len(took) > 3
    assert min(took) > 0


def test_a_server_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ConnectionRefusedError):
        asyncio.run(pages.browse("127.0.0.1", PORT + 1, 1, 20.0, 7))


def test_the_link_is_a_configuration_of_the_emulator() -> None:
    values = parse_pairs([f"{key}={value:g}" for key, value in browsing.LINK.items()])
    config = DirectionConfig().changed(values["down"])
    assert (config.rate_mbit, config.delay_ms) == (60, 17)
