"""Signed URLs and cookies of pictures: what they allow, for how long, and what is refused."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

from dream.errors import InvalidArguments, SettingsError
from dream.media.signatures import COOKIE, Grant, cookie_of, read_cookie, sign_with, verify, viewable_with
from dream.settings import Settings
from dream.storage.keys import Location, locate

KEY = "dreams/20260101/" + "0" * 32 + ".jpg"
OLD, NEW, OTHER = ("o" * 32, "n" * 32, "x" * 40)
NOW = 1_800_000_000.25


def settings(keys: str | None = NEW, **changes: Any) -> Settings:
    return Settings(gateway_url="https://dream.example", media_keys=keys, **changes)


URL = f"https://dream.example/media/{KEY}"


def signed(url: str = URL, ttl_s: float = 3600, user_id: int | None = None, keys: str = NEW) -> str:
    return sign_with(settings(keys), url, ttl_s, user_id, now=NOW)


def check(url: str, keys: str = NEW, now: float = NOW, key: str | None = None) -> Grant | None:
    parts = urlsplit(url)
    path = unquote(parts.path).partition("/media/")[2]
    return verify(settings(keys), path if key is None else key, parse_qsl(parts.query, True), now=now)


# --- signed URLs


@pytest.mark.parametrize("ttl_s", [1, 2, 59.5, 3600, 86_400])
def test_a_signed_url_is_valid_for_its_time_and_at_most_half_as_long_again(ttl_s: float) -> None:
    url = signed(ttl_s=ttl_s)
    grant = check(url)
    assert grant is not None
    assert grant.user is None
    assert NOW + ttl_s < grant.expires_at <= NOW + ttl_s * 1.5 + 1
    assert check(url, now=grant.expires_at - 0.01) == grant
    assert check(url, now=grant.expires_at) is None


def test_everybody_gets_the_same_url_for_half_its_life() -> None:
    """Otherwise each view would have another URL, and caches would keep nothing."""
    ends = {sign_with(settings(), URL, 3600, now=NOW + second) for second in range(0, 3600, 60)}
    assert len(ends) in (2, 3)


def test_a_url_for_a_user_names_him() -> None:
    grant = check(signed(user_id=7))
    assert grant is not None
    assert grant.user == "7"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("0" * 32, "1" * 32),
        (".jpg", "_thumb.jpg"),
        ("exp=1", "exp=2"),
        ("exp=1", "exp=1&exp=1"),
        ("user=7", "user=8"),
        ("user=7&", ""),
        ("user=7", "user="),
        ("v=card", "v=hero"),
        ("v=card&", ""),
        ("v=card&", "v=card&v=card&"),
        ("signature=", "signature=x"),
        ("signature=", "sig="),
    ],
)
def test_a_changed_url_is_refused(before: str, after: str) -> None:
    url = signed(f"{URL}?v=card", user_id=7)
    assert check(url) is not None
    assert before in url
    assert check(url.replace(before, after)) is None


@pytest.mark.parametrize(
    "query", ["", "exp=&signature=", "exp=1800003600", "signature=x", "exp=9e9&signature=é", "exp=²"]
)
def test_a_query_without_a_whole_signature_is_refused(query: str) -> None:
    assert check(f"{URL}?{query}") is None


def test_parameters_that_choose_no_picture_may_be_added() -> None:
    assert check(f"{signed()}&download&utm_source=mail") is not None


def test_a_signature_holds_on_every_host_and_in_any_spelling_of_the_path() -> None:
    """A proxy may change the host; a browser may encode the path."""
    url = signed().replace("https://dream.example", "http://127.0.0.1:8000").replace("/dreams/", "/dreams%2F")
    assert check(url) is not None


def test_keys_rotate() -> None:
    """The first key signs, every key is accepted, and a key that was taken out is not."""
    old, new = signed(keys=OLD), signed(keys=f"{NEW},{OLD}")
    assert new == signed(keys=NEW)
    assert check(old, keys=f"{NEW}, {OLD}") is not None
    assert check(new, keys=f"{OTHER},{NEW}") is not None
    assert check(old, keys=NEW) is None


def test_signing_again_renews_a_url_and_keeps_the_rest_of_its_query() -> None:
    again = signed(signed(f"{URL}?v=card&download", user_id=7))
    names = [name for name, _ in parse_qsl(urlsplit(again).query, True)]
    assert names == ["v", "download", "exp", "signature"]


@pytest.mark.parametrize(
    ("url", "how", "reason"),
    [
        ("https://dream.example/other.jpg", {}, "url must be the URL of a picture"),
        (f"https://dream.example/media/staging/{KEY[7:]}", {}, "url must be"),
        (URL, {"ttl_s": 0}, "ttl_s must be"),
        (URL, {"ttl_s": float("nan")}, "ttl_s must be"),
        (URL, {"ttl_s": 10**9}, "ttl_s must be"),
        (URL, {"ttl_s": "60"}, "ttl_s must be"),
        (URL, {"user_id": True}, "user_id must be"),
        (URL, {"user_id": ""}, "user_id must be"),
        (URL, {"user_id": 2**63}, "user_id is larger"),
    ],
)
def test_wrong_arguments_are_one_clear_error(url: str, how: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidArguments, match=reason):
        sign_with(settings(), url, **how)


def test_without_keys_nothing_is_signed() -> None:
    with pytest.raises(SettingsError, match="DREAM_MEDIA_KEYS is missing"):
        sign_with(settings(None), URL)


def test_pages_get_signed_urls_only_where_they_are_needed() -> None:
    assert viewable_with(settings(), URL) == URL
    assert check(viewable_with(settings(media_access="signed"), URL), now=1.0) is not None


def test_a_signed_url_names_its_picture_for_a_deletion() -> None:
    assert locate(settings(), signed(user_id=7)) == Location(KEY)


# --- the cookie


@pytest.mark.parametrize("user", ["7", "-7", "auth0|5f.ä~", "~", "7.5"])
@pytest.mark.parametrize("jti", [None, "abc", "ä.b\n" * 20])
def test_a_cookie_says_the_user_his_token_and_its_end(jti: str | None, user: str) -> None:
    grant = Grant(int(NOW) + 60, user, jti)
    value = cookie_of(settings(), grant)
    assert read_cookie(settings(), {COOKIE: value}, now=NOW) == grant
    assert read_cookie(settings(f"{OTHER},{NEW}"), {COOKIE: value}, now=NOW) == grant
    assert read_cookie(settings(), {COOKIE: value}, now=NOW + 60) is None
    assert read_cookie(settings(OTHER), {COOKIE: value}, now=NOW) is None


def test_a_changed_cookie_is_refused() -> None:
    value = cookie_of(settings(), Grant(int(NOW) + 60, "7", "abc"))
    user, exp, jti, signature = value.split(".")
    for changed in (
        "",
        "...",
        f"8.{exp}.{jti}.{signature}",
        f"{user}.{int(exp) + 1}.{jti}.{signature}",
        f"{user}.{exp}..{signature}",
        f"{user}.{exp}.{jti}.",
        f"{user}.{exp}.{jti}.{signature}.",
        f"{user}.{exp}.{jti}x.{signature}",
    ):
        assert read_cookie(settings(), {COOKIE: changed}, now=NOW) is None, changed
    assert read_cookie(settings(), {}, now=NOW) is None


def test_a_cookie_is_no_signature_of_a_url() -> None:
    """The same key signs both."""
    _, exp, _, signature = cookie_of(settings(), Grant(int(NOW) + 60, "7")).split(".")
    assert check(f"{URL}?exp={exp}&user=7&signature={signature}") is None
