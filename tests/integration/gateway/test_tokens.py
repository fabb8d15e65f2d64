"""Signed tokens with odd claims, on every way in: 401 or 4001, never 500 and never a traceback."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from websockets.typing import Subprotocol

from dream.db.dreams import give_to
from dream.messages.users import user_number
from tests.commands import dream
from tests.gateway import DREAM, OTHER_DREAM, OWNER, SECRET, STRANGER, Gateway, auth, closing_code, receive, token
from tests.issuer import Issuer, jwk


def signed(claims: str) -> str:
    """A token of exactly this JSON: the library would not write all of it."""

    def part(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    said = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(claims.encode("utf-8", "surrogatepass"))
    return (said + b"." + part(hmac.digest(SECRET.encode(), said, hashlib.sha256))).decode()


def with_claims(**claims: Any) -> str:
    return signed(json.dumps({"user_id": OWNER, "exp": time.time() + 600, **claims}))


ODD = {
    "surrogate jti": with_claims(jti="\ud800"),
    "surrogate in jti": signed(f'{{"user_id":{OWNER},"exp":9999999999,"jti":"a\\udfffb"}}'),
    "nul in jti": with_claims(jti="a\0b"),
    "empty jti": with_claims(jti=""),
    "long jti": with_claims(jti="x" * 256),
    "number as jti": with_claims(jti=5),
    "list as jti": with_claims(jti=["a"]),
    "false as jti": with_claims(jti=False),
    "user beyond 64 bits": with_claims(user_id=2**63),
    "user far beyond": with_claims(user_id=10**400),
    "long user": with_claims(user_id="x" * 256),
    "empty user": with_claims(user_id=""),
    "negative beyond": with_claims(user_id=-(2**64)),
    "float user": with_claims(user_id=11.0),
    "nan user": with_claims(user_id=float("nan")),
    "true user": with_claims(user_id=True),
    "null user": with_claims(user_id=None),
    "list user": with_claims(user_id=[OWNER]),
    "object user": with_claims(user_id={"id": OWNER}),
    "nul user": with_claims(user_id="11\0"),
    "surrogate user": with_claims(user_id="\ud800"),
    "thousands of digits": signed(f'{{"user_id":{"9" * 5000},"exp":9999999999}}'),
    "infinite exp": with_claims(exp=float("inf")),
    "negative infinite exp": with_claims(exp=float("-inf")),
    "nan exp": with_claims(exp=float("nan")),
    "list exp": with_claims(exp=[1]),
    "object exp": with_claims(exp={}),
    "null exp": with_claims(exp=None),
    "text exp": with_claims(exp="tomorrow"),
    "huge exp": with_claims(exp=10**30),
    "infinite nbf": with_claims(nbf=float("inf")),
    "list nbf": with_claims(nbf=[]),
    "object nbf": with_claims(nbf={}),
    "deep claims": signed(f'{{"user_id":{OWNER},"exp":9999999999,"x":{"[" * 50000}{"]" * 50000}}}'),
    "a list": signed(f"[{OWNER}]"),
    "a number": signed("1"),
    "nothing": signed(""),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_an_odd_claim_is_401_everywhere(gateway: Gateway, odd: str) -> None:
    before = gateway.log.stat().st_size
    for method, path in (
        ("GET", f"/api/dreams/{DREAM}/images"),
        ("DELETE", f"/api/dreams/{DREAM}/images/1"),
        ("POST", "/api/auth/logout"),
    ):
        answer = gateway.http.request(method, path, headers=auth(odd))
        # A head of more than 16 KiB is refused.
        assert answer.status_code == (401 if len(odd) < 16_000 else 431), (path, answer.text)
        assert answer.json().get("code") == ("token_rejected" if answer.status_code == 401 else "head_too_large")
    with gateway.socket() as websocket:
        websocket.send(json.dumps({"type": "authenticate", "token": odd}))
        assert closing_code(websocket) in (4001, 1009)
    assert "Traceback" not in gateway.log.read_text()[before:]


@pytest.mark.parametrize(
    "claims",
    [
        {"jti": "ünï"},
        {"jti": "x" * 255},
        {"exp": 253402300799, "jti": "last"},
        {"exp": 4102444800.5, "jti": "half"},
        {"iat": "odd", "sub": 5, "aud": ["a"], "jti": "others"},
        {"user_id": str(OWNER), "jti": "text"},
    ],
    ids=["umlauts", "longest", "year 9999", "half a second", "claims of others", "text"],
)
def test_what_is_no_business_of_ours_is_accepted_and_logged_out(gateway: Gateway, claims: dict[str, Any]) -> None:
    own = with_claims(**claims)
    address = f"/api/dreams/{DREAM}/images"
    assert gateway.http.get(address, headers=auth(own)).status_code == 200
    assert gateway.http.post("/api/auth/logout", headers=auth(own)).status_code == 204
    assert gateway.http.get(address, headers=auth(own)).status_code == 401


@pytest.mark.parametrize("header", ["", "Bearer", "Basic eA==", "Bearer \xff\xfe", "Bearer a b c", "ey.ey.ey"])
def test_an_odd_header_is_401(gateway: Gateway, header: str) -> None:
    headers = {"Authorization": header.encode("latin-1")}
    answer = gateway.http.get(f"/api/dreams/{DREAM}/images", headers=headers)  # type: ignore[arg-type]
    assert answer.status_code == 401


def test_tokens_of_the_largest_user_work(gateway: Gateway) -> None:
    """The largest id that a column holds is an id."""
    own = token(2**63 - 1, jti="largest")
    assert gateway.http.get(f"/api/dreams/{DREAM}/images", headers=auth(own)).status_code == 403
    assert gateway.http.post("/api/auth/logout", headers=auth(own)).status_code == 204


@pytest.mark.parametrize("user", ["auth0|65f1c0ffee", str(UUID(int=7)), "05"])
def test_a_user_may_be_a_text(gateway: Gateway, user: str) -> None:
    """Uploads, lists, sockets and logouts work, for this user alone: the number of the text is nobody's."""
    with gateway.database.begin() as session:
        give_to(session, DREAM, user, "olga")
    own, address = token(user, jti=uuid4().hex), f"/api/dreams/{DREAM}/images"
    files = {"files": ("a.jpg", b"bytes")}
    assert gateway.http.post(address, headers=auth(own), files=files).status_code == 202
    assert len(gateway.http.get(address, headers=auth(own)).json()) == 1
    with gateway.socket(f"?token={own}") as websocket:
        assert receive(websocket)["type"] == "connection_established"
    for stranger in (user_number(user), f"{user} ", user.upper() + "x", OWNER, 5):
        assert gateway.http.get(address, headers=auth(token(stranger))).status_code == 403
    assert gateway.http.post("/api/auth/logout", headers=auth(own)).status_code == 204
    assert gateway.http.get(address, headers=auth(own)).status_code == 401


