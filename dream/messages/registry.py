"""The registry of dream's own tasks: names, queue, functions, and the time of day of the 03:00 clean-up.

Adding a task touches two files: this one, and the module of the task's flow. The producer, the actors, the run in the
caller's process, the scheduler and the Celery façade read the registry. Functions are named as `module:function` and
imported where they are called, so that the registry stays light and below every layer that it names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import time
from functools import cached_property
from importlib import import_module
from inspect import Parameter, Signature
from typing import Any

from dream.messages.events import UpdateStatus
from dream.work.messages import DEFAULT_QUEUE

__all__ = [
    "ALIASES",
    "CLEANUP_TOKENS",
    "DELETE_IMAGES",
    "IMAGES_QUEUE",
    "MAKE_VARIANT",
    "OWN_TASKS",
    "PLAIN_ORDER",
    "PROCESS_IMAGES",
    "QUEUES",
    "REGISTRY",
    "REMAKE_IMAGE",
    "TaskKind",
    "kind_of",
    "load",
    "queue_of",
]

IMAGES_QUEUE = "dream_image_processing"
QUEUES = (DEFAULT_QUEUE, IMAGES_QUEUE)

PROCESS_IMAGES = "dream.celery.tasks.image_tasks.process_and_upload_images"
REMAKE_IMAGE = "dream.pictures.remake_image"
DELETE_IMAGES = "dream.celery.tasks.image_tasks.delete_dream_images"
CLEANUP_TOKENS = "dream.celery.tasks.token_tasks.cleanup_expired_tokens"
MAKE_VARIANT = "dream.pictures.make_variant"

#: The order of a task whose row needs nothing but its arguments.
PLAIN_ORDER = "dream.producer.orders:plain"


@dataclass(frozen=True, kw_only=True)
class TaskKind:
    """One of dream's own tasks.

    Parameters:
      name: its full name, as rows and messages carry it.
      older_names: names that are still in queues and in callers.
      queue: where it runs, without prefix.
      parameters: the documented names of its arguments, in order; the first is the dream's id if a dream hears of it.
      order: `(producer, name, task_id, delivery, *arguments)` returns the `Order` that a producer accepts.
      flow: `(services, run, *arguments)` does the work in a worker, and returns the result.
      in_progress: the status of its events before the last one; None if the task has no dream.
      last_event: `(session, row)` returns the last event of its dream.
      entry: its name in the timetable, if it runs every day.
      at: when it runs every day, in `DREAM_TIMEZONE`.
      priority: the priority of its messages if their sender gives none; None means the normal one.
      has_result: whether a caller may wait for its result, which Redis then keeps.
      doc: the text that `help()` shows.
    """

    name: str
    older_names: tuple[str, ...] = ()
    queue: str = DEFAULT_QUEUE
    parameters: tuple[str, ...] = ()
    order: str = PLAIN_ORDER
    flow: str
    in_progress: UpdateStatus | None = None
    last_event: str | None = None
    entry: str | None = None
    at: time | None = None
    priority: int | None = None
    has_result: bool = True
    doc: str = ""

    @cached_property
    def signature(self) -> Signature:
        """The parameters of a call, for callers and for actors."""
        return Signature([Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in self.parameters])

    def bind(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The arguments of a call in their order.

        Raises:
          TypeError: the call is wrong.
        """
        try:
            return self.signature.bind(*args, **kwargs).args
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}") from None

    def dream_of(self, args: Sequence[Any]) -> Any:
        """The id of the dream that gets the events of a run with these arguments; None if there is none."""
        return args[0] if self.in_progress is not None and args else None


REGISTRY = (
    TaskKind(
        name=PROCESS_IMAGES,
        older_names=("dream.celery.tasks.image_tasks.celery_upload_images",),
        queue=IMAGES_QUEUE,
        parameters=("dream_id", "encoded_files", "positions"),
        order="dream.producer.orders:upload",
        flow="dream.actors.upload:upload",
        in_progress=UpdateStatus.PROCESSING,
        last_event="dream.runs.outcomes:upload_event",
        doc="""Process and store pictures.

        Parameters:
          dream_id: the dream they belong to.
          encoded_files: each `{"name": str, "data": base64 str}`.
          positions: offset of each in the dream's text.

        Returns:
          The URLs in input order, "" where a picture of several could not be processed.

        Raises:
          InvalidArguments: the arguments are wrong.
          ImageRejected: no picture could be processed.
        """,
    ),
    TaskKind(
        name=DELETE_IMAGES,
        older_names=("dream.celery.tasks.image_tasks.celery_delete_images",),
        queue=IMAGES_QUEUE,
        parameters=("dream_id", "image_urls", "username"),
        order="dream.producer.orders:deletion",
        flow="dream.actors.deletion:delete",
        in_progress=UpdateStatus.DELETE_PROCESSING,
        last_event="dream.runs.outcomes:deletion_event",
        doc="""Delete pictures of a dream.

        Parameters:
          dream_id: the dream they belong to.
          image_urls: each `{"id": int, "url": str}`.
          username: the dream's owner.

        Returns:
          For each whether it is gone.
        """,
    ),
    TaskKind(
        name=MAKE_VARIANT,
        queue=IMAGES_QUEUE,
        parameters=("image_id", "name", "recipe"),
        flow="dream.actors.variant:make_variant",
        doc="""Make a version of a stored picture that a visitor asked for.

        Parameters:
          image_id: the picture.
          name: the version's name, as in its row: `card`, `card.avif`, `full.avif`.
          recipe: its definition and focal point, as in `640x480:cover:avif@0.500000,0.250000`.

        Returns:
          Its URL; None if the picture is gone, or if this version would be no gain.
        """,
    ),
    TaskKind(
        name=REMAKE_IMAGE,
        queue=IMAGES_QUEUE,
        parameters=("image_id", "begun_at", "variants"),
        flow="dream.actors.remake:remake",
        priority=0,
        has_result=False,
        doc="""Make a stored picture anew (`dream reprocess`).

        Parameters:
          image_id: the picture.
          begun_at: the beginning of the pass, as ISO text with a time zone: a picture whose objects are newer is done.
          variants: the names of the variants to make; None means the picture and all its variants.

        Returns:
          Whether it was made anew.
        """,
    ),
    TaskKind(
        name=CLEANUP_TOKENS,
        flow="dream.actors.tokens:clean_up",
        entry="cleanup-expired-tokens",
        at=time(3, 0),
        doc="Delete expired revocations of tokens; returns how many.",
    ),
)

#: Older names, and what they are now.
ALIASES = {older: kind.name for kind in REGISTRY for older in kind.older_names}

_BY_NAME = {name: kind for kind in REGISTRY for name in (kind.name, *kind.older_names)}

#: Every name of dream's own tasks.
OWN_TASKS = frozenset(_BY_NAME)


def kind_of(name: str) -> TaskKind | None:
    """The kind of the task that has this name, today's or an older one; None if it is not dream's own."""
    return _BY_NAME.get(name)


def queue_of(name: str) -> str:
    """The queue, without prefix, on which one of dream's own tasks runs."""
    kind = kind_of(name)
    return kind.queue if kind is not None else IMAGES_QUEUE


def load(reference: str) -> Callable[..., Any]:
    """The function that a `module:function` of the registry names."""
    module, _, function = reference.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), function)
    return found
