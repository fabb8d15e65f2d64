"""`dream demo`: start the whole stack and send sample pictures through it.

This process talks to the stack from outside, as any caller does; the stack is a `dream up` beside it:

    dream demo ──starts──► dream up ──► servers, worker, scheduler, gateway
        └── upload, watch the rows, list and download over HTTP
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dream.cli.command import Command, load_quietly, opened
from dream.cli.processes import Data
from dream.cli.showing import Seen, clean, pixels, reason_or_url, watch_upload
from dream.cli.tokens import DEFAULT_TTL_S, sign
from dream.errors import DreamError, StackError
from dream.messages.arguments import ImageFile
from dream.messages.states import ImageState
from dream.work.process import EXIT_FAILURE, EXIT_INTERRUPTED

if TYPE_CHECKING:
    from dream.db import DreamImage
    from dream.producer import Producer

__all__ = ["register"]

_DREAM_ID = 1
_USER_ID = 1
_PICTURES_TIMEOUT_S = 120.0
_HTTP_TIMEOUT_S = 30.0
_HTTP_OK = 200

#: `dream up` promises 10 s.
_STOP_TIMEOUT_S = 15.0
_READY = "ready "


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(cls=Command)(demo)


def demo(
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="The gateway's port; 0 chooses a free one.")
    ] = 8000,
    data: Data = Path(".dream"),
    once: Annotated[
        bool, typer.Option("--once", help="Stop after the pictures; exit 0 only if every step worked.")
    ] = False,
    is_opening: Annotated[
        bool | None,
        typer.Option("--open/--no-open", help="Open the page in a browser. By default, if a terminal has a screen."),
    ] = None,
) -> None:
    """Start everything, send sample pictures, and run until Ctrl-C."""
    # SIGTERM ends the stack in order, as Ctrl-C does.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    code = EXIT_INTERRUPTED if once else 0
    try:
        with _stack(data, port) as stack:
            url = _ready(stack)
            token, problem = _try_out(stack, data, url)
            if problem is not None:
                typer.echo(f"dream: the demo did not work: {problem}", err=True)
            code = EXIT_FAILURE if problem is not None else 0
            if not once:
                if token is not None:
                    address = f"{url}/#dream={_DREAM_ID}&token={token}"
                    typer.echo(f"look at them: {address}")
                    typer.echo(f"look at the system: {url}/ops#token={_token(is_operator=True)}")
                    _show(address, is_opening)
                typer.echo("Ctrl-C stops everything.")
                code = stack.wait() or EXIT_FAILURE
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
    raise typer.Exit(code)


@contextmanager
def _stack(data: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """Run `dream up`, and stop it at the end in any case."""
    from dream.stack.environment import without_own
    from dream.stack.up import import_flags
    from dream.work.tether import tethered

    # Sample pictures do not belong on the caller's servers.
    caller, left_out = without_own(os.environ)
    if left_out:
        typer.echo(f"the demo uses embedded servers only and ignores: {', '.join(sorted(left_out))}")
    typer.echo("starting Valkey, SeaweedFS, a worker, the scheduler and the gateway …")
    command = [sys.executable, *import_flags(), "-m", "dream", "up", "--port", str(port), "--data", str(data)]
    # The log files hold routine messages; standard error shows warnings.
    environment = {"DREAM_LOG_LEVEL": "warning", **caller}
    stack = subprocess.Popen(
        tethered(command), env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield stack
    finally:
        _stop(stack)


def _stop(stack: subprocess.Popen[str]) -> None:
    """Stop the stack in order. A second Ctrl-C hurries it, as it hurries `dream up`."""
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
    """Wait until every process answers; return the gateway's URL. A stack that does not start logs the reason."""
    line = stack.stdout.readline() if stack.stdout is not None else ""
    if not line.startswith(_READY):
        raise typer.Exit(stack.wait() or EXIT_FAILURE)
    return line.removeprefix(_READY).strip()


def _show(address: str, is_opening: bool | None) -> None:
    """Open the page in the user's browser, if there is one to see it."""
    has_screen = sys.platform in ("darwin", "win32") or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    if is_opening or (is_opening is None and has_screen and sys.stdout.isatty()):
        webbrowser.open(address)


