"""Which AEAD is preferred follows from how long each takes here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from mpquic.net import aead
from mpquic.proto.stripe.keys import Suite

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    aead.preferred_suites.cache_clear()
    yield
    aead.preferred_suites.cache_clear()


def takes(monkeypatch: pytest.MonkeyPatch, aes: float, chacha: float) -> list[str]:
    """Have one AEAD seem to take so many seconds and the other so many; return whose time was taken."""
    asked: list[str] = []

    def seconds(cipher: object) -> float:
        asked.append(type(cipher).__name__)
        return aes if isinstance(cipher, AESGCM) else chacha

    monkeypatch.setattr(aead, "_seconds", seconds)
    return asked


@pytest.mark.parametrize(
    ("aes", "chacha", "first"),
    [
        (1e-5, 4e-5, Suite.AES_128_GCM),
        (4e-5, 4e-5, Suite.AES_128_GCM),
        # A little faster is chance, not a processor without instructions for AES.
        (5.9e-5, 4e-5, Suite.AES_128_GCM),
        (6.1e-5, 4e-5, Suite.CHACHA20_POLY1305),
        (1e-3, 4e-5, Suite.CHACHA20_POLY1305),
    ],
)
def test_aes_is_preferred_unless_it_is_clearly_slower(
    monkeypatch: pytest.MonkeyPatch, aes: float, chacha: float, first: Suite
) -> None:
    takes(monkeypatch, aes, chacha)
    suites = aead.preferred_suites()
    assert suites[0] is first
    assert set(suites) == set(Suite)


def test_the_trial_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = takes(monkeypatch, 1e-5, 4e-5)
    assert aead.preferred_suites() == aead.preferred_suites()
    assert asked == ["AESGCM", "ChaCha20Poly1305"]


def test_the_real_trial_names_both() -> None:
    suites = aead.preferred_suites()
    assert sorted(suites) == [Suite.AES_128_GCM, Suite.CHACHA20_POLY1305]


def test_a_disturbed_round_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 9.0, 10.0, 10.5, 20.0, 27.0, 30.0, 38.0, 40.0, 48.0])
    monkeypatch.setattr(aead, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert aead._seconds(ChaCha20Poly1305(bytes(32))) == pytest.approx(0.5)
