"""Commands for pictures: upload, images, delete."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dream.cli.command import AsJson, Command, DreamId, WrongUsage, as_usage, confirm, load_quietly, opened
from dream.errors import InvalidArguments, Reason
from dream.messages.arguments import MAX_ID, ImageFile, UrlToDelete, check_positions, named, refusal_of
from dream.messages.states import ImageState
from dream.work.messages import HIGHEST_PRIORITY
from dream.work.process import EXIT_FAILURE, EXIT_INTERRUPTED
from dream.work.text import counted

if TYPE_CHECKING:
    from dream.cli.showing import Seen
    from dream.db import DreamImage
    from dream.producer import Producer
    from dream.settings import Settings

__all__ = ["register"]

Wait = Annotated[bool, typer.Option("--wait", help="Wait for the end; exit 1 if a picture failed.")]
Timeout = Annotated[
    float | None, typer.Option(min=0, metavar="S", help="Wait at most S seconds; the work itself goes on.")
]
#: Seconds after which a waiting caller reads that no worker has begun.
_SILENCE_S = 5.0


def register(app: typer.Typer) -> None:
    """Add these commands to the app."""
    for command in (upload, images, delete):
        app.command(cls=Command)(command)


def upload(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Files with pictures.", show_default=False)],
    dream_id: DreamId,
    position: Annotated[
        list[int] | None,
        typer.Option(metavar="N", help="Offset in the dream's text; repeat it for each file; 0 by default."),
    ] = None,
    priority: Annotated[
        int | None, typer.Option(min=0, max=HIGHEST_PRIORITY, metavar="N", help="0 (bulk) to 9 (first); 5 by default.")
    ] = None,
    wait: Wait = False,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Upload pictures. Print the task's ID, and with --wait the pictures as `dream images` lists them."""
    _check_timeout(wait, timeout)
    with as_usage():
        check_positions(position or None, len(files))
    settings = load_quietly()
    sent = [_read(path, settings.max_upload_bytes) for path in files]
    with opened(settings) as producer:
        task_id = producer.upload_images(dream_id, sent, position or None, priority=priority)
        if not as_json:
            typer.echo(task_id)
        seen: Seen | None = None
        if wait:
            from dream.cli.showing import watch_upload

            with _interruptible(dream_id):
                seen = _follow(watch_upload(producer.database, task_id, timeout), timeout)
        if as_json:
            pictures = {} if seen is None else {"images": _infos(dream_id, seen.images)}
            typer.echo(json.dumps({"task_id": task_id, **pictures}, indent=2))
        elif seen is not None:
            _show(seen.images)
        _exit(seen is None or all(image.state is ImageState.COMPLETED for image in seen.images))


def images(
    dream_id: DreamId,
    as_json: AsJson = False,
) -> None:
    """List the pictures of a dream. The columns: ID, state, position, file, pixels, bytes, URL or reason."""
    from dream.db.images import list_images

    with opened(load_quietly()) as producer, producer.database.read() as session:
        found = list_images(session, dream_id)
    if as_json:
        typer.echo(json.dumps(_infos(dream_id, found), indent=2))
        return
    if not found:
        typer.echo(f"dream {dream_id} has no pictures", err=True)
        return
    _show(found)


def delete(
    dream_id: DreamId,
    image_ids: Annotated[
        list[int] | None,
        typer.Argument(metavar="ID", min=1, max=MAX_ID, help="IDs of the pictures; without any, all pictures."),
    ] = None,
    wait: Wait = False,
    timeout: Timeout = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete all pictures without a question.")] = False,
) -> None:
    """Delete pictures of a dream. Print the task's ID, and with --wait the ID, state and file of each picture."""
    _check_timeout(wait, timeout)
    settings = load_quietly()
    with opened(settings) as producer:
        found = _named(producer, dream_id, image_ids) if image_ids else _all_of(producer, dream_id, is_agreed=yes)
        if not found:
            typer.echo(f"dream {dream_id} has no pictures", err=True)
            return
        named: list[UrlToDelete] = [
            {"id": image.id, "url": image.url} if image.url else {"id": image.id} for image in found
        ]
        task_id = producer.delete_images(dream_id, named, _username(producer, settings, dream_id))
        typer.echo(task_id)
        if wait:
            from dream.cli.showing import watch_deletion

            with _interruptible(dream_id):
                rows = watch_deletion(producer.database, task_id, [image.id for image in found], timeout)
                seen = _follow(rows, timeout)
            _show_deleted(seen)
            if seen.failure:
                typer.echo(f"dream: {seen.failure}", err=True)
            _exit(all(image.state is ImageState.DELETED for image in seen.images))


# --- upload


