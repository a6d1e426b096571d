"""Checks what programs print as JSON against the schemas of docs/schemas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

SCHEMAS = Path(__file__).parents[2] / "docs/schemas"


def check(name: str, printed: object, part: str = "") -> None:
    """Compare output, after a way through JSON, with a schema, or with one of its `$defs`."""
    found = {path.name: Resource.from_contents(json.loads(path.read_text())) for path in SCHEMAS.iterdir()}
    file = f"{name}.schema.json"
    schema: dict[str, Any] = {"$ref": f"{file}#/$defs/{part}" if part else file}
    validator = Draft202012Validator(schema, registry=Registry().with_resources(found.items()))
    found_errors = validator.iter_errors(json.loads(json.dumps(printed)))
    errors = [f"{error.json_path}: {error.message[:300]}" for error in found_errors]
    assert not errors, "\n".join(errors)
