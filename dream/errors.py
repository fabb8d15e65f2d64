"""Every error that dream raises, in one tree.

A class knows two things about itself: its docstring's first sentence is its default message, and `permanent` says
whether trying again can help. The retries middleware asks nothing else.

The words of other libraries are an error's `detail`: operators read it, a picture's owner does not (`for_owner`).

A message is a clause, without a capital and a full stop: others set it after `dream: `, a file's name or a field's.
"""

from __future__ import annotations

__all__ = [
    "AcceptanceUnknown",
    "AccessDenied",
    "BrokerUnavailable",
    "BucketMissing",
    "DatabaseRefused",
    "DatabaseUnavailable",
    "DreamError",
    "DreamNotVisible",
    "HandedBack",
    "ImageCrashed",
    "ImageRejected",
    "ImageTimedOut",
    "InvalidArguments",
    "LeaseLost",
    "ObjectMissing",
    "ObjectStoreUnavailable",
    "OwnersQueryFailed",
    "ResultsUnavailable",
    "RunContinues",
    "SettingsError",
    "StackError",
    "TablesMissing",
    "TaskRevoked",
    "TaskTimedOut",
    "TokenRejected",
    "TooManyPending",
    "WorkerStopping",
]


class DreamError(Exception):
    """Something in dream went wrong."""

    permanent = False
    #: Whether an owner may read the message: it names nothing internal. Otherwise an owner reads the class's sentence.
    is_for_owner = True

    def __init__(self, message: str | None = None, *, detail: str | None = None) -> None:
        self._message = message or self._own_sentence()
        super().__init__(f"{self._message}: {detail}" if detail else self._message)

    @property
    def for_owner(self) -> str:
        """The sentence that the owner of a picture may read."""
        return self._message if self.is_for_owner else self._own_sentence()

    def _own_sentence(self) -> str:
        return _clause(next(kind.__doc__ for kind in type(self).__mro__ if kind.__doc__))


def _clause(sentences: str) -> str:
    first = sentences.partition(". ")[0].removesuffix(".")
    return first[:1].lower() + first[1:]


class SettingsError(DreamError):
    """A setting has a value it may not have."""

    permanent = True
    is_for_owner = False


class StackError(DreamError):
    """A part of the embedded stack could not be started."""

    permanent = True


class InvalidArguments(DreamError, ValueError):
    """The call's arguments are wrong; nothing was stored."""

    permanent = True


class ImageRejected(DreamError, ValueError):
    """The file is not a picture that can be processed. The message is for its owner: no path, no stack."""

    permanent = True


class ImageTimedOut(DreamError):
    """The picture took longer than its time limit to process."""


class ImageCrashed(DreamError):
    """The process that worked on the picture died."""


class ObjectStoreUnavailable(DreamError):
    """The object store did not answer, or answered with a fault of its own."""


class ObjectMissing(DreamError):
    """The object is not in the store."""

    permanent = True
    is_for_owner = False


class BucketMissing(DreamError):
    """The bucket does not exist."""

    permanent = True


class AccessDenied(DreamError):
    """The object store refused our credentials."""

    permanent = True


class DatabaseUnavailable(DreamError):
    """The database did not answer."""

    is_for_owner = False


class DatabaseRefused(DatabaseUnavailable):
    """The database answered with an error: a table or a permission is missing, for example."""


class TablesMissing(DatabaseRefused):
    """The database's tables are missing or older than this release: run `dream migrate`."""


class OwnersQueryFailed(DatabaseRefused):
    """The query in DREAM_OWNERS_SQL failed, or gave something else than `user_id, username`."""


class AcceptanceUnknown(DatabaseUnavailable):
    """The database has perhaps written what was to be accepted, and does not say so."""


class BrokerUnavailable(DreamError):
    """The broker did not answer."""

    is_for_owner = False


class ResultsUnavailable(DreamError):
    """The Redis that keeps results did not answer."""

    is_for_owner = False


class DreamNotVisible(DreamError):
    """The dream's row is not there (yet): its transaction may not have been committed."""


class TokenRejected(DreamError):
    """The token is missing, expired, revoked, malformed, or its user does not own the dream."""

    permanent = True


class TooManyPending(DreamError):
    """Too many pictures wait for processing; nothing was stored, try again later."""


class LeaseLost(DreamError):
    """Another run holds the task now; this one may not write any more."""


class TaskTimedOut(DreamError):
    """The run reached its time limit."""


class HandedBack(DreamError):
    """The run stops here and its task goes on in another, which counts neither as a failure nor as a death."""


class TaskRevoked(DreamError):
    """The task was revoked while it ran."""

    permanent = True


class WorkerStopping(HandedBack):
    """The worker is shutting down."""


class RunContinues(HandedBack):
    """The run reached its time limit with work done; the rest is for the next one."""
