"""What each command of `mpquicctl` is to the parser."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import argparse

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where a module's `add` puts its commands, each with `set_defaults(run=...)`: a function that takes the parsed options
and returns the exit status."""