def _try_out(stack: subprocess.Popen[str], data: Path, url: str) -> tuple[str | None, str | None]:
    """Send the samples through the stack; return a token for them, or the problem."""
    from dream.stack.environment import for_process, without_own
    from dream.stack.up import running_variables

    def check_stack() -> None:
        if stack.poll() is not None:
            raise StackError("the stack ended by itself")

    # From now on this process is a client of the stack, not of servers that the caller's shell names.
    pointed = for_process(without_own(os.environ)[0], running_variables(data))
    os.environ.clear()
    os.environ.update(pointed)
    try:
        return _send_samples(data / "samples", url, check_stack), None
    except DreamError as error:
        return None, str(error)


# --- pictures


def _send_samples(folder: Path, url: str, check_stack: Callable[[], None]) -> str:
    """Send the sample pictures through the stack of the environment; return a token of their owner.

    Parameters:
      folder: the folder for the samples.
      url: the gateway's URL.
      check_stack: raises if the stack has ended.

    Raises:
      DreamError: a step did not work.
    """
    from dream.stack.samples import draw

    settings = load_quietly()
    typer.echo(f"drawing sample pictures into {folder}")
    files = [ImageFile(name=path.name, data=path.read_bytes()) for path in draw(folder)]
    token = _token()
    with opened(settings) as producer:
        producer.set_owner(_DREAM_ID, _USER_ID, f"user{_USER_ID}")
        for file in files:
            typer.echo(f"  sent  {file['name']}  {len(file['data']):,} bytes")
        images = _send(producer, files, check_stack)
    _check_completed(images)
    _check_listed(images, url, token)
    _check_downloads(images)
    typer.echo(f"all {len(images)} pictures are completed, listed and downloadable")
    return token


def _token(*, is_operator: bool = False) -> str:
    """Return a token of the owner. Each link has its own: to sign out of one page ends no other."""
    return sign(load_quietly(), _USER_ID, DEFAULT_TTL_S, is_operator=is_operator)


def _send(producer: Producer, files: list[ImageFile], check_stack: Callable[[], None]) -> Sequence[DreamImage]:
    """Upload the files, and print each result at once."""
    task_id = producer.upload_images(_DREAM_ID, files)
    printed: set[int] = set()
    seen = Seen([], is_ended=False)
    for seen in watch_upload(producer.database, task_id, _PICTURES_TIMEOUT_S):
        for image in seen.images:
            if image.id not in printed and image.state in (ImageState.COMPLETED, ImageState.FAILED):
                printed.add(image.id)
                _print(image)
        check_stack()
    if not seen.is_ended:
        raise DreamError(f"the pictures were not done within {_PICTURES_TIMEOUT_S:g} s")
    return seen.images


def _print(image: DreamImage) -> None:
    size = f"{image.size_bytes:,} bytes" if image.size_bytes else "-"
    name = clean(image.filename)
    typer.echo(f"  {image.state}  {name}  {pixels(image)} px  {size}")
    typer.echo(reason_or_url(image))  # a URL fits into 80 columns at the start of a line


def _check_completed(images: Sequence[DreamImage]) -> None:
    failed = [image for image in images if image.state is not ImageState.COMPLETED]
    if failed:
        raise DreamError("; ".join(f"{image.filename} is {image.state}: {image.error}" for image in failed))


def _check_listed(images: Sequence[DreamImage], url: str, token: str) -> None:
    body = _get(f"{url}/api/dreams/{_DREAM_ID}/images", {"Authorization": f"Bearer {token}"})
    listed: dict[int, Any] = {entry["id"]: entry for entry in json.loads(body)}
    for image in images:
        entry = listed.get(image.id)
        if entry is None or (entry["state"], entry["url"]) != (ImageState.COMPLETED, image.url):
            raise DreamError(f"the gateway lists {image.filename} wrongly: {entry}")


def _check_downloads(images: Sequence[DreamImage]) -> None:
    for image in images:
        size_bytes = len(_get(image.url or ""))
        if size_bytes != image.size_bytes:
            raise DreamError(f"{image.url} gave {size_bytes} bytes, not {image.size_bytes}")


def _get(url: str, headers: dict[str, str] | None = None) -> bytes:
    """Get a URL of this machine without a proxy, and follow redirects.

    Raises:
      DreamError: the answer was not 200.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, headers=headers or {}), timeout=_HTTP_TIMEOUT_S) as response:  # noqa: S310
            if response.status != _HTTP_OK:
                raise DreamError(f"GET {url} was answered {response.status}")
            body: bytes = response.read()
            return body
    except urllib.error.HTTPError as error:
        with error:
            raise DreamError(f"GET {url} was answered {error.code}") from error
    except OSError as error:
        raise DreamError(f"GET {url} was not answered: {error}") from error