# --- tickets and subprotocols


def ticket_of(gateway: Gateway, its_token: str) -> str:
    answer = gateway.http.post("/api/ws-ticket", headers=auth(its_token))
    assert (answer.status_code, answer.json()["expires_in_s"]) == (201, 30)
    assert answer.headers["cache-control"] == "no-store"
    return str(answer.json()["ticket"])


def test_a_ticket_opens_one_socket(gateway: Gateway) -> None:
    """Of its user's own dreams alone; a second use is refused."""
    ticket = ticket_of(gateway, token())
    with gateway.socket(f"?ticket={ticket}") as websocket:
        assert receive(websocket)["type"] == "connection_established"
    for refused in (ticket, "x", "%00", "é"):
        with gateway.socket(f"?ticket={refused}") as websocket:
            assert closing_code(websocket) == 4001
    with gateway.socket(f"?ticket={ticket_of(gateway, token())}", dream_id=OTHER_DREAM) as websocket:
        assert closing_code(websocket) == 4001


def test_a_ticket_needs_a_token_that_is_not_revoked(gateway: Gateway) -> None:
    """And one that is revoked after it was given opens nothing."""
    own = token(jti=uuid4().hex)
    ticket = ticket_of(gateway, own)
    assert gateway.http.post("/api/auth/logout", headers=auth(own)).status_code == 204
    assert gateway.http.post("/api/ws-ticket", headers=auth(own)).status_code == 401
    assert gateway.http.post("/api/ws-ticket").status_code == 401
    with gateway.socket(f"?ticket={ticket}") as websocket:
        assert closing_code(websocket) == 4001


