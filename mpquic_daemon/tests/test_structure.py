"""What may import what, how long a module may be, and what `proto/` must not know: docs/architecture.md."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import mpquic
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(mpquic.__file__).parent
MODULES = {path.relative_to(SOURCE).as_posix(): path for path in sorted(SOURCE.rglob("*.py"))}
MOST_LINES = 400
BESIDE = {
    path.relative_to(ROOT).as_posix(): path
    for package in ("plan", "lab")
    for path in sorted((ROOT / package / "src").rglob("*.py"))
}
"""Modules of the plan and the lab."""
SANS_IO = ("proto", "quic")
OUTER_WORLD = {"asyncio", "os", "random", "secrets", "select", "selectors", "socket", "subprocess", "threading", "time"}
CLOCKS = {"now", "utcnow", "today"}
"""Methods of datetime that read the machine's clock."""
LAYERS = {"proto": {"proto"}, "quic": {"proto", "quic"}, "net": {"proto", "net"}}
"""What a package may import of mpquic; `daemon` may import all of them."""
INTERPRETED = {"proto/control/messages.py"}
"""Modules of `proto/` that mypyc doesn't compile: scripts/compile_proto.py says why."""
CLASS_NAMES = re.compile(r"\b(critical|bulk|interactive|realtime|voice)\b", re.IGNORECASE)


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text())


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(module: str, *, types: bool = True) -> Iterator[str]:
    """Absolute names of what a module imports; with `types`, of what it names in annotations only too."""
    hidden = {id(each) for block in ast.walk(tree(module)) if is_for_types(block) for each in ast.walk(block)}
    for node in ast.walk(tree(module)):
        if not types and id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: a relative import"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def classes(nodes: ast.Module) -> Iterator[tuple[ast.ClassDef, set[str]]]:
    """Classes with the plain names of their bases and decorators."""
    for node in ast.walk(nodes):
        if isinstance(node, ast.ClassDef):
            outer = [each.func if isinstance(each, ast.Call) else each for each in node.decorator_list]
            outer += [each.value if isinstance(each, ast.Subscript) else each for each in node.bases]
            yield node, {each.id if isinstance(each, ast.Name) else ast.unparse(each).split(".")[-1] for each in outer}


def of(*packages: str) -> list[str]:
    return [module for module in MODULES if module.split("/")[0] in packages]


def test_there_are_modules_of_each_layer() -> None:
    assert all(len(of(layer)) > 5 for layer in (*LAYERS, "daemon"))
    assert len(BESIDE) > 50


def test_no_module_is_longer_than_400_lines() -> None:
    modules = MODULES | BESIDE
    too_long = [module for module, path in modules.items() if path.read_text().count("\n") > MOST_LINES]
    assert not too_long, "split by what it does"


@pytest.mark.parametrize("module", of(*SANS_IO))
def test_what_is_sans_io_has_no_socket_clock_or_random(module: str) -> None:
    assert not {name.split(".")[0] for name in imports(module, types=False)} & OUTER_WORLD
    called = {
        node.func.attr
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    assert not called & CLOCKS


@pytest.mark.parametrize("module", of(*LAYERS))
def test_a_layer_imports_only_what_is_to_its_left(module: str) -> None:
    own = {name.split(".")[1] for name in imports(module) if name.startswith("mpquic.")}
    assert own <= LAYERS[module.split("/")[0]]


@pytest.mark.parametrize("module", of("proto"))
def test_proto_knows_no_class_of_traffic_by_name(module: str) -> None:
    """What a class gets is a property of it; its name is the configuration's."""
    words = (
        {
            node.value
            for node in ast.walk(tree(module))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        | {node.id for node in ast.walk(tree(module)) if isinstance(node, ast.Name)}
        | {node.attr for node in ast.walk(tree(module)) if isinstance(node, ast.Attribute)}
    )
    assert not [word for word in words if CLASS_NAMES.search(word.replace("_", " "))]


compiled = pytest.mark.parametrize("module", [module for module in of("proto") if module not in INTERPRETED])
"""What mypyc compiles: docs/architecture.md, *What is compiled*."""


@compiled
def test_no_compiled_exception_is_a_runtime_error(module: str) -> None:
    assert not [node.name for node, kinds in classes(tree(module)) if "RuntimeError" in kinds]


@compiled
def test_no_compiled_code_reads_slots(module: str) -> None:
    """A compiled class has none."""
    assert not [
        node.lineno for node in ast.walk(tree(module)) if isinstance(node, ast.Attribute) and node.attr == "__slots__"
    ]


@compiled
def test_constants_of_compiled_classes_are_class_variables(module: str) -> None:
    """Without `ClassVar` a compiled class has the attribute in its objects alone."""
    bare = []
    for node, kinds in classes(tree(module)):
        if any(kind.endswith(("Enum", "Flag")) for kind in kinds):
            continue
        for line in node.body:
            if isinstance(line, ast.Assign):
                bare += [ast.unparse(target) for target in line.targets if ast.unparse(target).strip("_").isupper()]
            elif isinstance(line, ast.AnnAssign) and "ClassVar" not in ast.unparse(line.annotation):
                bare += [name for name in [ast.unparse(line.target)] if name.strip("_").isupper()]
    assert not bare


@compiled
def test_types_of_fields_of_compiled_classes_are_there_at_run_time(module: str) -> None:
    """mypyc loads them when it makes the class; a compiled one that nobody has imported yet is a null pointer."""
    hidden = {
        alias.asname or alias.name.split(".")[0]
        for block in ast.walk(tree(module))
        if is_for_types(block)
        for node in ast.walk(block)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    for node, kinds in classes(tree(module)):
        if kinds & {"NamedTuple", "TypedDict", "dataclass"}:
            annotations = [line.annotation for line in node.body if isinstance(line, ast.AnnAssign)]
            used = {name.id for each in annotations for name in ast.walk(each) if isinstance(name, ast.Name)}
            assert not used & hidden, node.name


@compiled
def test_no_compiled_dataclass_is_generic(module: str) -> None:
    """mypyc can't make one; a generic NamedTuple or a class with `__init__` it can."""
    assert not [node.name for node, kinds in classes(tree(module)) if kinds >= {"Generic", "dataclass"}]


@compiled
def test_compiled_code_has_nothing_that_type_checkers_do_not_see(module: str) -> None:
    """mypyc compiles what mypy holds to be unreachable into an error."""
    assert not [node.lineno for node in ast.walk(tree(module)) if is_for_types(node) and node.orelse]


@compiled
def test_no_compiled_protocol_is_checked_at_run_time(module: str) -> None:
    assert not [node.name for node, kinds in classes(tree(module)) if "runtime_checkable" in kinds]


def test_no_interpreted_class_derives_from_a_compiled_one() -> None:
    inside = [module for module in of("proto") if module not in INTERPRETED]
    own = {f"mpquic.{module.removesuffix('.py').replace('/', '.')}" for module in inside}
    others = [path for module, path in MODULES.items() if module not in inside]
    derived = []
    for path in [*others, *Path(__file__).parent.rglob("*.py")]:
        nodes = ast.parse(path.read_text())
        imported = {
            alias.asname or alias.name
            for node in ast.walk(nodes)
            if isinstance(node, ast.ImportFrom) and node.module in own
            for alias in node.names
        }
        derived += [f"{path.name}: {node.name}" for node, kinds in classes(nodes) if kinds & imported]
    assert not derived
