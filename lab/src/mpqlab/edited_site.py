"""`site.yml` with the lab's inventory, after a change of the site's variables."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import yaml

from mpqlab.testing import PROJECT, run_site

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mpqlab.testing import SiteRun

INVENTORY = PROJECT / "inventories/lab"


class EditedSite:
    """Runs site.yml with edited variables of the lab's site."""

    def __init__(self, folder: Path) -> None:
        self.inventory = folder / "lab"
        self.differs = False

    def __call__(self, change: Callable[[dict[str, Any]], None], *arguments: str) -> SiteRun:
        """Run it with the site's variables after `change`."""
        shutil.copytree(INVENTORY, self.inventory, dirs_exist_ok=True)
        path = self.inventory / "group_vars/site1/site.yml"
        document = yaml.safe_load(path.read_text())
        change(document["site"])
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        self.differs = True
        return run_site(*arguments, inventories=[self.inventory])
