"""`dream doctor`: looks at everything that dream needs and says, line by line, what is right and what to do."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import typer

from dream.errors import SettingsError
from dream.process import EXIT_FAILURE

if TYPE_CHECKING:
    from dream.cli.findings import Finding
    from dream.settings import Settings

__all__ = ["register"]

#: Mark, word and colour of each outcome: the word is for those who see no colours.
_SHOWN = {
    "right": ("✓", "right", typer.colors.GREEN),
    "warning": ("!", "warn", typer.colors.YELLOW),
    "wrong": ("✗", "wrong", typer.colors.RED),
    "unchecked": ("-", "skip", typer.colors.YELLOW),
}
#: A store that does not answer is to be known soon.
_S3_TIMEOUT_S = 5.0


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(doctor)


def doctor() -> None:
    """Check settings, broker, workers, database, bucket, clock and keys. Exit 1 if anything is wrong."""
    from dream.cli.findings import examine, right, wrong

    # A terminal without our marks still gets the words.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    try:
        settings = _settings()
    except SettingsError as error:
        advice = "set it in the environment; nothing else can be checked before"
        raise typer.Exit(_report([("settings", wrong(str(error), advice))])) from None
    from dream.cli.checks import checks_of

    first = [("settings", right("all of them are well-formed"))]
    raise typer.Exit(_report(first) or _report(examine(checks_of(settings))))


def _settings() -> Settings:
    from dream.cli.access import load_quietly

    settings = load_quietly()
    return settings.model_copy(
        update={
            "s3_connect_timeout_s": min(settings.s3_connect_timeout_s, _S3_TIMEOUT_S),
            "s3_read_timeout_s": min(settings.s3_read_timeout_s, _S3_TIMEOUT_S),
        }
    )


def _report(findings: Iterable[tuple[str, Finding]]) -> int:
    """Print each finding as it comes; returns the exit code."""
    from dream.log import redact

    is_wrong = False
    for name, finding in findings:
        mark, word, colour = _SHOWN[finding.outcome]
        is_wrong = is_wrong or finding.outcome == "wrong"
        typer.echo(f"{typer.style(f'{mark} {word:5}', fg=colour)}  {name}: {redact(finding.said)}")
        if finding.advice:
            typer.echo(f"         → {redact(finding.advice)}")
    return EXIT_FAILURE if is_wrong else 0
