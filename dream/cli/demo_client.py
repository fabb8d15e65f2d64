"""The demo's pictures: drawn, sent, watched, listed and downloaded, each step told as it happens."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from dream.cli.access import load_quietly, opened
from dream.cli.showing import clean, pixels, reason_or_url
from dream.cli.tokens import DEFAULT_TTL_S, sign
from dream.cli.waiting import Seen, watch_upload
from dream.errors import DreamError
from dream.messages import ImageFile, ImageState
from dream.stack.samples import draw

if TYPE_CHECKING:
    from dream.db import DreamImage
    from dream.producer import Producer

__all__ = ["run"]

DREAM_ID = 1
USER_ID = 1
_TIMEOUT_S = 120.0
_HTTP_TIMEOUT_S = 30.0
_HTTP_OK = 200


def run(folder: Path, url: str, check_stack: Callable[[], None]) -> str:
    """Send the sample pictures through the stack that the environment points at; returns the address that shows them.

    Parameters:
      folder: where the samples are drawn.
      url: the gateway's.
      check_stack: raises where the stack is gone.

    Raises:
      DreamError: what did not work.
    """
    settings = load_quietly()
    typer.echo(f"drawing sample pictures into {folder}")
    files = [ImageFile(name=path.name, data=path.read_bytes()) for path in draw(folder)]
    token = sign(settings, USER_ID, DEFAULT_TTL_S)
    with opened(settings) as producer:
        producer.set_owner(DREAM_ID, USER_ID, f"user{USER_ID}")
        for file in files:
            typer.echo(f"  sent  {file['name']}  {len(file['data']):,} bytes")
        images = _send(producer, files, check_stack)
    _check_completed(images)
    _check_listed(images, url, token)
    _check_downloads(images)
    typer.echo(f"all {len(images)} pictures are completed, listed and downloadable")
    return f"{url}/#dream={DREAM_ID}&token={token}"


def _send(producer: Producer, files: list[ImageFile], check_stack: Callable[[], None]) -> Sequence[DreamImage]:
    """Upload the files and print each result as it arrives."""
    task_id = producer.upload_images(DREAM_ID, files)
    told: set[int] = set()
    seen = Seen([], is_ended=False)
    for seen in watch_upload(producer.database, task_id, _TIMEOUT_S):
        for image in seen.images:
            if image.id not in told and image.state in (ImageState.COMPLETED, ImageState.FAILED):
                told.add(image.id)
                _tell(image)
        check_stack()
    if not seen.is_ended:
        raise DreamError(f"the pictures were not done within {_TIMEOUT_S:g} s")
    return seen.images


def _tell(image: DreamImage) -> None:
    size = f"{image.size_bytes:,} bytes" if image.size_bytes else "-"
    name = clean(image.filename)
    typer.echo(f"  {image.state}  {name}  {pixels(image)} px  {size}")
    typer.echo(reason_or_url(image))  # a URL fits into 80 columns where it begins a line


def _check_completed(images: Sequence[DreamImage]) -> None:
    failed = [image for image in images if image.state is not ImageState.COMPLETED]
    if failed:
        raise DreamError("; ".join(f"{image.filename} is {image.state}: {image.error}" for image in failed))


def _check_listed(images: Sequence[DreamImage], url: str, token: str) -> None:
    body = _get(f"{url}/api/dreams/{DREAM_ID}/images", {"Authorization": f"Bearer {token}"})
    listed: dict[int, Any] = {entry["id"]: entry for entry in json.loads(body)}
    for image in images:
        entry = listed.get(image.id)
        if entry is None or (entry["state"], entry["url"]) != (ImageState.COMPLETED, image.url):
            raise DreamError(f"{image.filename} is not in the gateway's list as it should be: {entry}")


def _check_downloads(images: Sequence[DreamImage]) -> None:
    for image in images:
        size_bytes = len(_get(image.url or ""))
        if size_bytes != image.size_bytes:
            raise DreamError(f"{image.url} gave {size_bytes} bytes, not {image.size_bytes}")


def _get(url: str, headers: dict[str, str] | None = None) -> bytes:
    """The body at a URL of this machine's, redirects followed, past any proxy.

    Raises:
      DreamError: there was no answer 200.
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
