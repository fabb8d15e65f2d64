"""Errors in results: written as Celery writes them, read back as their own class; nothing else is built or imported."""

from __future__ import annotations

import json
import sys

import pytest

from dream.compat import exceptions
from dream.compat.failures import read_error, write_error
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
