"""Errors: one tree; a docstring is the default message, and each class knows whether trying again can help."""

from __future__ import annotations

import inspect
import pickle

import pytest

from dream import errors
from dream.errors import DreamError, HandedBack, InvalidArguments

CLASSES = [getattr(errors, name) for name in errors.__all__]
HOPELESS = {
    "AccessDenied",
    "BucketMissing",
    "ImageRejected",
    "InvalidArguments",
    "ObjectMissing",
    "SettingsError",
    "StackError",
    "TaskRevoked",
    "TokenRejected",
}


def test_every_error_is_listed() -> None:
    defined = {name for name, each in vars(errors).items() if inspect.isclass(each) and issubclass(each, Exception)}
    assert defined == set(errors.__all__)


@pytest.mark.parametrize("error", CLASSES)
def test_an_error_belongs_to_the_tree(error: type[Exception]) -> None:
    assert issubclass(error, DreamError)


@pytest.mark.parametrize("error", CLASSES)
def test_the_docstring_is_the_default_message_as_a_clause(error: type[DreamError]) -> None:
    """Without a capital and a full stop, as every other message; what follows the first sentence is for us."""
    assert error.__doc__
    assert error.__doc__.lower().startswith(str(error()).lower())
    assert str(error())[0].islower()
    assert "." not in str(error())
    assert str(error("the disk is full")) == "the disk is full"


@pytest.mark.parametrize("error", CLASSES)
def test_an_error_survives_the_way_between_processes(error: type[DreamError]) -> None:
    copy = pickle.loads(pickle.dumps(error("the disk is full")))  # noqa: S301 (our own bytes)
    assert type(copy) is error
    assert str(copy) == "the disk is full"


def test_exactly_these_are_not_helped_by_trying_again() -> None:
    assert {error.__name__ for error in CLASSES if error.permanent} == HOPELESS


def test_wrong_arguments_are_a_value_error_for_callers_that_know_no_other() -> None:
    assert issubclass(InvalidArguments, ValueError)
    assert issubclass(errors.ImageRejected, ValueError)


def test_what_is_handed_back_is_no_failure() -> None:
    handed_back = {error for error in CLASSES if issubclass(error, HandedBack)}
    assert handed_back == {HandedBack, errors.WorkerStopping, errors.RunContinues}
    assert not any(error.permanent for error in handed_back)
