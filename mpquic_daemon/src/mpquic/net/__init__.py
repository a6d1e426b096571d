"""Everything the kernel must be told: TUN, UDP, netlink, the QUIC endpoint."""
