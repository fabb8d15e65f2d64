"""Every error that dream raises, in one tree, and every reason that the owner of a picture reads.

A class knows three things about itself: the first sentence of its docstring is its default message, `permanent` says
whether trying again can help (the retries middleware asks nothing else), and `code` names the reason for programs.

The words of other libraries are an error's `detail`: operators read it, a picture's owner does not (`for_owner`).

A message is a clause, without a capital and a full stop: others set it after `dream: `, a file's name or a field's.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, Self

__all__ = [
    "AcceptanceUnknown",
    "AccessDenied",
    "BlacklistMissing",
    "BrokerUnavailable",
    "BucketMissing",
    "DatabaseRefused",
    "DatabaseUnavailable",
    "DreamError",
    "DreamNotVisible",
    "FilesRefused",
    "HandedBack",
    "ImageCrashed",
    "ImageRejected",
    "ImageTimedOut",
    "InvalidArguments",
    "KeyReused",
    "LeaseLost",
    "ObjectMissing",
    "ObjectStoreUnavailable",
    "OwnersQueryFailed",
    "QuotaExceeded",
    "Reason",
    "ResultsUnavailable",
    "RetryRefused",
    "RunContinues",
    "SettingsError",
    "StackError",
    "TablesMissing",
    "TaskRevoked",
    "TaskTimedOut",
    "TicketsUnavailable",
    "TokenKeysUnavailable",
    "TokenRejected",
    "TooManyPending",
    "TooManyVariants",
    "UploadUnknown",
    "WorkerStopping",
]


class Reason(Enum):
    """The reasons that an owner reads about a file, a picture or a task.

    Parameters:
      code: for programs; it never changes (`docs/errors.md`, "Codes"). Sentences of one kind share a code.
      sentence: for people, with its values in braces.
    """

    # Files, before they are opened.
    FILE_EMPTY = "file_empty", "the file is empty"
    FILE_NAME_INVALID = "file_name_invalid", "the file has characters in its name that are not text"
    FILE_TOO_LARGE = "file_too_large", "the file has {size}, more than the {most} allowed"
    FILE_SLIGHTLY_TOO_LARGE = "file_too_large", "the file has more than the {most} allowed"
    FILE_NOT_ARRIVED = "file_not_arrived", "the file is not in the object store; send it, and then complete the upload"
    FILE_SIZE_DIFFERS = "file_size_differs", "the file has {size} bytes, not the {announced} bytes that were announced"
    UPLOAD_GONE = "upload_gone", "the uploaded file is no longer there; upload it again"

    # Formats.
    NOT_AN_IMAGE = "not_an_image", "the file is not a picture of an accepted format ({accepted})"
    FORMAT_NOT_SUPPORTED = (
        "format_not_supported",
        "the picture is stored in an uncommon way that is not supported; save it as JPEG or PNG",
    )
    HEIC_NOT_SUPPORTED = (
        "heic_not_supported",
        "the picture is a HEIC, which is accepted only where dream-pictures[heif] is installed; save it as JPEG",
    )
    RAW_NOT_SUPPORTED = (
        "raw_not_supported",
        "the file is a raw picture of a camera (DNG, CR2, NEF, ARW or alike), which has to be developed first; "
        "export it as JPEG and upload the JPEG",
    )

    # Contents.
    IMAGE_DAMAGED = "image_damaged", "the picture is damaged or incomplete"
    TOO_MANY_PIXELS = (
        "too_many_pixels",
        "the picture has {megapixels:.4g} million pixels ({width} × {height}); "
        "at most {most:.4g} million are accepted in this format",
    )
    FAR_TOO_MANY_PIXELS = "too_many_pixels", "the picture has far more pixels than are accepted"
    ANIMATION_HAS_TOO_MANY_PIXELS = (
        "too_many_pixels",
        "the animation has {megapixels:.4g} million pixels in all its frames; at most {most:.4g} million are accepted",
    )
    SIDE_TOO_LONG = (
        "side_too_long",
        "the picture is {width} × {height} pixels; neither side may have more than {most}",
    )
    TOO_MANY_FRAMES = "too_many_frames", "the animation has more than {most} frames"
    TOO_MANY_LAYERS = "too_many_layers", "the picture is stored in more than {most} layers (progressive scans)"
    TOO_MANY_PIECES = "too_many_pieces", "the file is made of too many small pieces"
    METADATA_TOO_LARGE = (
        "metadata_too_large",
        "the picture carries a longer text or a larger colour profile than is accepted",
    )
    TOO_MUCH_MEMORY = (
        "too_much_memory",
        "the picture takes about {needed:.0f} MB of memory to be decoded, more than the {most:.0f} MB allowed; "
        "make it smaller",
    )
    PROGRESSIVE_TAKES_TOO_MUCH_MEMORY = (
        "too_much_memory",
        "the picture takes about {needed:.0f} MB of memory to be decoded, more than the {most:.0f} MB allowed; "
        "save it as a JPEG that is not progressive",
    )
    CANNOT_BE_SMALL_ENOUGH = "cannot_be_small_enough", "the picture cannot be stored in {most}"

    # Processing.
    IMAGE_OUT_OF_MEMORY = "image_out_of_memory", "the picture needs more memory than its process may have"
    IMAGE_OUT_OF_MEMORY_HERE = "image_out_of_memory", "the picture needs more memory than this process has"
    IMAGE_TIMED_OUT = "image_timed_out", "the picture took longer than {limit_s:g} s to process"
    IMAGE_CRASHED = "image_crashed", "the process that worked on the picture died ({how})"
    IMAGE_BROKE_POOL = "image_crashed", "the pool broke {times} times while it had this picture"
    IMAGE_FAILED = "image_crashed", "work on the picture failed"
    POOL_DOES_NOT_START = "image_crashed", "the processes that work on pictures do not start"
    POOL_LACKS_MEMORY = (
        "image_crashed",
        "the processes that work on pictures do not start; they may have too little memory",
    )

    # Another attempt that an owner asks for.
    IMAGE_NOT_FAILED = "image_not_failed", "the picture has not failed, so there is nothing to process again"
    UPLOAD_IN_WORK = (
        "upload_in_work",
        "the other pictures of this upload are being processed; try again when they are done",
    )

    # Tasks.
    DREAM_NOT_VISIBLE = "dream_not_visible", "the dream {dream_id} is not there (yet)"
    NOT_OF_THIS_DREAM = "not_of_this_dream", "not a picture of this dream"
    TASK_EXPIRED = "task_expired", "it expired before it could run"
    WORKER_DIED = "worker_died", "its worker died {times} times while working on it"
    INTERNAL_ERROR = "internal_error", "something went wrong on our side ({error})"

    def __init__(self, code: str, sentence: str) -> None:
        self.code = code
        self.sentence = sentence


class DreamError(Exception):
    """Something in dream went wrong."""

    permanent = False
    #: The reason, for programs; it never changes (`docs/errors.md`, "Codes").
    code = "internal_error"
    #: Whether an owner may read the message: it names nothing internal. Otherwise an owner reads the class's sentence.
    is_for_owner = True

    def __init__(self, message: str | None = None, *, detail: str | None = None, code: str | None = None) -> None:
        self._message = message or self._own_sentence()
        if code is not None:
            self.code = code
        super().__init__(f"{self._message}: {detail}" if detail else self._message)

    @classmethod
    def because(cls, reason: Reason, *, detail: str | None = None, **values: object) -> Self:
        """The error with the code and the sentence of a reason.

        Parameters:
          detail: the words of another library, for operators.
          values: those that the sentence names.
        """
        return cls(reason.sentence.format(**values), detail=detail, code=reason.code)

    @property
    def for_owner(self) -> str:
        """The sentence that the owner of a picture may read."""
        return self._message if self.is_for_owner else self._own_sentence()

    def _own_sentence(self) -> str:
        return _clause(next(kind.__doc__ for kind in type(self).__mro__ if kind.__doc__))


def _clause(sentences: str) -> str:
    first = sentences.partition("\n")[0].partition(". ")[0].removesuffix(".")
    return first[:1].lower() + first[1:]


class SettingsError(DreamError):
    """Settings have values that they may not have.

    Parameters:
      said: a sentence for each setting; the message has all of them in one line.
    """

    permanent = True
    is_for_owner = False

    def __init__(self, *said: str, detail: str | None = None, code: str | None = None) -> None:
        super().__init__("; ".join(said), detail=detail, code=code)
        self.each = said


class StackError(DreamError):
    """A part of the embedded stack could not be started."""

    permanent = True


class InvalidArguments(DreamError, ValueError):
    """The call's arguments are wrong; nothing was stored."""

    code = "invalid_arguments"
    permanent = True


