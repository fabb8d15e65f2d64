"""Store results of parked tasks: without one, a producer would wait until its time-out.

parked ─► FAILURE, for the task and for all tasks that would follow it ─► replayed ─► no result, as before
       └─► REVOKED, if it was revoked
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dream.bridge.protocol import Refused, body_of, text_of
from dream.compat.exceptions import TaskParked, TaskRevokedError
from dream.compat.failures import write_error
from dream.compat.worker.unwanted import revoked_among
from dream.work import serialization
from dream.work.results import FAILURE, KEY_PREFIX, READY_STATES, REVOKED, ResultStore, meta_of

if TYPE_CHECKING:
    from dream.bridge.parked import Parked
    from dream.compat.app import Celery
    from dream.settings import Settings

__all__ = ["ParkedResults", "waited_for"]

#: The deepest nesting of signatures that is followed; Celery's own code cannot follow deeper ones.
_DEEPEST = 50


class ParkedResults:
    """See the module.

    Parameters:
      settings: where results are kept.
      app: knows which of its tasks ignore their results.
    """

    def __init__(self, settings: Settings, app: Celery) -> None:
        self._settings = settings
        self._app = app
        self._store = ResultStore(settings)

    def end(self, parked: Sequence[Parked]) -> None:
        """Store a FAILURE for the tasks of these messages; a stored outcome of another kind stays.

        Raises:
          ResultsUnavailable
        """
        waited = [(each, waited_for(each.taken.raw)) for each in parked if self._is_kept(each.taken.raw)]
        revoked = revoked_among(self._settings, [ids[0] for _, ids in waited if ids])
        for each, ids in waited:
            for task_id in ids:
                if not self._has_ended(task_id):
                    self._put(each, task_id, ids[0], is_revoked=ids[0] in revoked)

    def _put(self, parked: Parked, task_id: str, first: str, *, is_revoked: bool) -> None:
        if is_revoked:
            self._store.put(meta_of(task_id, REVOKED, write_error(TaskRevokedError("revoked"))))
            return
        which = "the task was" if task_id == first else f"the task {first}, which comes before it, was"
        error = TaskParked(
            f"{which} not handed over by the bridge: {parked.reason}. Its message is kept: when that is mended, "
            f"`dream bridge replay {parked.id}` hands it over"
        )
        self._store.put(meta_of(task_id, FAILURE, write_error(error)))

    def forget(self, raws: Iterable[Mapping[str, Any] | bytes]) -> None:
        """Remove the FAILURE of tasks that are handed over now, unless they have another result by now.

        Raises:
          ResultsUnavailable
        """
        for raw in raws:
            for task_id in waited_for(raw):
                self._forget(KEY_PREFIX + task_id)

    def _forget(self, key: str) -> None:
        def forget(pipe: Any) -> None:
            is_ours = _is_parked(_read(pipe.get(key)))
            pipe.multi()
            if is_ours:
                pipe.delete(key)

        self._store.client.transaction(forget, key)

    def close(self) -> None:
        self._store.close()

    def _has_ended(self, task_id: str) -> bool:
        """Whether an outcome of a task is stored, other than `TaskParked`."""
        try:
            kept = self._store.get(task_id)
        except ValueError:  # the stored value is no result
            return False
        return kept is not None and kept["status"] in READY_STATES and not _is_parked(kept)

    def _is_kept(self, raw: Mapping[str, Any] | bytes) -> bool:
        """Whether the result of a message's task is stored."""
        headers = raw.get("headers") if isinstance(raw, Mapping) else None
        if not isinstance(headers, Mapping):
            return True
        if "ignore_result" in headers:
            return not headers["ignore_result"]
        name = headers.get("task")
        return not (isinstance(name, str) and self._app.ignores_result(self._app.tasks.get(name)))


def waited_for(raw: Mapping[str, Any] | bytes) -> list[str]:
    """The ids of tasks that will not run: first the message's task, then all tasks that would follow it.

    Parameters:
      raw: the message as kombu writes it into Redis; it need not be whole.
    """
    if not isinstance(raw, Mapping):
        return []
    try:
        body = body_of(raw)
    except Refused:  # pickle, for example
        body = None
    of_protocol_1 = body if isinstance(body, Mapping) else {}
    embed = body[2] if isinstance(body, list) and len(body) == 3 else of_protocol_1
    following = [_mapping(embed).get(name) for name in ("callbacks", "chain", "chord")]
    named = (_mapping(raw.get("headers")).get("id"), of_protocol_1.get("id"), _correlation_id(raw))
    first = next(filter(None, map(_id_of, named)), None)
    if first is None:
        return []
    ids = (_id_of(_mapping(each.get("options")).get("task_id")) for each in _signatures(following))
    return list(dict.fromkeys((first, *filter(None, ids))))


def _correlation_id(raw: Mapping[str, Any]) -> Any:
    """The correlation id, which Celery sets to the task's id."""
    return _mapping(raw.get("properties")).get("correlation_id")


def _signatures(value: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """All signatures of tasks in a value: parts of a chain, a chord's header and body, links."""
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, list) and depth < _DEEPEST:
            yield from _signatures(each, depth + 1)
        if not isinstance(each, Mapping) or depth >= _DEEPEST:
            continue
        kind, options = each.get("subtask_type"), _mapping(each.get("options"))
        if kind != "group":  # its id is no task's
            yield each
        parts = _mapping(each.get("kwargs")) if kind else {}
        held = [parts.get(name) for name in ("tasks", "header", "body")]
        yield from _signatures([*held, *(options.get(name) for name in ("link", "chain", "chord"))], depth + 1)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _id_of(value: Any) -> str | None:
    try:
        return text_of(value, "id")
    except ValueError:
        return None


def _is_parked(kept: Any) -> bool:
    """Whether a stored result is a `TaskParked`."""
    return bool(_mapping(_mapping(kept).get("result")).get("exc_type") == TaskParked.__name__)


def _read(text: bytes | None) -> Any:
    try:
        return None if text is None else serialization.loads(text)
    except ValueError:
        return None
