"""Peers that do what the protocol doesn't allow: parts for tests, and programs that attack a server."""