class FilesRefused(InvalidArguments):
    """No file of the upload is accepted."""

    #: The files as an answer names them (`dream.messages.receipts.RefusedFile`).
    refused: Sequence[Any] = ()


class KeyReused(InvalidArguments):
    """The Idempotency-Key came with another request before; use a new key for a new upload."""

    code = "idempotency_key_reused"


class UploadUnknown(DreamError):
    """There is no such direct upload, or its time is over; begin a new one."""

    code = "upload_unknown"
    permanent = True


class ImageRejected(DreamError, ValueError):
    """The file is not a picture that can be processed. The message is for its owner: no path, no stack."""

    code = "image_rejected"
    permanent = True


class ImageTimedOut(DreamError):
    """The picture took longer than its time limit to process."""

    code = "image_timed_out"


class ImageCrashed(DreamError):
    """The process that worked on the picture died."""

    code = "image_crashed"


class ObjectStoreUnavailable(DreamError):
    """The object store did not answer, or answered with a fault of its own."""

    code = "object_store_unavailable"


class ObjectMissing(DreamError):
    """The object is not in the store."""

    code = "object_missing"
    permanent = True
    is_for_owner = False


class BucketMissing(DreamError):
    """The bucket does not exist."""

    code = "bucket_missing"
    permanent = True


