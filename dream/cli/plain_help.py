"""Help that names an argument by its metavar alone: Typer prints its type as well, `FILE <list[Path]>`."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

__all__ = ["PlainHelp"]


class PlainHelp(TyperCommand):
    """The class of commands that take arguments."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections of arguments and options, as Typer does but for the types."""
        rows: dict[str, list[tuple[str, str]]] = {"argument": [], "option": []}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                name, text = record
                kind = parameter.param_type_name
                rows[kind].append((name.partition(" <")[0] if kind == "argument" else name, text))
        for kind, title in (("argument", "Arguments"), ("option", "Options")):
            if rows[kind]:
                with formatter.section(title):
                    formatter.write_dl(rows[kind])
