"""``python -m cortexclient.sandbox``: the same as ``cortexclient sandbox``."""

import typer

from .cli import sandbox

typer.run(sandbox)
