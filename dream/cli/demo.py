"""`dream demo`: the whole stack, and the sample pictures on their way through it.

This process speaks to the stack from outside, as any caller would; the stack is a `dream up` of its own beside it:

    dream demo ──starts──► dream up ──► servers, worker, scheduler, gateway
        └── upload, watch the rows, list and download over HTTP
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from dream.cli.parts import Data
from dream.errors import DreamError, StackError
from dream.process import EXIT_FAILURE, EXIT_INTERRUPTED

__all__ = ["register"]

#: `dream up` promises 10 s.
_STOP_TIMEOUT_S = 15.0
_READY = "ready "


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(demo)


def demo(
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="The gateway's port; 0 chooses a free one.")
    ] = 8000,
    data: Data = Path(".dream"),
    once: Annotated[
        bool, typer.Option("--once", help="Stop after the pictures; exit 0 only if all went well.")
    ] = False,
) -> None:
    """Start everything, send sample pictures through it, and stay up to be looked at until Ctrl-C."""
    # SIGTERM is to be as orderly an end as Ctrl-C.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    code = EXIT_INTERRUPTED if once else 0
    try:
        with _stack(data, port) as stack:
            url = _ready(stack)
            problem = _try_out(stack, data, url, once=once)
            if problem is not None:
                typer.echo(f"dream: the demo did not work: {problem}", err=True)
            code = EXIT_FAILURE if problem is not None else 0
            if not once:
                typer.echo("Ctrl-C stops everything.")
                code = stack.wait() or EXIT_FAILURE
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
    raise typer.Exit(code)


@contextmanager
def _stack(data: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """A `dream up` that is stopped at the end, however the end comes."""
    from dream.stack.own import without_own
    from dream.stack.up import import_flags
    from dream.tether import tethered

    # Sample pictures do not belong on a server of the caller's.
    caller, left_out = without_own(os.environ)
    if left_out:
        typer.echo(f"the demo uses embedded servers only and ignores: {', '.join(sorted(left_out))}")
    typer.echo("starting Valkey, SeaweedFS, a worker, the scheduler and the gateway …")
    command = [sys.executable, *import_flags(), "-m", "dream", "up", "--port", str(port), "--data", str(data)]
    # Its routine is in the log files; what goes wrong is shown.
    environment = {"DREAM_LOG_LEVEL": "warning", **caller}
    stack = subprocess.Popen(
        tethered(command), env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield stack
    finally:
        _stop(stack)


def _stop(stack: subprocess.Popen[str]) -> None:
    """Stop the stack in order; a second Ctrl-C hurries it, as it would hurry `dream up`."""
    while stack.poll() is None:
        try:
            stack.terminate()
            stack.wait(_STOP_TIMEOUT_S)
        except KeyboardInterrupt:
            continue
        except subprocess.TimeoutExpired:
            stack.kill()
    if stack.stdout is not None:
        stack.stdout.close()


def _ready(stack: subprocess.Popen[str]) -> str:
    """The gateway's URL, once every part answers. Where the stack did not start it has said why."""
    line = stack.stdout.readline() if stack.stdout is not None else ""
    if not line.startswith(_READY):
        raise typer.Exit(stack.wait() or EXIT_FAILURE)
    return line.removeprefix(_READY).strip()


def _try_out(stack: subprocess.Popen[str], data: Path, url: str, *, once: bool) -> str | None:
    """Send the samples through; what went wrong, or None."""
    from dream.cli.demo_client import run
    from dream.stack import environment
    from dream.stack.own import without_own
    from dream.stack.up import running_variables

    def check_stack() -> None:
        if stack.poll() is not None:
            raise StackError("the stack ended by itself")

    # From here on this process is a client of the stack, whatever the caller's shell points at.
    pointed = environment.for_part(without_own(os.environ)[0], running_variables(data))
    os.environ.clear()
    os.environ.update(pointed)
    try:
        address = run(data / "samples", url, check_stack)
    except DreamError as error:
        return str(error)
    if not once:  # it is not there any more in a moment
        typer.echo(f"look at them: {address}")
    return None