def _read(path: Path, max_bytes: int) -> ImageFile:
    """Read a file for the producer.

    Raises:
      InvalidArguments: the file cannot be read, is empty or is too large.
    """
    name = os.fsencode(path.name).decode("utf-8", "replace")
    try:
        if path.is_dir():
            raise InvalidArguments(f"{path} is a folder; name the files in it; nothing was sent")
        _check_size(path, path.stat().st_size, max_bytes)
        with path.open("rb") as file:
            # The size of a pipe or a device is only known now.
            data = file.read(max_bytes + 1)
            _check_size(path, len(data), max_bytes)
        if not data:
            raise InvalidArguments(f"{path} is empty; nothing was sent")
        return {"name": name, "data": data}
    except OSError as error:
        raise InvalidArguments(f"{path} cannot be read: {error.strerror}; nothing was sent") from error


def _check_size(path: Path, size_bytes: int, max_bytes: int) -> None:
    refusal = refusal_of("", size_bytes, max_bytes)
    if refusal is not None and refusal.code == Reason.FILE_TOO_LARGE.code:
        raise InvalidArguments(f"{named(refusal, path)} (DREAM_MAX_UPLOAD_BYTES); nothing was sent")


# --- images


def _infos(dream_id: int, images: Iterable[DreamImage]) -> list[dict[str, object]]:
    """The pictures as the gateway lists them, each with its `dream_id`."""
    from dream.messages.pictures import image_info

    return [{"dream_id": dream_id, **image_info(image)} for image in images]


def _show(images: Iterable[DreamImage]) -> None:
    from dream.cli.showing import clean, pixels, reason_or_url, show_rows

    show_rows(
        ("id", "state", "position", "file", "pixels", "bytes", "URL or reason"),
        [
            (
                image.id,
                image.state,
                image.position,
                clean(image.filename),
                pixels(image),
                image.size_bytes or "-",
                reason_or_url(image),
            )
            for image in images
        ],
    )


# --- delete


def _named(producer: Producer, dream_id: int, image_ids: Sequence[int]) -> list[DreamImage]:
    """The pictures with these IDs.

    Raises:
      InvalidArguments: the dream has no picture with one of the IDs.
    """
    from dream.db.images import by_id

    with producer.database.read() as session:
        rows = {image_id: by_id(session, dream_id, image_id) for image_id in image_ids}
    found = [row for row in rows.values() if row is not None and row.state is not ImageState.DELETED]
    if unknown := sorted(rows.keys() - {row.id for row in found}):
        raise InvalidArguments(f"dream {dream_id} has no picture {', '.join(map(str, unknown))}; nothing was deleted")
    return found


def _all_of(producer: Producer, dream_id: int, *, is_agreed: bool) -> Sequence[DreamImage]:
    from dream.db.images import list_images

    with producer.database.read() as session:
        found = list_images(session, dream_id)
    if found and not is_agreed:
        confirm(
            f"Delete {counted(len(found), 'picture')}, all of dream {dream_id}?",
            "name the IDs of the pictures, or use --yes to delete all; nothing was deleted",
        )
    return found


def _username(producer: Producer, settings: Settings, dream_id: int) -> str:
    from dream.db.dreams import owner_of

    with producer.database.read() as session:
        owner = owner_of(session, dream_id, settings.owners_sql)
    return owner.username if owner else ""


def _show_deleted(seen: Seen) -> None:
    from dream.cli.showing import clean, show_rows

    show_rows(("id", "state", "file"), [(image.id, image.state, clean(image.filename)) for image in seen.images])


# --- waiting


def _check_timeout(wait: bool, timeout_s: float | None) -> None:
    """Raise WrongUsage if the time limit has no effect."""
    if timeout_s is not None and not wait:
        raise WrongUsage("--timeout works only with --wait; nothing was done")


def _follow(rows: Iterator[Seen], timeout_s: float | None) -> Seen:
    """Show the progress until the work has ended or the time is over; return the last rows."""
    from dream.cli.showing import progress

    begun, is_told = time.monotonic(), False
    with progress() as display:
        for seen in rows:
            display.show(seen)
            if seen.is_untouched and not is_told and time.monotonic() - begun >= _SILENCE_S:
                is_told = True
                display.say(
                    f"dream: no worker has begun after {_SILENCE_S:g} s; the task is accepted, and a worker will do "
                    "it later: `dream doctor` shows what is missing"
                )
    if not seen.is_ended:
        typer.echo(f"dream: not finished within {timeout_s:g} s; the work goes on", err=True)
    return seen


@contextmanager
def _interruptible(dream_id: int) -> Iterator[None]:
    """Let Ctrl-C end the waiting, not the work, and print so."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(
            f"\ndream: no longer waiting; the work goes on: `dream images --dream-id {dream_id}` shows it", err=True
        )
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _exit(is_good: bool) -> None:
    if not is_good:
        raise typer.Exit(EXIT_FAILURE)
