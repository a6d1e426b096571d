"""What a path has sent and received, by all its data planes."""


class Traffic:
    """UDP payloads of one path: their number and bytes. Whoever owns the path hands it to each connection and session.

    It counts everything: inner packets, what protects and repeats them, handshakes, probes and acknowledgements.
    """

    __slots__ = ("rx_bytes", "rx_datagrams", "tx_bytes", "tx_datagrams")

    def __init__(self) -> None:
        self.tx_datagrams = self.tx_bytes = self.rx_datagrams = self.rx_bytes = 0

    def sent(self, datagrams: int, octets: int) -> None:
        """Count what leaves."""
        self.tx_datagrams += datagrams
        self.tx_bytes += octets

    def received(self, datagrams: int, octets: int) -> None:
        """Count what has come."""
        self.rx_datagrams += datagrams
        self.rx_bytes += octets

    def add(self, other: "Traffic") -> None:
        """Take over what another one has counted."""
        self.sent(other.tx_datagrams, other.tx_bytes)
        self.received(other.rx_datagrams, other.rx_bytes)
