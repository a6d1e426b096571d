"""What is wrong with the variables, said so that the person who edits them can act."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One error: the inventory host, the path in its variables (`site.tunnels[2].wan`) and what to do."""

    host: str
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.host}: {self.path}: {self.message}"


class PlanError(ValueError):
    """The variables can't be planned; `problems` holds every reason, `str()` one a line."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def nearest(name: str, valid: Iterable[str], cutoff: float = 0.75) -> str | None:
    """Return the valid name that `name` probably is a misspelling of, if there is one.

    That is one in which about one letter of four differs at most, or that has the same letters in another order.
    """
    names = sorted(valid)
    matches = difflib.get_close_matches(name.lower(), names, n=1, cutoff=cutoff)
    swapped = (other for other in names if sorted(other) == sorted(name.lower()))
    return matches[0] if matches else next(swapped, None)


def unknown(kind: str, name: str, valid: Iterable[str]) -> str:
    """Return the sentence for a name that doesn't resolve, with the nearest valid one or all of them."""
    names = sorted(valid)
    if not names:
        return f"no {kind} is called '{name}'; there is none"
    close = nearest(name, names)
    hint = f"did you mean '{close}'?" if close else f"there are {', '.join(names)}"
    return f"no {kind} is called '{name}'; {hint}"
