"""Link emulator: rate, delay, loss and their kin between two TUN devices, in user space.

`model` says what can be set; `direction` is what becomes of the packets, without sockets and clocks, on top of `frame`
(packets and superframes), `icmp`, `jitter`, `leo` and `counters`; `shell` wires it to `tun` devices and to the requests
of `control`; `client` asks these. `python -m mpqlab.emulator --help` lists the keys.
"""
