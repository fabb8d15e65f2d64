"""`dream doctor`: check everything that dream needs, and print a line with advice for each finding."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from itertools import chain
from typing import TYPE_CHECKING, Annotated

import typer

from dream.cli.command import Command, load_quietly
from dream.errors import SettingsError
from dream.work.process import EXIT_FAILURE, EXIT_SETTINGS

if TYPE_CHECKING:
    from dream.cli.findings import Finding
    from dream.settings import Settings

__all__ = ["register"]

#: Mark, word and colour of each outcome; the word serves people who see no colours.
_SHOWN = {
    "right": ("✓", "right", typer.colors.GREEN),
    "warning": ("!", "warn", typer.colors.YELLOW),
    "wrong": ("✗", "wrong", typer.colors.RED),
    "unchecked": ("-", "skip", typer.colors.YELLOW),
}
#: Two names that are this similar are one name, misspelt.
_NEARLY = 0.88
#: An object store that does not answer is reported soon.
_S3_TIMEOUT_S = 5.0


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(cls=Command)(doctor)


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of {check, outcome, said, advice}.")] = False,
) -> None:
    """Check settings, servers, processes, clocks, disks and keys. Exit 1 if anything is wrong, 2 if a setting is."""
    from dream.cli.checks import checks_of
    from dream.cli.findings import examine, right, wrong

    # A terminal that cannot show the marks still shows the words.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    report = _report_json if as_json else _report
    try:
        settings = _settings()
    except SettingsError as error:
        advice = "correct it in the environment; the other checks need it"
        report([("settings", wrong(said, advice)) for said in error.each])
        raise typer.Exit(EXIT_SETTINGS) from None
    first = [("settings", right("all settings are well-formed")), *_misspelt()]
    raise typer.Exit(report(chain(first, examine(checks_of(settings)))))


def _misspelt() -> Iterator[tuple[str, Finding]]:
    """Variables whose names are nearly those of settings. Other `DREAM_` variables may belong to another program."""
    from dream.cli.findings import warning
    from dream.settings import Settings

    known = {"DREAM_SECRETS_DIR", *(f"DREAM_{name.upper()}" for name in Settings.model_fields)}
    for name in sorted(os.environ):
        meant = get_close_matches(name.upper(), known, 1, _NEARLY)
        if meant and name.upper() not in known:
            yield "settings", warning(f"{name}: unknown setting; it has no effect", f"did you mean {meant[0]}?")


def _settings() -> Settings:
    settings = load_quietly()
    return settings.model_copy(
        update={
            "s3_connect_timeout_s": min(settings.s3_connect_timeout_s, _S3_TIMEOUT_S),
            "s3_read_timeout_s": min(settings.s3_read_timeout_s, _S3_TIMEOUT_S),
        }
    )


def _report_json(findings: Iterable[tuple[str, Finding]]) -> int:
    """Print the findings as one list; return the exit code."""
    from dream.log import redact

    found = [
        {
            "check": name,
            "outcome": str(finding.outcome),
            "said": redact(finding.said),
            "advice": redact(finding.advice) if finding.advice else None,
        }
        for name, finding in findings
    ]
    typer.echo(json.dumps(found, ensure_ascii=False, indent=2))
    return EXIT_FAILURE if any(each["outcome"] == "wrong" for each in found) else 0


def _report(findings: Iterable[tuple[str, Finding]]) -> int:
    """Print each finding at once; return the exit code."""
    from dream.log import redact

    is_wrong = False
    for name, finding in findings:
        mark, word, colour = _SHOWN[finding.outcome]
        is_wrong = is_wrong or finding.outcome == "wrong"
        typer.echo(f"{typer.style(f'{mark} {word:5}', fg=colour)}  {name}: {redact(finding.said)}")
        if finding.advice:
            typer.echo(f"         → {redact(finding.advice)}")
    return EXIT_FAILURE if is_wrong else 0
