"""Text of OpenWrt's configuration (UCI): written, read back, and compared with what a router has.

Only sections whose names begin with one of `PREFIXES` are ours. Quoting is that of libuci: within single quotes all
characters are themselves, and a quote is written as '\\''.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

PREFIXES: Final = ("mpq_", "mpq6_")
"""Beginnings of the names of sections that are ours."""

ORDERED: Final = frozenset({("mwan3", "rule")})
"""Package and type of sections whose order has a meaning."""

Value = str | tuple[str, ...]

_NAME: Final = re.compile(r"[A-Za-z0-9_]+")
_TYPE: Final = re.compile(r"[!-~]+")
_PACKAGE: Final = re.compile(r"[A-Za-z0-9_-]+")


class UciError(ValueError):
    """Text that is no configuration; says the line."""


@dataclass(frozen=True, slots=True)
class Section:
    """A section; `name` is None for an anonymous one. The value of an option is a text, that of a list a tuple."""

    type: str
    name: str | None
    options: tuple[tuple[str, Value], ...]

    def __getitem__(self, option: str) -> Value:
        return dict(self.options)[option]

    def get(self, option: str) -> Value | None:
        """Return an option, None if the section doesn't have it."""
        return dict(self.options).get(option)

    @property
    def ours(self) -> bool:
        """Whether it is a section that the suite has made."""
        return self.name is not None and self.name.startswith(PREFIXES)


def section(item: Mapping[str, Any]) -> Section:
    """Return a section of the plan, which is plain data."""
    options = tuple(
        (str(name), tuple(map(str, value)) if isinstance(value, list) else str(value))
        for name, value in item["options"].items()
    )
    return Section(str(item["type"]), str(item["name"]), options)


def quote(text: str) -> str:
    """Return a text in quotes.

    Raises `UciError` for a text that UCI can't hold: an empty one, or one with control characters.
    """
    if not text or any(ord(character) < ord(" ") or character == "\x7f" for character in text):
        raise UciError(f"{text!r} can't be a value: it is empty, or has control characters")
    return "'" + text.replace("'", "'\\''") + "'"


def text(package: str, sections: Iterable[Section]) -> str:
    """Return sections in the form of `uci export`, which `uci import` reads."""
    lines = [f"package {package}"]
    for each in sections:
        lines += ["", f"config {each.type}" + ("" if each.name is None else f" {quote(each.name)}")]
        for name, value in each.options:
            if isinstance(value, str):
                lines.append(f"\toption {name} {quote(value)}")
            else:
                lines += [f"\tlist {name} {quote(item)}" for item in value]
    return "\n".join(lines) + "\n"


def parse(source: str) -> dict[str, list[Section]]:
    """Return the sections of each package of a text as `uci export` gives it.

    Raises `UciError` for whatever isn't of that form, with the number of the line.
    """
    packages: dict[str, list[Section]] = {}
    current: list[Section] | None = None
    for number, words in _commands(source):
        keyword, *arguments = words
        if keyword == "package" and len(arguments) == 1 and _PACKAGE.fullmatch(arguments[0]):
            if arguments[0] in packages:
                raise UciError(f"line {number}: the package {arguments[0]} is there twice")
            current = packages.setdefault(arguments[0], [])
        elif keyword == "config" and len(arguments) in (1, 2) and current is not None:
            current.append(_opened(number, arguments, current))
        elif keyword in ("option", "list") and len(arguments) == 2 and current:
            current[-1] = _with_option(number, current[-1], keyword, *arguments)
        else:
            raise UciError(f"line {number}: '{' '.join(words)}' is neither package, config, option nor list")
    return packages


def _opened(number: int, arguments: Sequence[str], others: Iterable[Section]) -> Section:
    name = arguments[1] if len(arguments) == 2 else None
    if not _TYPE.fullmatch(arguments[0]) or (name is not None and not _NAME.fullmatch(name)):
        raise UciError(f"line {number}: '{' '.join(arguments)}' can't be type and name of a section")
    if name is not None and any(other.name == name for other in others):
        raise UciError(f"line {number}: the section {name} is there twice")
    return Section(arguments[0], name, ())


def _with_option(number: int, into: Section, keyword: str, name: str, value: str) -> Section:
    if not _NAME.fullmatch(name):
        raise UciError(f"line {number}: '{name}' can't be the name of an option")
    present = into.get(name)
    if keyword == "option":
        if present is not None:
            raise UciError(f"line {number}: the option {name} is there twice")
        return Section(into.type, into.name, (*into.options, (name, value)))
    if isinstance(present, str):
        raise UciError(f"line {number}: {name} is an option and a list")
    items = (*(present or ()), value)
    others = tuple(option for option in into.options if option[0] != name)
    return Section(into.type, into.name, (*others, (name, items)))


