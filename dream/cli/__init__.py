"""The `dream` command: one file for each group of commands, each command importing what it needs when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from dream.cli import bridge, dead_letters, demo, doctor, images, parts, schedule, tokens
from dream.version import __version__

__all__ = ["app"]

app = typer.Typer(
    name="dream",
    help="Background image processing: photos in, processed objects, rows and live updates out.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    # Rich help costs a tenth of a second at each start of a worker; our errors are one line anyway.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Say which release this is.", is_eager=True, callback=_say_version)
    ] = False,
) -> None:
    pass


for group in (parts, images, tokens, dead_letters, schedule, bridge, doctor, demo):
    group.register(app)
