"""The lab and its two machines, for every test of the scenario."""

from mpqlab.fixtures import client, download, healed, lab, probe, vps

__all__ = ["client", "download", "healed", "lab", "probe", "vps"]
