"""`python -m mpquic_plan.docs [FILE]`: the page on site variables, made from the schemas."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mpquic_plan import tables
from mpquic_plan.schema import ROOTS, load, resolve

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

INTRODUCTION: Final = """\
# Site variables

<!-- Written by `python -m mpquic_plan.docs docs/site-variables.md`. Edit the schemas instead. -->

A person writes two dicts: `site` for each site and `vps` for each VPS. Everything else (addresses, ports, tables, unit
names, both ends' configuration) is derived by the plan. It refuses what can't work before any host is touched, and
lists all errors at once, each with its path. The same schemas (`schemas/*.schema.json`) serve editors: put
`# yaml-language-server: $schema=<path>` on top of a file.

What isn't stated is the reference site's. The shortest site:

```yaml
site:
  name: farm
  site_id: 7
  management:
    - {name: mgmt1, address: dhcp}
  wans:
    - {name: wan5}
```

It has WAN 5 on enp7s7, LAN 5 on enp7s1 with 172.16.5.1/30, and the tunnel mpq5 to port 45005 of the VPS. Tunnels for
each traffic class are in [classes](classes.md).

A /30 serves site 1 alone. Before a second site uses a listener, give it a larger `subnet`; the plan says which size is
needed.
"""

NUMBERS: Final = (
    (
        "client's inner address",
        "base of the subnet + 4(`site_id` - 1) + 1; with n tunnels a site, slot k: + 4n(`site_id` - 1) + 4(k - 1) + 1",
    ),
    ("server's inner address", "the last usable one of the subnet: .2 of a /30, .254 of a /24"),
    ("inner IPv6", "`ula_prefix`, then the inner IPv4 address, then ::1"),
    (
        "routing tables",
        (
            "WAN N: 100 + N; management N: 150 + N; LAN N: 200 + N; VLAN v on LAN N: 100000 N + v; class of slot s on "
            "WAN N: 1000 + 10 N + s; its fallback from LAN N: 2000 + 10 N + s"
        ),
    ),
    (
        "rule priorities",
        (
            "WAN N: 1000 + N; inner addresses of class tunnels: 1700; management N: 1800 + N; egress: 1900 to 1906; "
            "LAN N: 2000 + N; VLANs: 2100; classes by mark: 2200; fallback tunnels: 2300; fallback WANs: 2500; ends of "
            "LANs with classes: 2600"
        ),
    ),
    (
        "packet and connection marks",
        (
            "client: bits 16 to 23 (mask 0x00ff0000) hold the `slot` of the class; VPS: bits 16 to 31 the port of a "
            "listener, where a routed prefix may come by several; all other bits are anybody's"
        ),
    ),
    ("class tunnels", "TUN and unit: `prefix` and `class_number`; listener: `mtN` of WAN N; place there: `slot`"),
    ("stripe port", "the listener's port + 1000"),
    ("TUN MTU", "what one datagram holds of the WAN's `mtu`, at most 1400, at least 1280"),
    ("identity of a client", "`urn:mpquic:site:<name>`"),
    (
        "tables of the suite",
        ", ".join(f"{low} to {high}" for low, high in tables.TABLE_RANGES) + "; what else lies there is deleted",
    ),
    (
        "priorities of the suite",
        ", ".join(f"{low} to {high}" for low, high in tables.PRIORITY_RANGES) + "; what else lies there is deleted",
    ),
)

_TYPES: Final = {
    "object": "dict",
    "array": "list",
    "string": "text",
    "integer": "number",
    "boolean": "true/false",
}


def page() -> str:
    """Return the page as Markdown."""
    numbers = "\n## Numbers that follow\n\n| what | number |\n|---|---|\n"
    numbers += "".join(f"| {what} | {number} |\n" for what, number in NUMBERS)
    return INTRODUCTION + numbers + "".join(text for root in ROOTS for text in _variable(root))


def _variable(root: str) -> Iterator[str]:
    schema = load(root)
    yield f"\n## `{root}`\n\n{schema['description']}\n"
    yield from _table(root, root, load(root)["$defs"][root], seen=set())


def _table(root: str, path: str, definition: Mapping[str, Any], seen: set[str]) -> Iterator[str]:
    """Yield the table of an object's keys, then those of the objects inside it, each once."""
    yield f"\n### `{path}`\n\n{definition['description']}\n\n| key | value | default | meaning |\n|---|---|---|---|\n"
    inside: list[tuple[str, dict[str, Any]]] = []
    for key, subschema in definition["properties"].items():
        schema = resolve(root, subschema)
        required = key in definition.get("required", ())
        default = _default(schema, required=required)
        yield f"| `{key}` | {_value(root, schema)} | {default} | {schema['description']} |\n"
        item = resolve(root, schema.get("items", {}))
        if item.get("type") == "object":
            inside.append((f"{path}.{key}[]", item))
        elif schema.get("type") == "object":
            inside.append((f"{path}.{key}", schema))
    for inner_path, inner in inside:
        if inner_path not in seen:
            seen.add(inner_path)
            yield from _table(root, inner_path, inner, seen)


def _value(root: str, schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{choice}`" for choice in schema["enum"])
    if "x-expects" in schema:
        return str(schema["x-expects"])
    if schema["type"] == "array":
        item = resolve(root, schema["items"])
        return "list of dicts" if item["type"] == "object" else f"list; each {_value(root, item)}"
    if "minimum" in schema:
        return f"{schema['minimum']} to {schema['maximum']}"
    return _TYPES[schema["type"]]


def _default(schema: Mapping[str, Any], *, required: bool) -> str:
    if required:
        return "**required**"
    if "default" not in schema or schema["default"] == {}:
        return ""
    value = schema["default"]
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    if isinstance(value, list):
        return f"`[{', '.join(str(item) for item in value)}]`"
    return f"`{value}`"


def main(arguments: list[str]) -> int:
    """Write the page; return the exit status."""
    if len(arguments) > 1:
        sys.stderr.write("usage: python -m mpquic_plan.docs [FILE]\n")
        return 2
    if arguments:
        Path(arguments[0]).write_text(page(), encoding="utf-8")
    else:
        sys.stdout.write(page())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
