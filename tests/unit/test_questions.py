"""Questions to workers and their answers in their exact JSON: workers of other releases read them."""

from __future__ import annotations

from typing import get_type_hints

import pytest

from dream.work.questions import Answer, Question, RevokeArguments, RevokeReply, TakesArguments


def test_a_question_is_this_json() -> None:
    arguments = RevokeArguments(task_ids=["a"], terminate=True)
    question = Question(command="revoke", arguments=arguments, destination=["one"], ticket="t")
    text = (
        '{"command": "revoke", "arguments": {"task_ids": ["a"], "terminate": true}, '
        '"destination": ["one"], "ticket": "t"}'
    )
    assert (question.encode(), Question.decode(text)) == (text, question)


def test_an_answer_is_this_json() -> None:
    text = '{"worker": "one", "reply": {"ok": "pong"}}'
    assert (Answer("one", {"ok": "pong"}).encode(), Answer.decode(text)) == (text, Answer("one", {"ok": "pong"}))


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (RevokeArguments, {"task_ids": list[str], "terminate": bool}),
        (RevokeReply, {"ok": str, "running": list[str]}),
        (TakesArguments, {"task": str, "queue": str}),
    ],
)
def test_what_commands_take_and_give_has_exactly_these_fields(kind: type, fields: dict[str, type]) -> None:
    assert get_type_hints(kind) == fields


def test_a_question_is_for_all_or_for_those_it_names() -> None:
    assert Question(command="ping").is_for("one")
    assert [Question(command="ping", destination=["two"]).is_for(name) for name in ("one", "two")] == [False, True]


def test_what_a_later_release_adds_is_left_out() -> None:
    later = '{"command": "ping", "ticket": "t", "since": 3}'
    assert Question.decode(later) == Question(command="ping", ticket="t")


@pytest.mark.parametrize(
    "text",
    ["ping", "[]", '{"command": "ping"}', '{"ticket": "t"}', '{"command": "ping", "ticket": "t", "arguments": 1}'],
)
def test_what_is_no_question_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (JSON's own error is one)
        Question.decode(text)
