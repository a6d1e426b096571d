"""File names on both kinds of host, and the identities in their certificates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mpquic_plan import tables

if TYPE_CHECKING:
    from mpquic_plan.model import Site, Vps

PKI_DIR: Final = "/etc/mpquic/pki"
REVOKED_FILE: Final = f"{PKI_DIR}/revoked"


def identity(site_name: str) -> str:
    """Return the identity of a site's client, the URI in its certificate."""
    return f"urn:mpquic:site:{site_name}"


def client_tls(site: Site, vps: Vps) -> dict[str, str]:
    """Return the `tls` of a client instance."""
    return {**_files(site.name), "server_name": vps.hostnames[0], "revoked_file": REVOKED_FILE}


def server_tls(vps: Vps) -> dict[str, str]:
    """Return the `tls` of a server instance."""
    # Named when it is empty too: so the first revocation is a matter of the file's content alone.
    return {**_files(vps.host), "revoked_file": REVOKED_FILE}


def client_pki(site: Site, vps: Vps) -> dict[str, Any]:
    """Return what the certificate of a site's client holds: no name that a server could have."""
    return {
        "name": site.name,
        "common_name": site.name,
        "subject_alt_names": [f"URI:{identity(site.name)}"],
        "usage": "clientAuth",
        **_revoked(vps),
    }


def server_pki(vps: Vps) -> dict[str, Any]:
    """Return what the certificate of a VPS holds."""
    addresses = [str(address) for address in (vps.address, vps.address6) if address is not None]
    return {
        "name": vps.host,
        "common_name": vps.hostnames[0],
        "subject_alt_names": [f"DNS:{name}" for name in vps.hostnames] + [f"IP:{address}" for address in addresses],
        "usage": "serverAuth",
        **_revoked(vps),
    }


def _revoked(vps: Vps) -> dict[str, Any]:
    """Return the list of a VPS, which its sites have too: a client must not believe a stolen server either."""
    serials = [f"{int(serial.replace(':', ''), 16):x}" for serial in vps.revoked_certificates]
    return {"revoked_file": REVOKED_FILE, "revoked": serials}


def _files(name: str) -> dict[str, str]:
    return {
        "ca_file": f"{PKI_DIR}/ca.crt",
        "cert_file": f"{PKI_DIR}/{name}.crt",
        "key_file": f"{PKI_DIR}/{name}.key",
    }


def sysctl() -> dict[str, int]:
    """Return the kernel settings of a host.

    Forwarding is apart (`forwarding`), as it has to wait for the packet filter.
    rp_filter takes the stricter of `all` and an interface's own value, and with 1 or 2 drops answers that come by a WAN
    or a TUN; so it is 0 for all, for those that exist (`*`) and those that come.
    """
    return {
        "net.ipv4.conf.all.rp_filter": 0,
        "net.ipv4.conf.default.rp_filter": 0,
        "net.ipv4.conf.*.rp_filter": 0,
        "net.ipv4.conf.all.ignore_routes_with_linkdown": 1,
        "net.ipv4.conf.default.ignore_routes_with_linkdown": 1,
        "net.ipv6.conf.all.ignore_routes_with_linkdown": 1,
        "net.ipv6.conf.default.ignore_routes_with_linkdown": 1,
    }


def sysctl_minimums() -> dict[str, int]:
    """Return kernel settings that are only ever raised, where the host lets us.

    Socket buffers for a tunnel's bursts, and connection tracking for hundreds of users behind a LAN: each entry takes
    about 320 bytes, when it is used.
    """
    return {
        "net.core.rmem_max": 4 << 20,
        "net.core.wmem_max": 4 << 20,
        "net.netfilter.nf_conntrack_max": 1 << 18,
    }


def forwarding() -> dict[str, int]:
    """Return the kernel settings that let a host forward; only for when its packet filter is loaded."""
    return {"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1}


def ranges() -> dict[str, Any]:
    """Return the numbers that the suite owns: what lies in them and not in the plan is deleted."""
    return {
        "tables": [list(pair) for pair in tables.TABLE_RANGES],
        "rule_priorities": [list(pair) for pair in tables.PRIORITY_RANGES],
    }
