"""The control connection of a path: messages, registration, identities, and who is connected to a server."""
