"""The OpenWrt router of a site: what it needs to send its traffic to the client, as UCI configuration."""

from mpquic_plan.openwrt.sections import router_slice

__all__ = ["router_slice"]
