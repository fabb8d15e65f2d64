"""Error texts for a picture's owner, and for operators."""

from __future__ import annotations

import pytest
from botocore.exceptions import ConnectTimeoutError, EndpointConnectionError, ReadTimeoutError
from dramatiq.middleware import TimeLimitExceeded

from dream import errors
from dream.errors import (
    BrokerUnavailable,
    DatabaseUnavailable,
    DreamError,
    ImageCrashed,
    ImageRejected,
    ObjectMissing,
    ObjectStoreUnavailable,
)
from dream.messages.states import owners_line
from dream.runs.run import failure_of, reason_of
from dream.storage.s3 import _fault

INTERNAL = "http://10.1.2.3:9000/bucket/dreams/x.jpg"


@pytest.mark.parametrize(
    "error",
    [
        _fault(ReadTimeoutError(endpoint_url=INTERNAL), "store an object"),
        _fault(ConnectTimeoutError(endpoint_url=INTERNAL), "store an object"),
        _fault(EndpointConnectionError(endpoint_url=INTERNAL), "store an object"),
        DatabaseUnavailable(f"the database did not answer: {INTERNAL}"),
        errors.DatabaseRefused(INTERNAL),
        errors.OwnersQueryFailed(INTERNAL),
        BrokerUnavailable(INTERNAL),
        ObjectMissing(INTERNAL),
        ImageCrashed("work on the picture failed", detail=f"OSError: {INTERNAL}"),
        OSError(INTERNAL),
        ValueError(f"\0\ud800 {INTERNAL}"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_words_of_others_are_for_operators(error: Exception) -> None:
    """The first line is a sentence of ours; the words of the library, as they were, follow it."""
    assert "10.1.2.3" not in reason_of(error)
    full = failure_of(error).error or ""
    assert owners_line(full) == reason_of(error)
    assert INTERNAL in full.partition("\n")[2]
    assert "\0" not in full
    full.encode()


@pytest.mark.parametrize(
    "error",
    [ImageRejected("not a picture"), ImageCrashed("it needs more memory"), TimeLimitExceeded(), errors.TaskTimedOut()],
    ids=lambda error: type(error).__name__,
)
def test_sentences_of_ours_are_for_everybody(error: BaseException) -> None:
    """They are the whole reason."""
    assert failure_of(error).error == reason_of(error) == owners_line(reason_of(error))


def test_secrets_are_in_no_row() -> None:
    full = failure_of(OSError("redis://user:hunter2@10.1.2.3/0")).error or ""
    assert "hunter2" not in full
    assert "10.1.2.3" in full


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name != "Reason"])
def test_each_error_has_a_sentence_for_owners(name: str) -> None:
    error: DreamError = getattr(errors, name)("words", detail="of others")
    sentence = error.for_owner
    assert sentence
    assert "of others" not in sentence
    assert "\n" not in sentence


def test_the_store_says_what_was_being_done() -> None:
    error = _fault(ReadTimeoutError(endpoint_url=INTERNAL), "store an object")
    assert isinstance(error, ObjectStoreUnavailable)
    assert error.for_owner == "could not store an object: the object store did not answer"
    assert INTERNAL in str(error)