class AccessDenied(DreamError):
    """The object store refused our credentials."""

    code = "access_denied"
    permanent = True


class DatabaseUnavailable(DreamError):
    """The database did not answer."""

    code = "database_unavailable"
    is_for_owner = False


class DatabaseRefused(DatabaseUnavailable):
    """The database answered with an error: a table or a permission is missing, for example."""


class TablesMissing(DatabaseRefused):
    """The database's tables are missing or older than this release: run `dream migrate`."""


class BlacklistMissing(DatabaseRefused):
    """Simplejwt's tables are not in dream's database: migrate `token_blacklist`, or unset DREAM_TOKEN_BLACKLIST."""


class OwnersQueryFailed(DatabaseRefused):
    """The query in DREAM_OWNERS_SQL failed, or gave something else than `user_id, username`."""


class AcceptanceUnknown(DatabaseUnavailable):
    """The database has perhaps written what was to be accepted, and does not say so."""


class BrokerUnavailable(DreamError):
    """The broker did not answer."""

    code = "broker_unavailable"
    is_for_owner = False


class ResultsUnavailable(DreamError):
    """The Redis that keeps results did not answer."""

    code = "results_unavailable"
    is_for_owner = False


class DreamNotVisible(DreamError):
    """The dream's row is not there (yet): its transaction may not have been committed."""

    code = "dream_not_visible"


class RetryRefused(DreamError):
    """The picture cannot be processed again: it has not failed, its uploaded file is gone, or its upload is in work."""

    code = "image_not_failed"
    permanent = True


class TokenRejected(DreamError):
    """The token is missing, expired, revoked, malformed, or its user does not own the dream."""

    code = "token_rejected"
    permanent = True


class TicketsUnavailable(DreamError):
    """The Redis that keeps tickets did not answer."""

    code = "tickets_unavailable"
    is_for_owner = False


class TokenKeysUnavailable(DreamError):
    """The keys that check tokens were not read yet, because the issuer in DREAM_JWT_JWKS does not answer."""

    code = "token_keys_unavailable"
    is_for_owner = False


class TooManyPending(DreamError):
    """Too many pictures wait for processing; nothing was stored, try again later."""

    code = "too_many_pending"


class QuotaExceeded(DreamError):
    """The user's pictures take all the space that one user may have; nothing was stored."""

    code = "quota_exceeded"
    permanent = True


class TooManyVariants(DreamError):
    """The picture has as many stored variants as DREAM_MAX_VARIANTS_PER_PICTURE allows."""

    code = "too_many_variants"
    permanent = True


class LeaseLost(DreamError):
    """Another run has claimed the task; this one may not write any more."""


class TaskTimedOut(DreamError):
    """The run reached its time limit."""

    code = "task_timed_out"


class HandedBack(DreamError):
    """The run stops here and its task goes on in another, which counts neither as a failure nor as a death."""


class TaskRevoked(DreamError):
    """The task was revoked while it ran."""

    code = "task_revoked"
    permanent = True


class WorkerStopping(HandedBack):
    """The worker is shutting down."""


class RunContinues(HandedBack):
    """The run reached its time limit with work done; the rest is for the next one."""
