"""Retry and Version Negotiation, for which a server keeps nothing of whom it sends to (RFC 9000 sections 6 and 8.1)."""

from collections.abc import Callable

from aioquic.quic.packet import QuicHeader, encode_quic_retry, encode_quic_version_negotiation
from aioquic.quic.retry import QuicRetryTokenHandler

from mpquic.proto.path.address import Address
from mpquic.quic.aioquic_receive import CONNECTION_ID_BYTES


class RetryTokens:
    """Has peers show by a Retry that their address is their own; its tokens are good for this process only."""

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        self._tokens = QuicRetryTokenHandler()

    def original_destination(self, header: QuicHeader, address: Address, now: float) -> bytes:
        """Return the connection ID that the client chose first.

        Raises:
            ValueError: the token is of another process or address, or too old.
        """
        return self._tokens.validate_token(
            address=address, destination_cid=header.destination_cid, token=header.token, now=now
        )

    def retry(self, header: QuicHeader, address: Address, now: float) -> bytes:
        """Return the Retry for an Initial."""
        assert header.version is not None  # a long header
        source_cid = self._entropy(CONNECTION_ID_BYTES)
        token = self._tokens.create_token(
            address=address,
            original_destination_connection_id=header.destination_cid,
            retry_source_connection_id=source_cid,
            now=now,
        )
        return encode_quic_retry(
            version=header.version,
            source_cid=source_cid,
            destination_cid=header.source_cid,
            original_destination_cid=header.destination_cid,
            retry_token=token,
        )


def version_negotiation(header: QuicHeader, versions: list[int]) -> bytes:
    """Return the packet that tells the sender of a long header which versions there are."""
    return encode_quic_version_negotiation(
        source_cid=header.destination_cid, destination_cid=header.source_cid, supported_versions=versions
    )
