"""The plugins, as modules without a package, and in an ansible-playbook of their own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

ROOT = Path(__file__).parents[2]
ANSIBLE = Path(sys.executable).with_name("ansible-playbook")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not ANSIBLE.exists():
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="ansible isn't in this virtual environment"))


@pytest.fixture(scope="session")
def plugin() -> Callable[[str], ModuleType]:
    """Loads a plugin by its path below plugins/."""

    def load(path: str) -> ModuleType:
        name = f"plugin_{Path(path).stem}"
        spec = importlib.util.spec_from_file_location(name, ROOT / "plugins" / f"{path}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        # Dataclasses look for their module by its name.
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def act(plugin: Callable[[str], ModuleType]) -> Callable[..., dict[str, Any]]:
    """Runs an action plugin that asks no host, with its arguments and the variables of the task."""

    def run(name: str, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        task = SimpleNamespace(args=arguments, async_val=0, check_mode=False, diff=False, action=name)
        connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="unused"))
        context = SimpleNamespace(check_mode=False)
        action = plugin(f"action/{name}").ActionModule(task, connection, context, None, None, None)
        result: dict[str, Any] = action.run(None, variables)
        return result

    return run


class Playbook:
    """A playbook in a folder, with modules, plugins and roles of its own beside those of the project."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, path: str, text: str) -> None:
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def run(self, inventory: dict[str, Any], *more: str, name: str = "site.yml") -> subprocess.CompletedProcess[str]:
        """Run it; what it prints of a warning or an error is one line each."""
        self.put("inventory.json", json.dumps(inventory))
        self.put(
            "ansible.cfg",
            "[defaults]\n"
            f"action_plugins = {ROOT / 'plugins/action'}\n"
            f"callback_plugins = {ROOT / 'plugins/callback'}\n"
            "connection_plugins = connection\nlibrary = library\nroles_path = roles\n"
            "callbacks_enabled = mpquic_report, mpquic_check_report\nlocalhost_warning = false\ntimeout = 5\n"
            f"interpreter_python = {sys.executable}\n",
        )
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),
            "ANSIBLE_LOCAL_TEMP": str(self.folder / "tmp"),
            "ANSIBLE_REMOTE_TEMP": str(self.folder / "remote"),
            "ANSIBLE_NOCOLOR": "1",
            "COLUMNS": "400",
        }
        return subprocess.run(
            [str(ANSIBLE), "-i", "inventory.json", name, *more],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture
def playbook(tmp_path: Path) -> Playbook:
    return Playbook(tmp_path)
