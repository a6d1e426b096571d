"""Which way a packet of a LAN takes on this host: rules, routes and the packet filter, evaluated as the kernel does.

`fib` (rules and routes), `ruleset` and `expression` (nftables) are pure; `listing` and `links` read what the tools and
files of the host say; `host` asks them; `way` puts it together, and `text` is for people. `probe` knows a packet again
that `send` has sent.
"""
