"""Why the tunnel of a client doesn't carry: the newest cause, and none once it carries."""

from __future__ import annotations


class Cause:
    """An obstacle explains silence, and nothing that was answered; silence keeps its first wording while it lasts."""

    def __init__(self) -> None:
        self._reason: str | None = None
        self._is_silence = False
        self.obstacle: str | None = None
        """Why no packet can reach the server by the WAN as it is now, as far as its addresses tell."""
        self.shortage: str | None = None
        """That the path's MTU is too small for QUIC, as far as is known."""

    @property
    def is_known(self) -> bool:
        """Whether anything was told since `clear`."""
        return self._reason is not None

    @property
    def text(self) -> str | None:
        """The cause in words, None when there is none."""
        if self._reason is None or self._is_silence:
            shortage = self._reason if self.shortage is None else f"{self._reason or 'no answer'}: {self.shortage}"
            return self.obstacle or shortage
        return self._reason

    def clear(self) -> None:
        """The tunnel carries, or nothing has been tried yet under the present circumstances."""
        self._reason, self._is_silence, self.shortage = None, False, None

    def silence(self, reason: str) -> None:
        """The server doesn't answer."""
        if not self._is_silence:
            self._reason, self._is_silence = reason, True

    def failure(self, reason: str) -> None:
        """Something answered, or this machine itself says why it doesn't work."""
        self._reason, self._is_silence = reason, False
