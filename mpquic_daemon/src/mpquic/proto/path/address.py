"""Addresses of UDP sockets, as the socket module gives them, and how people write them."""

Address = tuple[str, int] | tuple[str, int, int, int]
"""(host, port), and for IPv6 (host, port, flow information, scope)."""


def plain_host(address: Address) -> str:
    """Return the host of an address without the IPv4-mapped form and the scope that a dual-stack socket shows."""
    return address[0].removeprefix("::ffff:").partition("%")[0]


def endpoint(host: str, port: int) -> str:
    """Return address and port for people."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