def _commands(source: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the line and the words of each command (file.c of libuci: next_arg, parse_str)."""
    place, number, words = 0, 1, list[str]()
    word: str | None = None
    begun = 1
    while place <= len(source):
        character = source[place : place + 1]
        if character in ("", "\n", " ", "\t", "\r", "#"):
            if word is not None:
                words.append(word)
                word = None
            if character == "#":
                place = source.find("\n", place) if "\n" in source[place:] else len(source)
                continue
            if character in ("", "\n"):
                if words:
                    yield begun, words
                words = []
                number += character == "\n"
                begun = number
        elif character in ("'", '"'):
            inside, place = _quoted(source, place, number)
            number += inside.count("\n")
            word = (word or "") + inside
        elif character == "\\" and place + 1 < len(source):
            place += 1
            word = (word or "") + source[place]
        elif character == ";":
            raise UciError(f"line {number}: several commands in one line")
        else:
            word = (word or "") + character
        place += 1


def _quoted(source: str, place: int, number: int) -> tuple[str, int]:
    """Return what is in the quotes that open at a place, and the place of the closing one."""
    opening, inside = source[place], ""
    place += 1
    while place < len(source) and source[place] != opening:
        if opening == '"' and source[place] == "\\" and place + 1 < len(source):
            place += 1
        inside += source[place]
        place += 1
    if place >= len(source):
        raise UciError(f"line {number}: {opening} isn't closed")
    return inside, place


def changes(package: str, present: Sequence[Section], wanted: Sequence[Section]) -> list[str]:
    """Return the commands of `uci batch` by which our sections of a package become those that are wanted.

    There are none where they are so already. Sections of others keep what they have and their place.
    """
    ours = {each.name: each for each in present if each.ours}
    kept = [each for each in wanted if each.name in ours and ours[each.name].type == each.type]
    for kind in {each.type for each in wanted}:
        if (package, kind) in ORDERED and not _in_order(kind, present, wanted, kept):
            kept = [each for each in kept if each.type != kind]
    names = {each.name for each in kept}
    commands = [f"delete {package}.{name}" for name in ours if name not in names]
    for each in wanted:
        path = f"{package}.{each.name}"
        if each not in kept:
            commands.append(f"set {path}={quote(each.type)}")
        old = dict(ours[each.name].options) if each in kept else {}
        new = dict(each.options)
        commands += [f"delete {path}.{name}" for name in old if name not in new]
        for name, value in each.options:
            if old.get(name) == value:
                continue
            if isinstance(value, str):
                # An option that was a list becomes one with its first value otherwise.
                commands += [f"delete {path}.{name}"] if isinstance(old.get(name), tuple) else []
                commands.append(f"set {path}.{name}={quote(value)}")
            else:
                commands += [f"delete {path}.{name}"] if name in old else []
                commands += [f"add_list {path}.{name}={quote(item)}" for item in value]
    return commands


def _in_order(kind: str, present: Sequence[Section], wanted: Sequence[Section], kept: Sequence[Section]) -> bool:
    """Whether sections of a type come in the wanted order when new ones follow those that are kept."""
    names = {each.name for each in kept}
    have = [each.name for each in present if each.type == kind and each.name in names]
    have += [each.name for each in wanted if each.type == kind and each.name not in names]
    return have == [each.name for each in wanted if each.type == kind]


def obstacles(package: str, present: Sequence[Section], wanted: Sequence[Section]) -> list[tuple[str, str]]:
    """Return sections of others that stand in the way of ours, each as (what it is called, why)."""
    others = [each for each in present if not each.ours]
    found: list[tuple[Section, str]] = []
    if package == "network":
        found = [*_same_devices(others, wanted), *_same_addresses(others, wanted)]
    elif package == "mwan3":
        why = "takes all traffic before our rules are tried"
        found = [(each, why) for each in others if each.type == "rule" and _takes_all(each)]
    return [(_called(package, each, present), why) for each, why in found]


def _same_devices(others: Iterable[Section], wanted: Iterable[Section]) -> Iterator[tuple[Section, str]]:
    devices = {each["name"] for each in wanted if each.type == "device"}
    for each in others:
        if each.type == "device" and each.get("name") in devices:
            yield each, f"makes the device {each['name']}, which ours are to make"


def _same_addresses(others: Iterable[Section], wanted: Iterable[Section]) -> Iterator[tuple[Section, str]]:
    owners = {address: each.name for each in wanted for address in _addresses(each)}
    for each in others:
        for address in sorted(_addresses(each) & owners.keys()):
            yield each, f"has the address {address}, which {owners[address]} is to have"


def _addresses(each: Section) -> set[str]:
    """The addresses of an interface, without prefix lengths."""
    stated = [each.get("ipaddr") or (), each.get("ip6addr") or ()] if each.type == "interface" else []
    lists = [(value,) if isinstance(value, str) else value for value in stated]
    return {address.partition("/")[0].lower() for values in lists for address in values}


def _takes_all(rule: Section) -> bool:
    """Whether a rule of mwan3 matches every packet of a family."""
    stated = {
        key: value for key, value in rule.options if key not in ("use_policy", "family", "sticky", "timeout", "logging")
    }
    whole = {"dest_ip": ("0.0.0.0/0", "::/0"), "src_ip": ("0.0.0.0/0", "::/0"), "proto": ("all",)}
    return all(value in whole.get(key, ()) for key, value in stated.items())


def _called(package: str, each: Section, present: Sequence[Section]) -> str:
    """Return the name by which `uci` knows a section."""
    if each.name is not None:
        return f"{package}.{each.name}"
    same = [other for other in present if other.type == each.type]
    return f"{package}.@{each.type}[{next(place for place, other in enumerate(same) if other is each)}]"
