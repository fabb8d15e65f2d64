"""The `dream` command: one file for each group of commands, each command importing what it needs when it runs."""

from __future__ import annotations

import typer

from dream.cli import bridge, dead_letters, demo, doctor, images, parts, schedule, tokens

__all__ = ["app"]

app = typer.Typer(
    name="dream",
    help="Background image processing: photos in, processed objects, rows and live updates out.",
    no_args_is_help=True,
    add_completion=False,
    # Rich help costs a tenth of a second at each start of a worker; our errors are one line anyway.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for group in (parts, images, tokens, dead_letters, schedule, bridge, doctor, demo):
    group.register(app)
