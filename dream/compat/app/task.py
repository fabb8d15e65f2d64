"""A task: a function under a name. A call runs it in this thread; `delay` and `apply_async` send it to a worker."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from dream.compat import current
from dream.compat.app import retrying
from dream.compat.app.context import Context
from dream.compat.app.publishing import publish
from dream.compat.app.trace import run_in_place
from dream.compat.canvas import Signature
from dream.compat.exceptions import MaxRetriesExceededError, OperationalError, Unsupported
from dream.compat.refused import TASK, refuse, refuse_attribute
from dream.errors import InvalidArguments

if TYPE_CHECKING:
    from dream.compat.app.backend import Backend
    from dream.compat.app.base import Celery
    from dream.compat.result import AsyncResult, EagerResult

__all__ = ["Task"]


class Task:
    """The base class of tasks.

    Define one with `@app.task` or `@shared_task`. Their options are attributes here, with Celery's meaning, and
    so are those of a subclass (`base=` or `app.register_task`).
    """

    MaxRetriesExceededError = MaxRetriesExceededError
    OperationalError = OperationalError
    Request: ClassVar[type[Context]] = Context

    #: Full name, as messages carry it.
    name: str = ""
    app: Celery
    abstract = True
    #: Whether a call's arguments are checked before it is sent.
    typing = True
    ignore_result: bool | None = None
    track_started: bool | None = None
    store_errors_even_if_ignored: bool | None = None
    queue: str | None = None
    routing_key: str | None = None
    priority: int | None = None
    expires: Any = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    throws: tuple[type[BaseException], ...] = ()
    serializer = "json"
    rate_limit = None
    acks_late = True
    pydantic = False
    # Retries: the documented policy, or Celery's numbers for a task that sets any of them (`retrying`).
    max_retries: Any = retrying.PolicyNumber("max_retries", 3)
    default_retry_delay: Any = retrying.PolicyNumber("retry_first_s", 180)
    autoretry_for: tuple[type[BaseException], ...] = ()
    dont_autoretry_for: tuple[type[BaseException], ...] = ()
    retry_backoff: float | bool = False
    retry_backoff_max: int = 600
    retry_jitter = True
    retry_kwargs: Mapping[str, Any] = {}

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """The code of the task."""
        raise NotImplementedError(f"{self.name}: a task needs a run()")

    # --- in this thread

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it. A base class may override this; workers call it, too."""
        request = current.request_of(self)
        if request is None or not request.is_calling:
            return self._call_directly(args, kwargs)
        request.is_calling = False  # a call of the task by its own code is a direct call
        try:
            return self.run(*args, **kwargs)
        finally:
            request.is_calling = True

    def _call_directly(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        current.enter(self, Context(args=args, kwargs=kwargs, task=self.name))
        try:
            return self.run(*args, **kwargs)
        finally:
            current.leave()

    def apply(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> EagerResult:
        """Run it in this thread as a worker would, with its retries and links, and without waits between them.

        Parameters:
          throw: raise the task's error; by default `task_eager_propagates`.
          **options: as for `apply_async`.
        """
        return run_in_place(self, args, kwargs, **options)

    # --- sent

    def delay(self, *args: Any, **kwargs: Any) -> AsyncResult | EagerResult:
        """Send it, without options.

        Raises:
          TypeError: the function does not take these arguments.
          EncodeError: JSON cannot carry an argument.
          OperationalError: the broker is away.
        """
        return self.apply_async(args, kwargs)

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        **options: Any,
    ) -> AsyncResult | EagerResult:
        """Send it; with `task_always_eager` run it in this thread.

        Parameters:
          args, kwargs: its arguments.
          task_id: the id to use; a new one by default.
          **options: see `dream.compat.app.publishing`.

        Raises:
          TypeError: the function does not take these arguments.
          InvalidArguments: an option has a wrong value, or is refused.
          EncodeError: JSON cannot carry an argument.
          OperationalError: the broker is away.
        """
        self._check_arguments(args, kwargs)
        if self.app.conf.task_always_eager:
            return self.apply(args, kwargs, task_id=task_id, **options)
        return self._send(args, kwargs, task_id, options)

    def _send(self, args: Any, kwargs: Any, task_id: str | None, options: dict[str, Any]) -> AsyncResult:
        if self.pydantic:
            args, kwargs = _plain(args, kwargs)
        return publish(self.app, self.name, args, kwargs, {**options, "task_id": task_id}, self)

    def delay_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """Django: send it once the transaction is committed; without one, at once."""
        self.apply_async_on_commit(args, kwargs)

    def apply_async_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """Django: as `delay_on_commit`, with the options of `apply_async`."""
        from functools import partial

        try:
            from django.db import transaction
        except ModuleNotFoundError:
            raise Unsupported(f"{self.name}: *_on_commit is Django's, which is not installed: use delay()") from None
        transaction.on_commit(partial(self.apply_async, *args, **kwargs))

    def _check_arguments(self, args: Any, kwargs: Any) -> None:
        if args is not None and (not isinstance(args, Sequence) or isinstance(args, str | bytes)):
            raise TypeError(f"{self.name}: args must be a list or a tuple, not {type(args).__name__}")
        if kwargs is not None and not isinstance(kwargs, Mapping):
            raise TypeError(f"{self.name}: kwargs must be a dict, not {type(kwargs).__name__}")
        if self.typing:
            try:
                self._signature_of_run.bind(*(args or ()), **(kwargs or {}))
            except TypeError as error:
                raise TypeError(f"{self.name}: {error}") from None

    @cached_property
    def _signature_of_run(self) -> inspect.Signature:  # a name that no base class of callers uses
        return inspect.signature(self.run)

    # --- in a run

    @property
    def request(self) -> Context:
        """The request of this thread's run; outside of a run, an empty one with `called_directly`."""
        return current.request_of(self) or Context()

    def retry(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: Any = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Any:
        """See `dream.compat.app.retrying.retry`."""
        return retrying.retry(self, args, kwargs, exc, throw, eta, countdown, max_retries, options)

    def update_state(
        self, task_id: str | None = None, state: str | None = None, meta: Any = None, **_request_fields: Any
    ) -> None:
        """Store a state of the task's own, with its meta, which `AsyncResult.info` shows."""
        from dream.work.results import meta_of

        task_id = task_id or self.request.id
        if task_id is None:
            raise InvalidArguments(f"{self.name}: update_state outside of a run needs a task_id")
        self.app.servers.results.put(meta_of(task_id, state or "PENDING", meta))

    def replace(self, _sig: Any) -> Any:
        refuse("replace", self.name)

    add_to_chord = replace

    @property
    def backend(self) -> Backend:
        """The backend of its app."""
        return self.app.backend

    def push_request(self, *attributes: Any, **named: Any) -> None:
        """Begin a request with these attributes, for tests; `pop_request` ends it.

        Parameters:
          *attributes: a mapping of them.
        """
        current.enter(self, Context(**dict(*attributes, **named)))

    def pop_request(self) -> None:
        """End the request that `push_request` began."""
        current.leave()

    # --- for subclasses

    @classmethod
    def on_bound(cls, app: Celery) -> None:
        """Called when a task of the class is added to an app."""

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Called before a run."""

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Called after a run that has returned."""

    def on_retry(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Called after a run that a retry follows."""

    def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Called after the final failure."""

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Called last, whatever the outcome."""

    # --- signatures

    def signature(self, args: Any = None, *starargs: Any, **starkwargs: Any) -> Signature:
        """The task with arguments, to be sent later: `signature((1, 2), {"z": 3}, countdown=5)`."""
        starkwargs.setdefault("app", self.app)
        return Signature(self, args, *starargs, **starkwargs)

    subtask = signature

    def s(self, *args: Any, **kwargs: Any) -> Signature:
        """The task with these arguments; those of the later call come before them."""
        return self.signature(args, kwargs)

    def si(self, *args: Any, **kwargs: Any) -> Signature:
        """The task with these arguments and no others."""
        return self.signature(args, kwargs, immutable=True)

    def chunks(self, *_: Any, **__: Any) -> Any:
        refuse("chunks", self.name)

    def map(self, *_: Any, **__: Any) -> Any:
        refuse("map", self.name)

    def starmap(self, *_: Any, **__: Any) -> Any:
        refuse("starmap", self.name)

    def AsyncResult(self, task_id: str, **_: Any) -> AsyncResult:  # noqa: N802 (Celery's name)
        """The result of a run."""
        return self.app.AsyncResult(task_id)

    @classmethod
    def has_own_option(cls, name: str) -> bool:
        """Whether a subclass has added an attribute of that name, which takes an option of `apply_async`."""
        return hasattr(cls, name) and not hasattr(Task, name)

    def sets_retry_numbers(self) -> bool:
        """Whether the task or its class sets any of Celery's numbers of retries."""
        kinds = (vars(kind) for kind in type(self).__mro__ if issubclass(kind, Task) and kind is not Task)
        return any(name in each for each in (vars(self), *kinds) for name in retrying.NUMBERS)

    def _get_app(self) -> Celery:
        """Its app, under the name that libraries call."""
        return self.app

    def _get_current_object(self) -> Task:
        """Itself: Celery's tasks are proxies."""
        return self

    def __getattr__(self, name: str) -> Any:
        return refuse_attribute(self.name or type(self).__name__, TASK, name, self)

    def __repr__(self) -> str:
        return f"<@task: {self.name}>"

    def __reduce__(self) -> Any:
        return (_registered, (self.name,))


def _registered(name: str) -> Task:
    found: Task = current.get_current_app().tasks[name]
    return found


def _plain(args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None) -> tuple[Any, Any]:
    """The arguments as a message carries them: models of Pydantic as plain values."""
    from pydantic import BaseModel

    def plain(value: Any) -> Any:
        return value.model_dump(mode="json") if isinstance(value, BaseModel) else value

    return [plain(each) for each in args or ()], {name: plain(each) for name, each in (kwargs or {}).items()}
