"""A site and a VPS as their variables say, defaults filled in, addresses parsed; nothing derived yet.

`path` of each item is its place in the variables, for messages.
"""

from mpquic_plan.model.addresses import Network
from mpquic_plan.model.classes import MatchRule, TrafficClass
from mpquic_plan.model.fleet import Fleet, Listener, Site, Vps
from mpquic_plan.model.links import DhcpClient, DhcpServer, Lan, Management, Match, StaticAddress, Wan
from mpquic_plan.model.router import Router, RouterPolicy, RouterPort
from mpquic_plan.model.services import ForwardOpening, Opening
from mpquic_plan.model.tunnels import Striping, Tunnel, TunnelPath

__all__ = [
    "DhcpClient",
    "DhcpServer",
    "Fleet",
    "ForwardOpening",
    "Lan",
    "Listener",
    "Management",
    "Match",
    "MatchRule",
    "Network",
    "Opening",
    "Router",
    "RouterPolicy",
    "RouterPort",
    "Site",
    "StaticAddress",
    "Striping",
    "TrafficClass",
    "Tunnel",
    "TunnelPath",
    "Vps",
    "Wan",
]
