"""Addresses of either family."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

Network = IPv4Network | IPv6Network
