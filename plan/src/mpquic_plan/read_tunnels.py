"""From the variables of a site to its tunnels: those that are stated, and those that classes make on WANs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mpquic_plan import reference
from mpquic_plan.model import Striping, Tunnel, TunnelPath
from mpquic_plan.problem import Problem
from mpquic_plan.schema import load, with_defaults

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mpquic_plan.model import TrafficClass, Wan

SETTINGS: Final = (
    "transport",
    "transport_mode",
    "stripe_enabled",
    "pipes",
    "stripe_data_shards",
    "stripe_parity_shards",
    "stripe_fec",
    "stripe_fec_max_overhead",
)
"""Keys of a class that its tunnels have where they don't state them."""

MULTIPATH: Final = ("multipath_enabled", "multipath_policy", "multipath_paths")
"""Keys of a tunnel over several WANs."""

PATH_SETTINGS: Final = ("outer", "transport")
"""Keys of a path that are the tunnel's where it doesn't state them, and that messages are about."""


def _class_tunnels(
    traffic_classes: Sequence[TrafficClass], wans: Sequence[Wan]
) -> Iterator[tuple[str, Wan, TrafficClass]]:
    """Give name, WAN and class of each class tunnel; a WAN without a number has none."""
    for wan in wans:
        for entry in traffic_classes:
            if wan.class_number is not None and (wan.classes is None or entry.name in wan.classes):
                yield f"{entry.prefix}{wan.class_number}", wan, entry


def _of_class(wan: Wan, entry: TrafficClass) -> dict[str, Any]:
    """What a class tunnel has because of its WAN and its class."""
    return {
        "wan": wan.name,
        "class": entry.name,
        "listener": reference.class_listener(wan.number),
        "slot": entry.slot,
    }


def _places(wan: Wan, entry: TrafficClass) -> dict[str, str]:
    """Where it is stated what a class tunnel is."""
    return {
        "name": f"{entry.path}.prefix",
        "wan": f"{wan.path}.classes",
        "listener": f"{wan.path}.classes",
        "slot": f"{entry.path}.slot",
        "transport": f"{entry.path}.transport",
        "transport_mode": f"{entry.path}.transport_mode",
    }


