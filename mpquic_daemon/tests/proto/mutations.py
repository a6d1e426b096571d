"""Inputs for fuzz tests: valid ones, mutated by a seeded generator; MPQUIC_FUZZ_INPUTS says how many each test gets."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

INPUTS = int(os.environ.get("MPQUIC_FUZZ_INPUTS", "4000"))


def mutate(rng: random.Random, corpus: list[bytes]) -> bytes:
    """Return an input that is almost one of the corpus, or nothing like it."""
    data = bytearray(rng.choice(corpus))
    for _ in range(rng.choice((0, 1, 1, 2, 4, 16))):
        kind = rng.randrange(7)
        place = rng.randrange(len(data)) if data else 0
        if kind == 0 and data:
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1 and data:
            data[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind == 2:
            del data[place:]
        elif kind == 3:
            data[place:place] = rng.randbytes(rng.randrange(1, 9))
        elif kind == 4:
            data += data[place:]
        elif kind == 5 and len(data) >= 2:
            data[place : place + 2] = rng.choice((0, 1, 0xFFFF, len(data), 1 << 15)).to_bytes(3, "big")[1:]
        elif kind == 6:
            other = rng.choice(corpus)
            data = data[:place] + other[rng.randrange(len(other) + 1) :]
    return bytes(data[:4096])


def inputs(name: str, corpus: list[bytes]) -> Iterator[bytes]:
    rng = random.Random(f"fuzz {name}")
    for _ in range(INPUTS):
        yield mutate(rng, corpus)
