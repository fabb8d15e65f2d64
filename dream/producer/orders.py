"""Orders: tasks before they are recorded and sent, and one function for each kind of dream's own tasks to make one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast
from zlib import crc32

from dream.errors import InvalidArguments
from dream.messages.arguments import decode_inline
from dream.messages.registry import MAKE_VARIANT, REMAKE_IMAGE, TaskKind, load
from dream.messages.variants import ask_for, made_as, task_of

if TYPE_CHECKING:
    from dream.db import DreamImage
    from dream.messages.arguments import EncodedFile, ImageFile
    from dream.messages.receipts import Receipt
    from dream.producer.accepting import Producer

__all__ = [
    "AT_ONCE",
    "NOT_SENT",
    "Delivery",
    "Order",
    "crops_anew",
    "deletion",
    "order_of",
    "plain",
    "remake",
    "upload",
]


@dataclass(frozen=True)
class Delivery:
    """The way of an accepted task to a worker.

    Parameters:
      due_in_s: seconds from now before which the task does not run.
      expires_in_s: seconds from now after which the task does not start; None means no limit.
      queue: the queue of its message, without prefix; None means the task's own.
      is_sent: False if the caller runs the task itself.
      priority: 0 to 9, 9 first; None means the normal priority, 5.
      user_id: the owner of the dream, if known: all dreams of one user take turns as one.
    """

    due_in_s: float = 0
    expires_in_s: float | None = None
    queue: str | None = None
    is_sent: bool = True
    priority: int | None = None
    user_id: int | None = None


#: The owner waits for crops around a new focal point; only visitors who wait for a variant come before.
_CROPS_PRIORITY = 7

AT_ONCE = Delivery()
NOT_SENT = Delivery(is_sent=False)


@dataclass(frozen=True)
class Order:
    """A task for a producer to accept; its bytes are staged already."""

    task_id: str
    name: str
    args: list[Any]
    delivery: Delivery
    #: The pictures of an upload.
    rows: Sequence[DreamImage] = ()
    #: The answer to its request, for a repeated one.
    receipt: Receipt | None = None
    #: Whether it completes the direct upload of its task's id.
    is_direct: bool = False

    @property
    def staged(self) -> Sequence[str]:
        """The keys of bytes that go if it is not accepted. Those of a direct upload stay until that is over."""
        return [row.staging_key for row in self.rows if row.staging_key and not self.is_direct]


def crops_anew(image: DreamImage) -> list[Order]:
    """The orders of a stored picture's crops that were made around another focal point than its row has now."""
    specs = {spec.name: spec for spec in image.wanted_specs if spec.fit == "cover"}
    orders = []
    for variant in image.variants or ():
        name, _, extension = variant["name"].partition(".")
        if name not in specs:
            continue
        ask = ask_for(image, specs[name], extension or None)
        if _point(made_as(image, variant)) != _point(ask.recipe):
            task_id, args = task_of(image, ask)
            orders.append(Order(task_id, MAKE_VARIANT, args, Delivery(priority=_CROPS_PRIORITY, user_id=image.user_id)))
    return orders


def _point(recipe: str | None) -> str:
    return (recipe or "").partition("@")[2]


# --- one function for each kind of task, by `dream.messages.registry.REGISTRY`


def order_of(kind: TaskKind, producer: Producer, task_id: str, delivery: Delivery, *arguments: Any) -> Order:
    """Make the order of a call of this kind of task.

    Raises:
      InvalidArguments: the arguments are wrong; nothing was stored.
    """
    order: Order = load(kind.order)(producer, kind.name, task_id, delivery, *arguments)
    return order


def plain(_producer: Producer, name: str, task_id: str, delivery: Delivery, *arguments: Any) -> Order:
    """The order of a task whose row needs only its arguments."""
    return Order(task_id, name, list(arguments), delivery)


def remake(image_id: int, begun_at: datetime, variants: Sequence[str] | None = None) -> Order:
    """The order of a remake of a stored picture; a second one of the same pass is the same task.

    Parameters:
      begun_at: the beginning of the pass: a picture whose objects are newer is done.
      variants: names of the variants to make; None means the picture and all its variants.
    """
    names = None if variants is None else sorted(variants)
    only = f"-{crc32(','.join(names).encode()):08x}" if names is not None else ""
    task_id = f"remake-{image_id}-{begun_at.timestamp() * 1000:.0f}{only}"
    return Order(task_id, REMAKE_IMAGE, [image_id, begun_at.isoformat(), names], AT_ONCE)


def upload(
    producer: Producer, _name: str, task_id: str, delivery: Delivery, dream_id: Any, encoded_files: Any, positions: Any
) -> Order:
    """The order of an upload that was called as a task, with the bytes of its files as base64."""
    return producer.order_upload(dream_id, _decoded(encoded_files), positions, task_id=task_id, delivery=delivery)


def deletion(
    producer: Producer, _name: str, task_id: str, delivery: Delivery, dream_id: Any, image_urls: Any, username: Any
) -> Order:
    """The order of a deletion that was called as a task."""
    return producer.order_deletion(dream_id, image_urls, username, task_id=task_id, delivery=delivery)


def _decoded(encoded_files: Any) -> list[ImageFile]:
    if not isinstance(encoded_files, Sequence) or isinstance(encoded_files, str | bytes):
        raise InvalidArguments(f"encoded_files must be a list of {{name, data}}, not {type(encoded_files).__name__}")
    return [_decoded_file(file, f"encoded_files[{index}]") for index, file in enumerate(encoded_files)]


def _decoded_file(file: Any, where: str) -> ImageFile:
    if not isinstance(file, Mapping) or not {"name", "data"} <= file.keys():
        raise InvalidArguments(f'{where} must be {{"name": str, "data": base64 str}}')
    try:
        return decode_inline(cast("EncodedFile", file))
    except InvalidArguments:
        raise InvalidArguments(f"{where} ({file['name']}): data is not base64") from None
