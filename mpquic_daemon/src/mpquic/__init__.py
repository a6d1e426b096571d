"""Tunnel daemon of the mpquic multi-WAN appliance."""

__version__ = "0.1.0"
