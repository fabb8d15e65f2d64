"""Arguments: each mistake of a caller is one clear error at the call; what is right passes unchanged."""

from __future__ import annotations

import base64
import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream.errors import InvalidArguments
from dream.messages.arguments import (
    check_deletion,
    check_focus,
    check_inline,
    check_upload,
    decode_inline,
    named,
    refusal_of,
)
from dream.settings import Settings

SETTINGS = Settings(max_upload_bytes=10, max_files_per_upload=3)
FILE = {"name": "a.jpg", "data": b"123"}


# --- uploads


@pytest.mark.parametrize(
    ("focus", "expected"),
    [
        (None, None),
        ([0, 1], [0.0, 1.0]),
        ((0.25, 0.5), [0.25, 0.5]),
        ([1 / 3, 0.5], [0.3333, 0.5]),
        ([Fraction(1, 4), 1], [0.25, 1.0]),
    ],
)
def test_a_right_focal_point_is_two_shares(focus: Any, expected: Any) -> None:
    assert check_focus(focus, "focus") == expected


@pytest.mark.parametrize(
    "focus",
    [
        *([], [0.5], [0.5, 0.5, 0.5], "ab", b"ab", "0.5,0.5", {"x": 0.5, "y": 0.5}, 0.5, True, {0.1, 0.2}),
        *([1.01, 0], [0, -0.01], [math.nan, 0], [0, math.inf], [10**400, 0], [True, False], ["0.5", "0.5"]),
        *([None, 0.5], [[0.5], [0.5]], [1j, 0]),
    ],
)
def test_a_wrong_focal_point_names_its_file(focus: Any) -> None:
    files = [FILE, {**FILE, "focus": focus}]
    with pytest.raises(
        InvalidArguments, match=r"image_files\[1\] \(a.jpg\): focus must be \[x, y\], two numbers from 0"
    ):
        check_upload(SETTINGS, 1, files, None)
    encoded = base64.b64encode(b"123").decode()
    for its in ({"data": encoded}, {"staged": "staging/1"}):
        with pytest.raises(InvalidArguments, match=r"encoded_files\[0\] \(a.jpg\): focus must be \[x, y\]"):
            check_inline(SETTINGS, 1, [{"name": "a.jpg", "focus": focus, **its}], None)


def test_a_right_upload_gives_its_positions() -> None:
    assert check_upload(SETTINGS, 1, [FILE, FILE], [5, 5]) == [5, 5]


def test_positions_that_are_not_given_are_0() -> None:
    assert check_upload(SETTINGS, 1, [FILE, FILE], None) == [0, 0]


def test_tuples_other_mappings_and_other_bytes_are_as_good() -> None:
    files = ({"name": "a", "data": bytearray(b"1")}, {"name": "b", "data": memoryview(b"1"), "more": 1})
    assert check_upload(SETTINGS, 2**63 - 1, files, (0, -1)) == [0, -1]