def test_a_token_may_come_as_a_subprotocol_which_is_not_echoed(gateway: Gateway) -> None:
    offered = [Subprotocol("dream.v1"), Subprotocol(f"dream.token.{token()}")]
    with gateway.socket(subprotocols=offered) as websocket:
        assert websocket.subprotocol == "dream.v1"
        assert receive(websocket)["type"] == "connection_established"
    wrong = [Subprotocol("dream.v1"), Subprotocol(f"dream.token.{token(STRANGER)}")]
    with gateway.socket(subprotocols=wrong) as websocket:
        assert closing_code(websocket) == 4001
    with gateway.socket(f"?token={token()}", subprotocols=[Subprotocol("graphql-ws")]) as websocket:
        assert websocket.subprotocol is None
        assert receive(websocket)["type"] == "connection_established"


def test_a_program_may_send_the_token_in_the_header_of_its_handshake(gateway: Gateway) -> None:
    with gateway.socket(additional_headers=auth()) as websocket:
        assert receive(websocket)["type"] == "connection_established"


@pytest.mark.slow
def test_a_socket_of_a_ticket_ends_with_its_token(start: Callable[..., Gateway]) -> None:
    """The ticket carries the token's end and its id: both are checked again while the socket lives."""
    with start(ping_interval_s="0.3") as gateway:
        revoked, short = token(jti=uuid4().hex), token(lasts_s=4)
        with (
            gateway.socket(f"?ticket={ticket_of(gateway, revoked)}") as first,
            gateway.socket(f"?ticket={ticket_of(gateway, short)}") as second,
        ):
            assert receive(first)["type"] == receive(second)["type"] == "connection_established"
            assert gateway.http.post("/api/auth/logout", headers=auth(revoked)).status_code == 204
            assert closing_code(first) == closing_code(second) == 4001


def test_without_redis_there_are_no_tickets(start: Callable[..., Gateway]) -> None:
    """The sentence says what else to do."""
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        port = silent.getsockname()[1]
        silent.close()
        with start(redis_url=f"redis://127.0.0.1:{port}/0") as gateway:
            answer = gateway.http.post("/api/ws-ticket", headers=auth())
    assert (answer.status_code, answer.json()["code"]) == (503, "tickets_unavailable")
    assert "Retry-After" in answer.headers


# --- keys of an issuer


def test_the_issuers_keys_rotate_while_the_gateway_runs(start: Callable[..., Gateway], environment: Any) -> None:
    """No restart, and no refused token: the first one that names the new key makes the gateway read it."""
    old, new = (ed25519.Ed25519PrivateKey.generate() for _ in range(2))

    def status(gateway: Gateway, key: Any, kid: str, **claims: Any) -> int:
        said = {"sub": str(OWNER), "aud": "photos", "exp": time.time() + 60, **claims}
        its_token = jwt.encode(said, key, "EdDSA", {"kid": kid})
        return gateway.http.get(f"/api/dreams/{DREAM}/images", headers=auth(its_token)).status_code

    with closing(Issuer([jwk(old, "old")])) as issuer:
        settings = {"jwt_jwks": issuer.url, "jwt_user_claim": "sub", "jwt_audience": "photos"}
        with start(**settings) as gateway:
            assert status(gateway, old, "old") == 200
            assert status(gateway, old, "old", aud="shop") == 401
            issuer.keys = [jwk(old, "old"), jwk(new, "new")]
            assert status(gateway, new, "new") == 200
            assert status(gateway, new, "old") == 401
            assert status(gateway, old, "odd") == 401
            by_secret = auth(token(sub=str(OWNER), aud="photos"))
            assert gateway.http.get(f"/api/dreams/{DREAM}/images", headers=by_secret).status_code == 200
        said = dream(environment, "doctor", **{f"DREAM_{name.upper()}": value for name, value in settings.items()})
        assert f"DREAM_JWT_JWKS={issuer.url} has 2 keys: old (EdDSA), new (EdDSA)" in said.stdout
