"""What the paths of a client have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from mpquic.config import ClientConfig
    from mpquic.daemon.credentials import ClientIdentity
    from mpquic.daemon.incarnation import Incarnation
    from mpquic.daemon.journal import Journal
    from mpquic.daemon.pump import Pump
    from mpquic.daemon.server_hold import ServerHold
    from mpquic.net.kernel import Kernel
    from mpquic.proto.tunnel.receiver import TunnelReceiver


@dataclass(slots=True, kw_only=True, eq=False)
class Shared:
    """Made once for a client. `iterate` runs an iteration, `iterate_soon` after the present event.

    `on_session` is called with the session that the server names in a registration.
    """

    config: ClientConfig
    identity: ClientIdentity
    incarnation: Incarnation
    server_hold: ServerHold
    journal: Journal
    loop: asyncio.AbstractEventLoop
    kernel: Kernel
    pump: Pump
    receiver: TunnelReceiver
    iterate: Callable[[], None]
    iterate_soon: Callable[[], None]
    on_session: Callable[[bytes], None]
