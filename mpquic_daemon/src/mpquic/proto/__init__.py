"""Pure state machines of the tunnel: bytes and time come in, bytes and events go out (no socket, clock or random)."""
