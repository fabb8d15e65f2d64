"""Errors: one tree; a docstring is the default message, and each class knows whether trying again can help."""

from __future__ import annotations

import ast
import inspect
import pickle
import re
from pathlib import Path

import pytest

from dream import errors
from dream.errors import DreamError, HandedBack, ImageRejected, InvalidArguments, Reason

CLASSES = [getattr(errors, name) for name in errors.__all__ if name != "Reason"]
HOPELESS = {
    "AccessDenied",
    "BucketMissing",
    "FilesRefused",
    "ImageRejected",
    "InvalidArguments",
    "KeyReused",
    "ObjectMissing",
    "QuotaExceeded",
    "RetryRefused",
    "SettingsError",
    "StackError",
    "TaskRevoked",
    "TokenRejected",
    "TooManyVariants",
    "UploadUnknown",
}


def test_every_error_is_listed() -> None:
    defined = {name for name, each in vars(errors).items() if inspect.isclass(each) and issubclass(each, Exception)}
    assert defined == set(errors.__all__) - {"Reason"}


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


# --- reasons

#: Errors about one picture: their sentences are for its owner.
OF_A_PICTURE = {"ImageRejected", "ImageTimedOut", "ImageCrashed"}
SOURCES = sorted(Path(errors.__file__).parent.rglob("*.py"))


def calls() -> list[tuple[str, ast.Call]]:
    """Every call in the package, with its module's name."""
    trees = [(path.stem, ast.parse(path.read_text(encoding="utf-8"))) for path in SOURCES]
    return [(name, node) for name, tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_every_error_about_a_picture_is_made_of_a_reason() -> None:
    """So each has a code; a call with words of its own names the code beside them."""
    own_words = [
        f"{module}:{call.lineno}"
        for module, call in calls()
        if isinstance(call.func, ast.Name)
        and call.func.id in OF_A_PICTURE
        and "code" not in {each.arg for each in call.keywords}
    ]
    assert own_words == []


def test_every_reason_is_used() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
    assert [each.name for each in Reason if not re.search(rf"\bReason\.{each.name}\b", code)] == []


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.name)
def test_a_reason_is_a_code_and_a_clause(reason: Reason) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)+", reason.code)
    assert len(reason.code) <= 64
    assert reason.sentence[0].islower()
    assert not reason.sentence.endswith(".")


def test_an_error_of_a_reason_has_its_code_and_its_sentence_in_every_process() -> None:
    error = ImageRejected.because(Reason.TOO_MANY_FRAMES, most=300)
    for each in (error, pickle.loads(pickle.dumps(error))):  # noqa: S301 (our own bytes)
        assert (each.code, str(each)) == ("too_many_frames", "the animation has more than 300 frames")
    assert ImageRejected("x").code == ImageRejected.code == "image_rejected"
    assert DreamError("x").code == errors.SettingsError("x").code == "internal_error"
