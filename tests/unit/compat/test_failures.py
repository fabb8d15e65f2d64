"""Errors in results: written as Celery writes them, read back as their own class; nothing else is built or imported."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest
from dramatiq.middleware import Shutdown

from dream.compat import exceptions
from dream.compat.failures import Stopped, read_error, write_error
from dream.errors import ImageRejected


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no", 1),
        ImageRejected("no picture"),
        KeyError("x"),
        exceptions.TaskRevokedError("gone"),
        exceptions.Reject("no use", requeue=True),
    ],
)
def test_an_error_comes_back_as_its_own_class(error: Exception) -> None:
    read = read_error(json.loads(json.dumps(write_error(error))))
    assert (type(read), read.args if read else None, str(read)) == (type(error), error.args, str(error))


class Abort(BaseException):
    """No `Exception`."""


@pytest.mark.parametrize("kind", [Abort, asyncio.CancelledError, GeneratorExit, KeyboardInterrupt])
def test_what_is_no_exception_comes_back_as_its_own_class_and_as_one(kind: type[BaseException]) -> None:
    """The process that looks is not cancelled, interrupted or ended by another's failure."""
    read = read_error(json.loads(json.dumps(write_error(kind("why")))))
    assert isinstance(read, kind)
    assert isinstance(read, exceptions.TaskError)
    assert (type(read).__name__, read.args, str(read)) == (kind.__name__, ("why",), "why")
    assert repr(read_error(write_error(kind()))) == repr(kind())
    assert write_error(read) == write_error(kind("why"))


@pytest.mark.parametrize("kind", [Shutdown, type("Left", (SystemExit,), {"__module__": __name__}), Stopped])
def test_what_would_end_the_run_that_looks_is_not_built(
    kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[kind.__module__], kind.__name__, kind, raising=False)
    read = read_error({"exc_type": kind.__name__, "exc_message": [], "exc_module": kind.__module__})
    assert isinstance(read, exceptions.TaskError)
    assert not isinstance(read, kind)


def test_an_argument_whose_words_fail_is_named_by_its_class() -> None:
    class Unspeakable:
        def __repr__(self) -> str:
            raise LookupError("no words")

    assert write_error(ValueError(Unspeakable()))["exc_message"] == ["<Unspeakable whose repr() raises LookupError>"]


def test_no_module_is_loaded_because_a_result_names_it() -> None:
    """Also not one of a package that is; whoever catches a class has imported it."""
    sys.modules.pop("dream.cli.dead_letters", None)
    written = {"exc_type": "InvalidArguments", "exc_message": ["x"], "exc_module": "dream.cli.dead_letters"}
    assert type(read_error(written)).__mro__[1] is exceptions.TaskError
    assert "dream.cli.dead_letters" not in sys.modules


def test_an_argument_that_json_cannot_carry_is_written_as_it_looks() -> None:
    assert write_error(ValueError({1}))["exc_message"] == ["{1}"]


@pytest.mark.parametrize(
    ("module", "name", "said"),
    [
        ("os", "system", "no exception class"),
        ("builtins", "eval", "no exception class"),
        ("builtins", "dict", "no exception class"),
        ("builtins", "SystemExit", "no exception class"),
        ("builtins", "a\x00b", "touch x"),
        ("builtins", "\ud800", "touch x"),
        ("antigravity", "Error", "touch x"),
        ("json.tool", "Error", "touch x"),
        ("celery.exceptions", "Unheard", "touch x"),
        ("builtins", "UnicodeDecodeError", "touch x"),
    ],
)
def test_only_exception_classes_are_built_and_nothing_is_imported(module: str, name: str, said: str) -> None:
    read = read_error({"exc_type": name, "exc_message": ["touch x"], "exc_module": module})
    assert isinstance(read, exceptions.TaskError)
    assert said in str(read)
    assert not {"antigravity", "json.tool"} & sys.modules.keys()
