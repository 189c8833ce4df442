"""The ordinary CAVEclient, for what it has and we have not."""

from __future__ import annotations

from typing import Any

from ..errors import MissingDependency
from ..services._base import Session


def cave_client(session: Session) -> Any:
    """A ``CAVEclient`` for the same datastack, server, token and version."""
    try:
        from caveclient import CAVEclient
    except ImportError as error:
        raise MissingDependency("caveclient", "cave", "client.cave") from error
    token = session.transport.token.find(session.server)
    return CAVEclient(
        session.spec.datastack,
        server_address=session.server,
        auth_token=token.value if token else None,
        version=session.version,
        write_server_cache=False,
    )
