"""Tunnel daemon of the mpquic multi-WAN appliance."""

__version__ = "0.2.0"
