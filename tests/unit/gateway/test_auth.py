"""Tokens and keys, without a database."""

from __future__ import annotations

import time
from typing import Any

import jwt
import pytest

from dream.cli.tokens import sign
from dream.errors import SettingsError, TokenRejected
from dream.gateway.auth import Identity, bearer_token
from dream.gateway.auth import decode as decode_with
from dream.gateway.keys import Keys
from dream.settings import Settings

SECRET = "x" * 32


def settings(**values: Any) -> Settings:
    return Settings(**{"jwt_secret": SECRET, **values})


def decode(token: str, settings: Settings) -> Identity:
    return decode_with(token, settings, Keys(settings))


def signed(key: str = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    return jwt.encode({"user_id": 5, "exp": time.time() + 3600, **claims}, key, algorithm)


@pytest.mark.parametrize("user_id", [5, "5"])
def test_a_user_id_may_be_a_number_or_a_numeric_string(user_id: object) -> None:
    """Issuers write both."""
    found = decode(signed(user_id=user_id), settings())
    assert (found.user, found.user_id) == ("5", 5)


@pytest.mark.parametrize("user_id", ["five", "05", "+5", "٥", "9" * 30, "auth0|5", "0199-b7c1", "x" * 255])
def test_any_other_text_is_a_user_of_its_own(user_id: str) -> None:
    """Nothing that is not plainly a number is read as one; the number that counts for it is no other user's."""
    found = decode(signed(user_id=user_id), settings())
    assert found.user == user_id
    assert -(2**63) < found.user_id < 0


@pytest.mark.parametrize("user_id", [None, True, "", 5.0, [5], 2**63, "x" * 256, "a\0"])
def test_what_is_neither_a_number_nor_a_text_is_rejected(user_id: object) -> None:
    with pytest.raises(TokenRejected, match="user_id"):
        decode(signed(user_id=user_id), settings())


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("", "there is no token"),
        ("x.y.z", "malformed"),
        (signed(exp=1), "expired"),
        (jwt.encode({"user_id": 5}, SECRET), "no exp claim"),
        (signed(key="y" * 32), "signature"),
        (jwt.encode({"user_id": 5, "exp": 2**33}, None, "none"), "algorithm is not accepted"),
        (signed(key="x" * 64, algorithm="HS512"), "algorithm is not accepted"),
        (signed(exp=10**15), "exp"),
        (signed(jti="j" * 256), "jti"),
        (signed(token_type="refresh"), "refresh"),
        (signed(nbf=2**33), "not valid yet"),
        (signed(nbf=time.time() + 3600), "not valid yet"),
        (signed(exp=time.time() - 2), "expired"),
        ("\ud800", "malformed"),
    ],
    ids=[
        "none",
        "nonsense",
        "expired",
        "no exp",
        "key",
        "unsigned",
        "algorithm",
        "year",
        "jti",
        "refresh",
        "not yet",
        "not for an hour",
        "expired just now",
        "surrogate",
    ],
)
def test_a_rejection_says_why(token: str, reason: str) -> None:
    """Each fault of a token has its own reason."""
    with pytest.raises(TokenRejected, match=reason):
        decode(token, settings())


def test_the_issuers_own_claims_do_not_matter() -> None:
    """Audience, a numeric subject and an issuer's clock that is seconds ahead are no reasons to refuse."""
    ahead = time.time() + 5
    assert decode(signed(aud="web", sub=5, iat=ahead, nbf=ahead, jti="j"), settings()).jti == "j"


@pytest.mark.parametrize("value", [None, False, "true", "false", 1, [True]])
def test_only_true_makes_an_operator(value: object) -> None:
    """Another value of the claim is no rank, and another claim neither."""
    assert decode(signed(dream_operator=True), settings()).is_operator
    assert decode(signed(ops=True), settings(operator_claim="ops")).is_operator
    assert not decode(signed(dream_operator=value), settings()).is_operator
    assert not decode(signed(dream_operator=True), settings(operator_claim="ops")).is_operator


def test_dream_token_names_an_operator_only_if_it_is_asked_to() -> None:
    for is_operator in (False, True):
        own = settings(operator_claim="ops")
        assert decode(sign(own, 5, 60, is_operator=is_operator), own).is_operator is is_operator


@pytest.mark.parametrize("value", ["Bearer abc", "bearer  abc ", "abc", " abc"])
def test_a_token_may_be_bare_or_a_bearers(value: str) -> None:
    assert bearer_token(value) == "abc"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"jwt_secret": None}, "missing"),
        ({"jwt_algorithms": ("XX1",)}, "XX1 is not known"),
    ],
    ids=["missing", "unknown"],
)
def test_a_key_that_cannot_be_used_is_refused(values: dict[str, Any], reason: str) -> None:
    """The gateway does not start with a key that cannot protect anything."""
    with pytest.raises(SettingsError, match=reason):
        Keys(settings(**values))


@pytest.mark.parametrize(
    ("values", "missing"),
    [({}, 0), ({"jwt_secret": "x" * 31}, 1), ({"jwt_secret": "x" * 32, "jwt_algorithms": ("HS256", "HS512")}, 32)],
    ids=["long enough", "short", "short for HS512"],
)
def test_a_short_key_is_said_not_refused(values: dict[str, Any], missing: int) -> None:
    """Tokens that were signed with it until now stay good; the log and the doctor tell to make it longer."""
    assert Keys(settings(**values)).missing_bytes() == missing
