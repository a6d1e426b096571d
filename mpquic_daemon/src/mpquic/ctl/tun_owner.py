"""The instance that owns a TUN, as its control socket, its file and the holds of this host tell of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from mpquic import control_client, held
from mpquic.config import ClientConfig, load
from mpquic.config.schema import ConfigError
from mpquic.ctl.instances import instance_files, reason, row_of_stopped

if TYPE_CHECKING:
    from pathlib import Path

    from mpquic.config import InstanceConfig


def owner(directory: Path, device: str) -> tuple[Path, InstanceConfig] | None:
    """Return the file and configuration of the instance whose TUN this is; OSError."""
    for path in instance_files(directory):
        try:
            config = load(path)
        except ConfigError:
            # An instance usually has the name of its TUN; what is wrong with its file is told by `mpquicctl status`.
            continue
        if config.tun_name == device:
            return path, config
    return None


def describe(directory: Path, device: str) -> dict[str, Any] | None:
    """Return the tunnel of a TUN: name, state, error, hold, wan, paths; None when no instance has this device."""
    found = owner(directory, device)
    if found is None:
        return None
    path, config = found
    enabled = config.enabled if isinstance(config, ClientConfig) else True
    facts: dict[str, Any] = {
        "name": path.stem,
        "device": device,
        "wan": ",".join(way.name for way in config.paths) if isinstance(config, ClientConfig) else None,
        "wan_devices": list(config.devices),
        "state": None,
        "error": None,
        "enabled": enabled,
        "hold": held.report(held.find(path.stem, path, enabled=enabled, now=time.time())),
        "paths": [],
    }
    try:
        status = control_client.call(path.stem, {"op": "get", "what": "status"})
        paths = control_client.call(path.stem, {"op": "get", "what": "paths"})
    except control_client.NotRunning:
        row = row_of_stopped(path)
        return facts | {"state": row["state"], "error": row["error"]}
    except (control_client.ControlError, OSError) as error:
        return facts | {"error": reason(error)}
    facts |= {"state": status.get("state"), "error": status.get("error")}
    facts["paths"] = [_path(each) for each in paths]
    return facts


def _path(path: dict[str, Any]) -> dict[str, Any]:
    stripe, mode = path.get("stripe"), path.get("transport_mode")
    plane = "stripe" if stripe and stripe.get("carries") else f"QUIC, {mode}"
    return {
        "wan": path.get("path"),
        "device": path.get("device"),
        "local": path.get("local"),
        "peer": path.get("peer"),
        "data_plane": plane if path.get("local") is not None else None,
        "rtt_seconds": path.get("rtt_seconds"),
        "loss_ratio": path.get("loss_ratio"),
    }
