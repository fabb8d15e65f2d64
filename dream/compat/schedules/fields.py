"""The fields of a crontab: what each may hold, and what `*/15`, `mon-fri` or `1,2` mean.

| field | numbers | names |
| --- | --- | --- |
| minute | 0–59 | |
| hour | 0–23 | |
| day of the week | 0–6, Sunday is 0 | `sun` … `saturday`, any three letters or more |
| day of the month | 1–31 | |
| month of the year | 1–12 | `jan` … `december`, likewise |

    field = part ["," part …]      part = value | ("*" | value "-" value) ["/" step]

A range may wrap: `fri-mon` is Friday to Monday.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterable
from typing import Any

from dream.errors import InvalidArguments

__all__ = ["FIELDS", "ParseException", "crontab_parser", "expand"]

#: Of each field: how many values it has, and the first of them.
FIELDS = {
    "minute": (60, 0),
    "hour": (24, 0),
    "day_of_week": (7, 0),
    "day_of_month": (31, 1),
    "month_of_year": (12, 1),
}
_WEEKDAYS = {name.lower(): (number + 1) % 7 for number, name in enumerate(calendar.day_name)}
_MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_name) if name}
_SHORTEST_NAME = 3
_NAMES = {FIELDS["day_of_week"]: _WEEKDAYS, FIELDS["month_of_year"]: _MONTHS}
_PART = re.compile(r"(?P<value>\w+)|(?:\*|(?P<first>\w+)-(?P<last>\w+))(?:/(?P<step>\d+))?")


class ParseException(InvalidArguments):
    """A crontab's field cannot be read."""


class crontab_parser:  # noqa: N801 (Celery's name)
    """Reads one field.

    Parameters:
      max_: how many values it has.
      min_: the first of them.
    """

    ParseException = ParseException

    def __init__(self, max_: int = 60, min_: int = 0) -> None:
        self.min_ = min_
        self.max_ = min_ + max_ - 1
        self._names = _NAMES.get((max_, min_), {})

    def parse(self, spec: str) -> set[int]:
        """The values that a field names.

        Raises:
          ParseException: it cannot be read.
          ValueError: a value is unknown or out of range; it may be a ParseException.
        """
        return {value for part in spec.split(",") for value in self._part(part.strip(), spec)}

    def _part(self, part: str, spec: str) -> list[int]:
        found = _PART.fullmatch(part)
        if found is None:
            raise ParseException(f"{spec!r}: {part!r} is neither a value, a range as in 1-5, nor a step as in */15")
        if found["value"]:
            return [self._value(found["value"])]
        first, last = found["first"] or str(self.min_), found["last"] or str(self.max_)
        values = self._range(self._value(first), self._value(last))
        return self._range_steps([values, found["step"] or 1])

    def _range(self, first: int, last: int) -> list[int]:
        if first <= last:
            return list(range(first, last + 1))
        return [*range(first, self.max_ + 1), *range(self.min_, last + 1)]

    def _range_steps(self, range_and_step: Iterable[Any]) -> list[int]:
        """Every n-th value of a range; its values and n come as one list, as in Celery."""
        values, *steps = range_and_step
        if len(steps) != 1 or int(steps[0]) < 1:
            raise ParseException("a step is a number from 1 on, as in */15")
        return list(values[:: int(steps[0])])

    def _value(self, text: str) -> int:
        number = int(text) if text.isdecimal() else self._number_of(text.lower())
        if not self.min_ <= number <= self.max_:
            raise ParseException(f"{text} is not within {self.min_}-{self.max_}")
        return number

    def _number_of(self, name: str) -> int:
        for full_name, number in self._names.items():
            if len(name) >= _SHORTEST_NAME and full_name.startswith(name):
                return number
        raise ParseException(f"{name!r} is neither a number nor a name that this field knows")


def expand(spec: Any, max_: int, min_: int = 0) -> set[int]:
    """The values that a field's specification names: a number, a text, or numbers.

    Parameters:
      max_: how many values the field has.
      min_: the first of them.

    Raises:
      TypeError: it is none of these.
      ValueError: a value is unknown or out of range.
    """
    if isinstance(spec, int):
        values = {spec}
    elif isinstance(spec, str):
        values = crontab_parser(max_, min_).parse(spec)
    elif isinstance(spec, Iterable):
        values = set(spec)
    else:
        raise TypeError(f"a crontab's field is a number, a text or numbers, not {type(spec).__name__}")
    for value in values:
        if not isinstance(value, int) or not min_ <= value < min_ + max_:
            raise InvalidArguments(f"a crontab's field has {value!r}, which is not within {min_}-{min_ + max_ - 1}")
    return values
