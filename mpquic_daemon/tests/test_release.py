"""What a process and its peers state as their release."""

from __future__ import annotations

import tomllib
from pathlib import Path

import mpquic
import pytest
from mpquic import release


def test_the_version_of_the_package_is_that_of_its_metadata() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert mpquic.__version__ == project["version"]


def test_what_runs_from_a_checkout_says_so() -> None:
    assert f"{mpquic.__version__}+dev" == release.RELEASE


@pytest.mark.parametrize(
    ("stated", "shown"),
    [
        ("0.2.0-0123456789ab", "0.2.0-0123456789ab"),
        ("", None),
        ("0.2.0\x1b]0;x\x07\n", "0.2.0\\x1b]0;x\\x07\\n"),
        ("0.2.0\u202e", "0.2.0\\u202e"),
        ("9" * 128, "9" * 64),
    ],
)
def test_what_a_peer_states_is_bounded_and_printable(stated: str, shown: str | None) -> None:
    assert release.of_peer(stated) == shown