class TunnelReader:
    """Reads the tunnels of a site's variables, which are of the right shape.

    What can't be filled in goes to `problems`, and the names of such tunnels to `broken`.
    """

    def __init__(
        self, host: str, value: Mapping[str, Any], broken: dict[str, set[str]], problems: list[Problem]
    ) -> None:
        self.host = host
        self.value = value
        self.broken = broken
        self.problems = problems

    def tunnels(self, traffic_classes: Sequence[TrafficClass], wans: Sequence[Wan]) -> Iterator[Tunnel]:
        """Give all tunnels, those of classes that have no entry behind the others."""
        of_classes = {name: (wan, entry) for name, wan, entry in _class_tunnels(traffic_classes, wans)}
        by_name = {entry.name: entry for entry in traffic_classes}
        stated: set[str] = set()
        for index, item in enumerate(self.value["tunnels"]):
            if item is None:
                continue
            path, name = f"site.tunnels[{index}]", item["name"]
            stated.add(name)
            if name in of_classes:
                wan, entry = of_classes[name]
                places = {key: place for key, place in _places(wan, entry).items() if key not in item}
                yield self._tunnel(path, {**_of_class(wan, entry), **self._of_one_wan(path, item)}, entry, places)
            elif self._states_wans(path, item):
                wan_name = item.get("wan", reference.TUNNEL_WANS.get(name))
                yield self._tunnel(path, {**item, "wan": wan_name}, by_name.get(item.get("class", "")))
        # What errors have taken out may be an entry of one of these; so nothing is said of those then.
        if "*" in self.broken.get("tunnels", ()):
            return
        for name, (wan, entry) in of_classes.items():
            if name not in stated | self.broken.get("tunnels", set()):
                item = with_defaults("site", load("site")["$defs"]["tunnel"], {"name": name, **_of_class(wan, entry)})
                yield self._tunnel(f"{wan.path}.classes", item, entry, _places(wan, entry))

    def _of_one_wan(self, path: str, item: Mapping[str, Any]) -> dict[str, Any]:
        """Return the entry of a class tunnel without what would make it one over several WANs, which is told of."""
        several = [key for key in MULTIPATH if item.get(key)]
        if several:
            message = (
                f"by its name {item['name']} is the tunnel of its class on one WAN; for one over several take another "
                "name, and state the class there"
            )
            self.problems.append(Problem(self.host, f"{path}.{several[0]}", message))
        return {**{key: value for key, value in item.items() if key not in MULTIPATH}, "multipath_enabled": False}

    def _states_wans(self, path: str, item: Mapping[str, Any]) -> bool:
        """Tell whether it is known which WAN, or which ones, carry a tunnel; what is wrong with that is told of."""
        name = item["name"]
        if item["multipath_enabled"]:
            if "wan" in item:
                message = (
                    f"{item['wan']} would be the only WAN, and multipath_enabled: true states them in multipath_paths; "
                    "take wan away"
                )
                self.problems.append(Problem(self.host, f"{path}.wan", message))
            if "multipath_paths" not in item:
                why = "state the WANs that carry it, such as [{wan: wan5}, {wan: wan6}]"
                return self._missing(path, name, "multipath_paths", why)
            return any(entry is not None for entry in item["multipath_paths"]) or self._is_broken(name)
        unused = [key for key in MULTIPATH if item.get(key)]
        for key in unused:
            message = "has no effect without multipath_enabled: true; set that, or take this key away and state one wan"
            self.problems.append(Problem(self.host, f"{path}.{key}", message))
        if "wan" in item or name in reference.TUNNEL_WANS:
            return True
        if unused:
            return self._is_broken(name)
        why = (
            f"only mpq1 to mpq6 and class tunnels have a default WAN, and this is '{name}'; one over several WANs has "
            "multipath_enabled: true and multipath_paths"
        )
        return self._missing(path, name, "wan", why)

    def _missing(self, path: str, name: str, key: str, why: str) -> bool:
        self.problems.append(Problem(self.host, f"{path}.{key}", f"is missing; {why}"))
        return self._is_broken(name)

    def _is_broken(self, name: str) -> bool:
        self.broken.setdefault("tunnels", set()).add(name)
        return False

    def _tunnel(
        self,
        path: str,
        item: Mapping[str, Any],
        traffic_class: TrafficClass | None,
        places: Mapping[str, str] | None = None,
    ) -> Tunnel:
        """What a tunnel doesn't state is its class's, then the site's; `places` are those of a class tunnel's keys."""
        settings = traffic_class.settings if traffic_class else {}
        stated: dict[str, Any] = {"transport_mode": reference.TRANSPORT_MODE, **self.value, **settings, **item}
        stated.setdefault("transport", reference.TRANSPORTS[stated["transport_mode"]])
        return Tunnel(
            path=path,
            name=item["name"],
            enabled=item["enabled"],
            multipath_policy=item.get("multipath_policy", reference.MULTIPATH_POLICY)
            if item["multipath_enabled"]
            else None,
            paths=tuple(_paths(path, stated, places or {})),
            listener=item.get("listener", item["name"]),
            slot=item.get("slot", 1),
            transport=stated["transport"],
            striping=Striping(
                enabled=stated["stripe_enabled"],
                pipes=stated["pipes"],
                data_shards=stated["stripe_data_shards"],
                parity_shards=stated["stripe_parity_shards"],
                fec=stated["stripe_fec"],
                fec_max_overhead=stated["stripe_fec_max_overhead"],
            ),
            transport_mode=stated["transport_mode"],
            congestion_algorithm=item["congestion_algorithm"],
            traffic_class=item.get("class"),
            of_class=places is not None,
            places=places or {},
            tun_mtu=item.get("tun_mtu"),
            probe_interval_ms=item["probe_interval_ms"],
            down_after_ms=item["down_after_ms"],
            reconnect_max_s=item["reconnect_max_s"],
        )


def _paths(path: str, stated: Mapping[str, Any], places: Mapping[str, str]) -> list[TunnelPath]:
    """Return the paths of a tunnel, the preferred one first: by priority, then by the number of the WAN.

    `stated` is all that the tunnel has, `places` where of it stands elsewhere than in its own entry.
    """
    if not stated["multipath_enabled"] or not any(stated.get("multipath_paths", [])):
        return [
            TunnelPath(
                path=path,
                wan=stated["wan"],
                outer=stated["outer"],
                transport=stated["transport"],
                pipes=None,
                priority=reference.PATH_PRIORITY,
                weight=reference.PATH_WEIGHT,
                places=places,
            )
        ]
    found = [
        TunnelPath(
            path=f"{path}.multipath_paths[{index}]",
            wan=item["wan"],
            outer=item.get("outer", stated["outer"]),
            transport=item.get("transport", stated["transport"]),
            pipes=item.get("pipes"),
            priority=item["priority"],
            weight=item["weight"],
            places={key: places.get(key, f"{path}.{key}") for key in PATH_SETTINGS if key not in item},
            own_transport="transport" in item,
        )
        for index, item in enumerate(stated["multipath_paths"])
        if item is not None
    ]
    # Names of WANs are wan1 to wan6, so that their order is that of the numbers.
    return sorted(found, key=lambda entry: (entry.priority, entry.wan))
