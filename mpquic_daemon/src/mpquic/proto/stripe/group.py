"""A group of FEC that is being filled."""

from __future__ import annotations

from mpquic.proto.stripe.arq import SentGroup


class OpenGroup:
    """A group to which data shards are still added. They have left already; parity follows when it closes."""

    __slots__ = ("bodies", "deadline", "label", "latest", "sent", "shards")

    def __init__(self, label: int, shards: int, parity_count: int, latest: float) -> None:
        self.label = label
        """Class and DSCP of all of its frames (`shard.flow_label`)."""
        self.shards = shards
        """Data shards with which it closes."""
        self.latest = self.deadline = latest
        """When it closes at the latest, and when as things are."""
        self.bodies: list[bytes] = []
        self.sent = SentGroup(parity_count)
