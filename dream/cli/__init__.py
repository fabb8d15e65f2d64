"""The `dream` command: a module for each group of commands. A command imports heavy modules when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from dream.cli import bridge, dead_letters, demo, doctor, images, processes, reprocess, schedule, tokens, top
from dream.cli.command import CommandGroup
from dream.version import __version__

__all__ = ["app"]

app = typer.Typer(
    name="dream",
    cls=CommandGroup,
    help="Process pictures of a web application in the background, store them, and tell open pages.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    # Rich help costs a tenth of a second at each start of a worker.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


for group in (processes, images, reprocess, tokens, dead_letters, schedule, bridge, doctor, top, demo):
    group.register(app)
