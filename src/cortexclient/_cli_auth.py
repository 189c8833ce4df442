"""``cortexclient auth``: where the token is, whether it is taken, and how to save one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from .diagnosis import Diagnosis

auth = typer.Typer(no_args_is_help=True, help="Find, check and save the token of a server.")

Dataset = Annotated[str, typer.Argument(help="Name of a dataset or datastack.")]
Server = Annotated[
    str | None, typer.Option(metavar="URL", help="Its server; default: $CORTEXCLIENT_SERVER, else its own.")
]


@auth.command()
def status(dataset: Dataset = "minnie_public", *, server: Server = None) -> None:
    """Say where the token is found, and ask each service whether it takes it. Exit status 1: trouble."""
    from . import AsyncCortexClient
    from ._transport import auth_status

    async def ask() -> Diagnosis:
        async with AsyncCortexClient(dataset, server=server) as client:
            found = auth_status(client.server_address)
            where = f"token from {found.source}" if found.found else "no token: run `cortexclient auth setup`"
            typer.echo(f"{found.server}: {where}")
            return await client.diagnose()

    diagnosis = asyncio.run(ask())
    for service in diagnosis.services:
        typer.echo(f"{service.service}: token {service.token}" + (f" ({service.problem})" if service.problem else ""))
    if not diagnosis.ok:
        raise typer.Exit(1)


@auth.command()
def setup(
    dataset: Dataset = "minnie_public",
    *,
    server: Server = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a token that is there.")] = False,
) -> None:
    """Say where to make a token, and save it where this package and caveclient look for it."""
    from . import AsyncCortexClient
    from ._transport import auth_status, save_token

    found = auth_status(AsyncCortexClient(dataset, server=server).server_address)
    typer.echo(
        f"Log in at {found.page}, make a token or copy one (making one may end an older one), and paste it here."
    )
    token = typer.prompt("Token (it is not shown)", hide_input=True)
    typer.echo(f"saved in {save_token(token, found.server, overwrite=overwrite)}")
