"""`ansible-doc` tells of every module and plugin the options that it takes."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.plugins.action import ActionBase

ROOT = Path(__file__).parents[2]
ACTIONS = {path.stem: path for path in (ROOT / "plugins/action").glob("*.py")}
MODULES = {path.stem: path for path in (ROOT / "library").glob("*.py")}
PLUGINS = [
    (kind, path.stem)
    for kind in ("callback", "connection", "vars")
    for path in sorted((ROOT / "plugins" / kind).glob("*.py"))
]
KEYS = {"description", "type", "required", "default", "choices", "elements", "suboptions"}


class FoundError(Exception):
    """Carries the argument_spec that a module or action has given."""


def documentation(kind: str, *names: str) -> dict[str, Any]:
    """What ansible-doc says of modules or plugins, by name."""
    command = [Path(sys.executable).with_name("ansible-doc"), "--json", "-t", kind, "-M", ROOT / "library", *names]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    found: dict[str, Any] = json.loads(done.stdout)
    return {name.rpartition(".")[2]: entry["doc"] for name, entry in found.items()}


def load(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"documented_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def spec_of(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The argument_spec of a module, or of the action plugin of that name."""

    def give(*_: object, argument_spec: dict[str, Any], **__: object) -> None:
        raise FoundError(argument_spec)

    def run() -> None:
        # An action that only wraps the module of its name leaves the options to it.
        if name in ACTIONS and "validate_argument_spec" in ACTIONS[name].read_text():
            plugin = load(name, ACTIONS[name]).ActionModule
            monkeypatch.setattr(ActionBase, "run", lambda *_args: {})
            monkeypatch.setattr(plugin, "validate_argument_spec", give)
            plugin.__new__(plugin).run(None, {})
        else:
            module = load(name, MODULES[name])
            monkeypatch.setattr(module, "AnsibleModule", give)
            module.main()

    with pytest.raises(FoundError) as caught:
        run()
    spec: dict[str, Any] = caught.value.args[0]
    return spec


def shape(options: dict[str, Any], nested: str) -> dict[str, Any]:
    """What documentation and argument_spec have in common of options."""
    found = {}
    for name, option in options.items():
        entry = {key: option[key] for key in ("type", "elements", "choices") if option.get(key) is not None}
        entry |= {"required": bool(option.get("required")), "type": option.get("type", "str")}
        if option.get("default") is not None:
            entry["default"] = option["default"]
        if option.get(nested):
            entry["options"] = shape(option[nested], nested)
        found[name] = entry
    return found


@pytest.fixture(scope="module")
def documented() -> dict[str, Any]:
    return documentation("module", *MODULES)


def test_every_action_has_its_documentation_where_ansible_doc_looks() -> None:
    assert set(ACTIONS) <= set(MODULES)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_documents_the_options_that_it_takes(
    documented: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    document = documented[name]
    assert document["short_description"]
    assert shape(document.get("options", {}), "suboptions") == shape(spec_of(name, monkeypatch), "options")


@pytest.mark.parametrize("name", sorted(MODULES))
def test_an_option_has_a_description_and_no_key_that_a_slip_of_yaml_has_made(
    documented: dict[str, Any], name: str
) -> None:
    for option, entry in documented[name].get("options", {}).items():
        assert entry["description"], option
        assert set(entry) <= KEYS, option


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_a_plugin_is_documented(kind: str, name: str) -> None:
    assert documentation(kind, name)[name]["short_description"]


def test_every_filter_is_documented() -> None:
    names = list(load("filters", ROOT / "plugins/filter/mpquic.py").FilterModule().filters())
    found = documentation("filter", *names)
    assert sorted(found) == sorted(names)
    assert all(entry["description"] for entry in found.values())
