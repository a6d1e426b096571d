"""The asyncio shell around the protocol: client, server, control socket, statistics."""