@pytest.mark.parametrize("dream_id", [0, -1, 2**63, "1", 1.0, None, True])
def test_a_dream_is_a_positive_integer(dream_id: Any) -> None:
    with pytest.raises(InvalidArguments, match="dream_id must be a positive integer, not"):
        check_upload(SETTINGS, dream_id, [FILE], [0])
    with pytest.raises(InvalidArguments, match="dream_id must be a positive integer, not"):
        check_deletion(dream_id, [], "bob")


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (None, "image_files must be a list of {name, data}, not NoneType"),
        (FILE, "image_files must be a list of {name, data}, not dict"),
        ("a.jpg", "image_files must be a list of {name, data}, not str"),
        (b"123", "image_files must be a list of {name, data}, not bytes"),
        (iter([FILE]), "image_files must be a list of {name, data}, not list_iterator"),
        ([], "image_files is empty: there is nothing to upload"),
        ([FILE] * 4, "4 files are more than the 3 allowed in one call (DREAM_MAX_FILES_PER_UPLOAD)"),
        ([FILE, b"123"], 'image_files[1] must be {"name": str, "data": bytes}'),
        ([{"name": "a.jpg"}], 'image_files[0] must be {"name": str, "data": bytes}'),
        ([{"data": b"1"}], 'image_files[0] must be {"name": str, "data": bytes}'),
        ([{"name": None, "data": b"1"}], "image_files[0]: name must be a string, not NoneType"),
        ([{"name": "a\0b", "data": b"1"}], "image_files[0]: name has characters that are not text: 'a\\x00b'"),
        ([{"name": "a\udc80", "data": b"1"}], "image_files[0]: name has characters that are not text: 'a\\udc80'"),
        ([{"name": "a", "data": "text"}], "image_files[0] (a): data must be bytes, not str"),
        ([{"name": "a", "data": None}], "image_files[0] (a): data must be bytes, not NoneType"),
        ([{"name": "a", "data": b""}], "image_files[0] (a) is empty"),
        (
            [{"name": "a", "data": b"x" * 11}],
            "image_files[0] (a) has 11 bytes, more than the 10 bytes allowed (DREAM_MAX_UPLOAD_BYTES)",
        ),
        (
            [{"name": "a", "data": memoryview(b"x" * 12).cast("I")}],
            "image_files[0] (a) has 12 bytes, more than the 10 bytes allowed (DREAM_MAX_UPLOAD_BYTES)",
        ),
    ],
)
def test_wrong_files_are_one_clear_error(files: Any, reason: str) -> None:
    with pytest.raises(InvalidArguments) as caught:
        check_upload(SETTINGS, 1, files, None)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("positions", "reason"),
    [
        (7, "positions must be a list of integers, not int"),
        ("00", "positions must be a list of integers, not str"),
        ([], "2 files but 0 positions: each file needs one"),
        ([1, 2, 3], "2 files but 3 positions: each file needs one"),
        ([1], "2 files but 1 position: each file needs one"),
        ([1, "2"], "positions[1] must be an integer, not '2'"),
        ([1.5, 2], "positions[0] must be an integer, not 1.5"),
        ([True, 2], "positions[0] must be an integer, not True"),
        ([0, 2**31], "positions[1] must be an integer, not 2147483648"),
    ],
)
def test_wrong_positions_are_one_clear_error(positions: Any, reason: str) -> None:
    with pytest.raises(InvalidArguments) as caught:
        check_upload(SETTINGS, 1, [FILE, FILE], positions)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("size_bytes", "most_bytes", "fault"),
    [
        (50_000_000, 32 * 2**20, "has 50.0 MB, more than the 33.6 MB allowed"),
        (32 * 2**20 + 1, 32 * 2**20, "has more than the 33.6 MB allowed"),
        (1_230_000_000, 1_000_000, "has 1230.0 MB, more than the 1.0 MB allowed"),
        (100_001, 1000, "has 0.1 MB, more than the 1000 bytes allowed"),
    ],
)
def test_sizes_are_said_in_megabytes_with_one_decimal(size_bytes: int, most_bytes: int, fault: str) -> None:
    """Never two equal figures of which one is said to be more; what would be 0.0 is said in bytes."""
    refusal = refusal_of("a", size_bytes, most_bytes)
    assert refusal is not None
    assert (refusal.code, str(refusal), named(refusal, "a")) == ("file_too_large", f"the file {fault}", f"a {fault}")
    assert refusal_of("a", most_bytes, most_bytes) is None


def test_the_largest_file_allowed_passes() -> None:
    assert check_upload(SETTINGS, 1, [{"name": "a", "data": b"x" * 10}], [0]) == [0]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["name", "data", "staged", "id", "url"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(dream_id=ANYTHING, files=ANYTHING, positions=ANYTHING)
def test_any_upload_passes_or_is_refused_by_name(dream_id: Any, files: Any, positions: Any) -> None:
    """For any arguments, no other error than ours comes back, and accepted ones have a position for each file."""
    try:
        offsets = check_upload(SETTINGS, dream_id, files, positions)
    except InvalidArguments:
        return
    assert len(offsets) == len(files)


# --- uploads that came as a message

INLINE = {"name": "a.jpg", "data": "MTIz"}
STAGED = {"name": "b.jpg", "staged": "staging/b"}


def test_inline_files_are_told_from_staged_ones_by_their_place() -> None:
    assert check_inline(SETTINGS, 1, [STAGED, INLINE], [5, 6]) == ({1: FILE}, [5, 6])


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (None, "encoded_files must be a list of {name, data}, not NoneType"),
        ([], "encoded_files is empty: there is nothing to upload"),
        ([INLINE] * 4, "4 files are more than the 3 allowed in one call (DREAM_MAX_FILES_PER_UPLOAD)"),
        ([INLINE, 7], 'encoded_files[1]: each file must be {"name", "data": base64} or {"name", "staged": key}'),
        (
            [INLINE, {"name": "b.jpg", "data": "no base64"}],
            'encoded_files[1] (b.jpg): each file must be {"name", "data": base64} or {"name", "staged": key}',
        ),
        ([INLINE, None], 'encoded_files[1]: each file must be {"name", "data": base64} or {"name", "staged": key}'),
        ([{"name": "a", "data": ""}], "encoded_files[0] (a) is empty"),
        ([{"name": 1, "data": "MTIz"}], "encoded_files[0]: name must be a string, not int"),
        ([{"staged": "staging/b"}], "encoded_files[0]: name must be a string, not NoneType"),
        ([{"name": "b", "staged": 7}], "encoded_files[0]: staged must be a string, not int"),
        ([{"name": "b", "staged": "dreams/x"}], "encoded_files[0]: staged must be a key under staging/"),
    ],
)
def test_wrong_files_in_a_message_are_one_clear_error(files: Any, reason: str) -> None:
    with pytest.raises(InvalidArguments) as caught:
        check_inline(SETTINGS, 1, files, None)
    assert str(caught.value) == reason


