"""What a client requests of its server for a striped session, with its registration and again while it is connected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic.net.aead import preferred_suites
from mpquic.proto.control.messages import RenewStripe, StripeRenewed, StripeRequest

if TYPE_CHECKING:
    from mpquic.config import ClientConfig, PathConfig
    from mpquic.daemon.session import Session
    from mpquic.proto.control.messages import Message


def stripe_request(config: ClientConfig, path: PathConfig) -> StripeRequest | None:
    """Return what is asked for with `transport: stripe`, None for another transport."""
    if path.transport != "stripe":
        return None
    return StripeRequest(
        pipes=path.pipes,
        datagram_size=config.max_datagram_size,
        suites=[int(suite) for suite in preferred_suites()],
        data_shards=config.stripe_data_shards,
        parity_shards=config.stripe_parity_shards,
        fec=config.stripe_fec,
        max_overhead=config.stripe_fec_max_overhead,
    )


class StripeRequests:
    """Requests for another striped session, by the control messages of one connection; one at a time is open."""

    def __init__(self, session: Session, request: StripeRequest | None, now: float) -> None:
        self._session = session
        self._request = request
        self._open: int | None = None
        """Id of the request to which no reply has come yet."""
        self.since = now
        """When the last of them was made."""

    @property
    def is_open(self) -> bool:
        """Whether another session was requested and the reply has not come."""
        return self._open is not None

    def send(self, now: float) -> None:
        """Request another session; `reply` finds the answer."""
        if self._request is not None:
            self.since = now
            self._open = self._session.send(RenewStripe(stripe=self._request))

    def reply(self, messages: list[tuple[int, Message]]) -> StripeRenewed | None:
        """Return the answer to the last request, if it is among the messages that have come, each with its id."""
        for message_id, message in messages:
            if isinstance(message, StripeRenewed) and message_id == self._open:
                self._open = None
                return message
        return None
