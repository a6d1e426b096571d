"""Checks that all YAML files of variables can be read, before Ansible reads the first."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible import constants
from ansible.errors import AnsibleParserError
from ansible.plugins.vars import BaseVarsPlugin

if TYPE_CHECKING:
    from ansible.parsing.dataloader import DataLoader

DOCUMENTATION = r"""
name: mpquic_readable
short_description: Tell the file, line and column of what can't be read in group_vars and host_vars
description:
  - Ansible itself doesn't say in which file of variables a tab, a wrong indentation or a duplicate key is. This plugin
    loads all of them first, by Ansible's own loader, and names each that can't be read. It gives no variables.
options: {}
"""

FOLDERS = ("group_vars", "host_vars")


class VarsModule(BaseVarsPlugin):
    """Gives no variables."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def get_vars(self, loader: DataLoader, path: str, entities: Any, cache: bool = True) -> dict[str, Any]:  # noqa: ARG002
        if path not in self._seen:
            self._seen.add(path)
            mistakes = [mistake for file in _files(Path(path)) if (mistake := _mistake(loader, file))]
            if mistakes:
                # Ansible shows the text of an exception twice.
                self._display.display("\n".join([*mistakes, "No host was touched."]), color=constants.COLOR_ERROR)
                count = f"{len(mistakes)} files" if len(mistakes) > 1 else "1 file"
                raise AnsibleParserError(f"{count} of variables can't be read; see above")
        return {}


def _files(base: Path) -> list[Path]:
    """Files that Ansible takes variables from (DataLoader.find_vars_files): by extension, without hidden ones."""
    files = (file for folder in FOLDERS for file in sorted((base / folder).rglob("*")))
    return [
        file
        for file in files
        if file.is_file()
        and file.suffix in ("", *constants.YAML_FILENAME_EXTENSIONS)
        and not file.name.startswith((".", "~"))
    ]


def _mistake(loader: DataLoader, file: Path) -> str | None:
    try:
        loader.load_from_file(str(file), cache="all", unsafe=True, trusted_as_template=True)
    except AnsibleParserError as error:
        origin = error.obj
        place = os.path.relpath(file)
        if getattr(origin, "line_num", None):
            place += f": line {origin.line_num}, column {origin.col_num or 1}"
        return f"{place}: {error.message}"
    return None