@given(dream_id=ANYTHING, files=ANYTHING, positions=ANYTHING)
def test_any_message_passes_or_is_refused_by_name(dream_id: Any, files: Any, positions: Any) -> None:
    try:
        _, offsets = check_inline(SETTINGS, dream_id, files, positions)
    except InvalidArguments:
        return
    assert len(offsets) == len(files)


# --- deletions


def test_a_right_deletion_is_echoed() -> None:
    asked = [{"id": 3, "url": "https://a/b"}, {"url": "dreams/x"}, {"id": -1}]
    assert check_deletion(1, asked, "bob") == [
        {"id": 3, "url": "https://a/b"},
        {"id": 0, "url": "dreams/x"},
        {"id": -1},
    ]


@pytest.mark.parametrize("username", ["", None])
def test_a_deletion_may_name_no_user_and_no_image(username: Any) -> None:
    assert check_deletion(1, [], username) == []


@pytest.mark.parametrize(
    ("image_urls", "username", "reason"),
    [
        (None, "bob", "image_urls must be a list of {id, url}, not NoneType"),
        ("https://a/b", "bob", "image_urls must be a list of {id, url}, not str"),
        ({"id": 1, "url": "u"}, "bob", "image_urls must be a list of {id, url}, not dict"),
        (["https://a/b"], "bob", 'image_urls[0] must be {"id": int, "url": str}'),
        ([{}], "bob", 'image_urls[0] must be {"id": int, "url": str}'),
        ([{"id": 1, "url": None}], "bob", "image_urls[0]: url must be a string, not NoneType"),
        ([{"id": 1, "url": "a\0"}], "bob", "image_urls[0]: url has characters that are not text: 'a\\x00'"),
        ([{"id": 1, "url": "u"}, {"id": "2", "url": "u"}], "bob", "image_urls[1]: id must be an integer, not '2'"),
        ([{"id": True, "url": "u"}], "bob", "image_urls[0]: id must be an integer, not True"),
        ([{"id": 2**63}], "bob", "image_urls[0]: id must be an integer, not 9223372036854775808"),
        ([], 7, "username must be a string, not int"),
        ([], "b\0b", "username has characters that are not text: 'b\\x00b'"),
    ],
)
def test_wrong_deletions_are_one_clear_error(image_urls: Any, username: Any, reason: str) -> None:
    with pytest.raises(InvalidArguments) as caught:
        check_deletion(1, image_urls, username)
    assert str(caught.value) == reason


@given(dream_id=ANYTHING, image_urls=ANYTHING, username=ANYTHING)
def test_any_deletion_passes_or_is_refused_by_name(dream_id: Any, image_urls: Any, username: Any) -> None:
    try:
        wanted = check_deletion(dream_id, image_urls, username)
    except InvalidArguments:
        return
    assert [set(item) for item in wanted] == [{"id", "url"}] * len(image_urls)


# --- inline bytes


@given(data=st.binary(), name=st.text())
def test_inline_bytes_come_back_as_they_were(data: bytes, name: str) -> None:
    assert decode_inline({"name": name, "data": base64.b64encode(data).decode()}) == {"name": name, "data": data}


@pytest.mark.parametrize(
    "file",
    [
        {"name": "a", "data": "not base64!"},
        {"name": "a", "data": "YWI"},
        {"name": "a", "data": "ÿ"},
        {"name": "a", "data": None},
        {"name": "a"},
        {"data": "YWI="},
        "YWI=",
        None,
    ],
)
def test_what_is_not_base64_is_one_clear_error(file: Any) -> None:
    with pytest.raises(InvalidArguments, match="each file must be"):
        decode_inline(file)
